"""Real processes on 127.0.0.1: a server and its sites, started from provisioned kits, and ended by their own groups."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from polyhead.agreed import Agreed, agreement_of, read_agreement
from polyhead.coordinator import EVENTS, store_of
from polyhead.federation.snapshot import Store
from polyhead.flare.kits import Kits, Server, provision
from polyhead.flare.layout import AGREEMENT, SITE_FILE, STATES, local_folder
from polyhead.flare.processes import start
from polyhead.flare.supervisor import Post
from polyhead.phantom import Acquisition, write_site
from polyhead.study_file import load_study
from tests.conftest import TINY_SETTINGS

FINDINGS = {"a": ("Pleural Effusion", "Cardiomegaly"), "b": ("Pleural Effusion", "Edema"), "c": ("Cardiomegaly",)}
ADMIN = "coordinator@federation.example"


@dataclass(frozen=True)
class Houses:
    """A federation's kits, and the processes started from them."""

    kits: Kits
    study: Path
    running: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)

    @property
    def agreed(self) -> Agreed:
        return read_agreement(local_folder(self.kits.server) / AGREEMENT)

    def store(self, method: str = "ffl", seed: int = 0) -> Store:
        return store_of(self.agreed, self.kits.server / STATES, method, seed)

    def post(self, method: str = "ffl", seed: int = 0) -> Post:
        return Post(self.kits.admin, ADMIN, self.store(method, seed).folder / EVENTS)

    def kit(self, name: str) -> Path:
        return self.kits.server if name == "server" else self.kits.sites[name]

    def start(self, *names: str) -> None:
        for name in names:
            with (self.kit(name) / "output.txt").open("ab") as log:
                self.running[name] = start(self.kit(name), log)

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def job_processes(self, name: str) -> list[int]:
        """Processes of a house that do a job's work."""
        family = psutil.Process(self.running[name].pid).children(recursive=True)
        return [
            one.pid
            for one in family
            if any("runner_process" in word or "worker_process" in word for word in one.cmdline())
        ]


def write_study(folder: Path, rounds: int, sites: Sequence[str] = "abc", more: str = "") -> Path:
    """Draw hospitals of phantoms, and write their study."""
    size = {"train": 24, "val": 8, "test": 8}
    for place, name in enumerate(sites):
        about = {"site": name, "findings": FINDINGS[name], "acquisition": Acquisition(), "seed": place, "size": 32}
        write_site(folder / name, **about, **size)  # type: ignore[arg-type]
    parts = "".join(f'[[site]]\nname = "{name}"\nmanifest = "{name}/manifest.csv"\n' for name in sites)
    settings = TINY_SETTINGS.replace("rounds = 2", f"rounds = {rounds}") + more
    file = folder / "study.toml"
    file.write_text(f'name = "phantoms"\nmethods = ["ffl"]\n{parts}{settings}')
    return file


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def build(folder: Path, study_file: Path) -> Houses:
    """Provision a study's kits, and give each site its own file."""
    study = load_study(study_file)
    names = [site.name for site in study.site]
    kits = provision(folder / "kits", agreement_of(study), names, Server("localhost", *free_ports(2)), ADMIN)
    for site in study.site:
        (local_folder(kits.sites[site.name]) / SITE_FILE).write_text(f'manifest = "{site.manifest}"\n')
    return Houses(kits, study_file)


@contextmanager
def open_houses(folder: Path, study_file: Path) -> Iterator[Houses]:
    """Start a server and its sites, and end them all afterwards."""
    houses = build(folder, study_file)
    try:
        houses.start("server", *houses.kits.sites)
        yield houses
    finally:
        for name in list(houses.running):
            houses.kill(name)
