"""Real processes on 127.0.0.1: a server and its sites, started from provisioned kits, and ended by their own groups."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from polyhead.deployment.agreed import Agreed, agreement_of, read_agreement
from polyhead.deployment.coordinator import EVENTS, store_of
from polyhead.deployment.events import read_events
from polyhead.flare.kits import Kits, Server, provision
from polyhead.flare.layout import AGREEMENT, SITE_FILE, STATES, local_folder
from polyhead.flare.processes import start
from polyhead.flare.supervisor import Patience, Post, run_federation
from polyhead.study_file import load_study
from tests.deployment.houses_by_hand import State, When, state_of

ADMIN = "coordinator@federation.example"
# A house that was killed is back within a minute, as the server takes it for its own twin at first.
PATIENCE = Patience(sites=120, deadline=60, silence=8, start=90)
# Seconds after which a federation hangs, on however busy a machine.
_HANGS = 600


@dataclass(frozen=True)
class Houses:
    """A federation's kits, how long its supervisor waits for what, and the processes started from the kits."""

    kits: Kits
    study: Path
    patience: Patience = PATIENCE
    running: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)

    @property
    def agreed(self) -> Agreed:
        return read_agreement(local_folder(self.kits.server) / AGREEMENT)

    @property
    def post(self) -> Post:
        return Post(self.kits.admin, ADMIN, self.kits.server / STATES)

    def events(self, seed: int) -> list[dict[str, Any]]:
        return read_events(store_of(self.agreed, self.post.states, "ffl", seed).folder / EVENTS)

    def state(self, seed: int) -> State:
        """Read the state that a deployed federation ended in: the server's part, and each site's from its own disk."""
        homes = {site: kit / STATES for site, kit in self.kits.sites.items()}
        return state_of(self.agreed, self.kits.server / STATES, homes, seed)

    def rounds_done(self, seed: int) -> int:
        return max((event["round"] + 1 for event in self.events(seed) if event["event"] == "round"), default=0)

    def absent(self, seed: int) -> When:
        """Say who did not count in which round that counted."""
        return {
            (row["round"], row["site"])
            for event in self.events(seed)
            if event["event"] == "round"
            for row in event["rows"]
            if row["status"] != "averaged"
        }

    def kit(self, name: str) -> Path:
        return self.kits.server if name == "server" else self.kits.sites[name]

    def start(self, *names: str) -> None:
        for name in names:
            with (self.kit(name) / "output.txt").open("ab") as log:
                self.running[name] = start(self.kit(name), log)

    def kill(self, name: str) -> None:
        """End a house with all its processes, at once."""
        process = self.running.pop(name)
        family = [process.pid, *(one.pid for one in psutil.Process(process.pid).children(recursive=True))]
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pid in family:
            # A job's process is of another group.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def signal_job(self, name: str, number: signal.Signals) -> None:
        """Signal the processes of a house that do a job's work."""
        kinds = ("runner_process", "worker_process")
        for one in psutil.Process(self.running[name].pid).children(recursive=True):
            if any(kind in word for word in one.cmdline() for kind in kinds):
                os.kill(one.pid, number)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def build(folder: Path, study_file: Path, patience: Patience = PATIENCE) -> Houses:
    """Provision a study's kits, and give each site its own file."""
    study = load_study(study_file)
    names = [site.name for site in study.site]
    where = Server("localhost", *free_ports(2))
    kits = provision(folder / "kits", agreement_of(study), names, where, ADMIN, study.model.weights)
    for site in study.site:
        (local_folder(kits.sites[site.name]) / SITE_FILE).write_text(f'manifest = "{site.manifest}"\n')
    return Houses(kits, study_file, patience)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, here and in what is started: sums depend on their number."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextmanager
def ended(houses: Houses) -> Iterator[Houses]:
    """End whatever was started of them, afterwards."""
    try:
        yield houses
    finally:
        for name in list(houses.running):
            houses.kill(name)


@contextmanager
def open_houses(folder: Path, study_file: Path) -> Iterator[Houses]:
    """Start a server and its sites, and end them all afterwards."""
    with ended(build(folder, study_file)) as houses:
        houses.start("server", *houses.kits.sites)
        yield houses


@contextmanager
def federation(houses: Houses, seed: int, rounds: int, length: int) -> Iterator[list[int]]:
    """Run a federation beside what the block does to it; what is yielded holds the number of segments in the end."""
    assert houses.agreed.federation.rounds == rounds
    segments: list[int] = []
    problems: list[BaseException] = []

    def work() -> None:
        try:
            segments.append(run_federation(houses.post, houses.agreed, "ffl", seed, houses.patience, length, print))
        except BaseException as problem:  # It is raised again in the test's own thread.
            problems.append(problem)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield segments
    thread.join(timeout=_HANGS)
    assert not thread.is_alive(), "the federation hangs"
    if problems:
        raise problems[0]


def wait_until(houses: Houses, seed: int, rounds: int) -> None:
    """Wait until so many rounds are done."""
    began = time.monotonic()
    while houses.rounds_done(seed) < rounds:
        assert time.monotonic() - began < _HANGS, f"no {rounds} rounds within {_HANGS} s"
        time.sleep(0.05)
