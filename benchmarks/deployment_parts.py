"""Parts of `deployment.py`: what a site trains, processes that are found again, their memory, and the bytes between."""

import asyncio
import bisect
import contextlib
import itertools
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from polyhead.config import Federation, Model, Training
from polyhead.federation.sharing import Sharing
from polyhead.federation.site import Plan, Site, site_round
from polyhead.federation.start import build_models, part_model
from polyhead.federation.update import SiteUpdate
from polyhead.training.dataset import SplitData
from polyhead.training.model import SiteModel

MARK = "POLYHEAD_BENCHMARK"
"""Environment variable by which every process of a run is found again, whoever is its parent by then."""

SIZE, BATCH, IMAGES = 64, 2, 8
FFL = Sharing(backbone=True, batch_norm=True, head=False)
MODELS = {
    "small": Model(backbone="resnet18", width=0.25, image_size=SIZE),
    "resnet18": Model(backbone="resnet18", image_size=SIZE),
    "resnet50": Model(backbone="resnet50", image_size=SIZE),
}
# Seconds; no step of two images takes so long.
_LONGEST_STEP = 120.0

Step = Callable[[int, Mapping[str, torch.Tensor]], SiteUpdate]


@dataclass(frozen=True)
class Case:
    """One configuration: which model, how many sites, how many rounds, and after how many seconds it is given up."""

    model: str
    sites: int
    rounds: int
    limit: float

    @property
    def names(self) -> list[str]:
        return [f"site-{number + 1}" for number in range(self.sites)]


@dataclass
class Result:
    """What was measured of one peer.

    Attributes
    ----------
    rounds
        Seconds of each round but the first of a job.
    starts
        Seconds of each part of a start.
    memory
        Largest resident memory of a process in bytes, by its role.
    wire
        Bytes a round and site.
    """

    peer: str
    rounds: list[float] = field(default_factory=list)
    starts: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    wire: dict[str, float] = field(default_factory=dict)


def model_of(case_model: str, name: str) -> tuple[Site, SiteModel]:
    """Return a site of noise and its model; the same backbone at all."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (IMAGES, SIZE, SIZE), dtype=np.uint8)
    labels = rng.integers(0, 2, (IMAGES, 1)).astype(np.float32)
    rows = tuple(map(str, range(IMAGES)))
    split = SplitData(pixels, np.arange(IMAGES), labels, rows, rows)
    site = Site(name, ("Edema",), ("Edema",), split, split, split)
    return site, build_models([site], MODELS[case_model], FFL, 0, torch.device("cpu"))[name]


def step_of(case_model: str, name: str, rounds: int) -> tuple[Step, dict[str, torch.Tensor]]:
    """Return a site's round without any federation, one step of two images, and what it shares at first."""
    site, model = model_of(case_model, name)
    plan = Plan(0, Federation(rounds=rounds, local_steps=1), Training(batch_size=BATCH, device="cpu"), FFL)
    shared, private = part_model(model, FFL)

    def step(round_: int, given: Mapping[str, torch.Tensor]) -> SiteUpdate:
        nonlocal private
        update, private = site_round(site, model, plan, round_, given, private)
        return update

    return step, shared


def state_bytes(case_model: str) -> int:
    """Return the bytes of what a site shares."""
    return sum(tensor.nbytes for tensor in part_model(model_of(case_model, "any")[1], FFL)[0].values())


def training_alone(case: Case) -> float:
    """Return the seconds of a round without federation: a process a site, all at once, that meet after each round.

    Each loads the shared state and takes the same step; nothing is averaged, sent or written. Median of the rounds.
    """
    context = multiprocessing.get_context("spawn")
    barrier, times = context.Barrier(case.sites), context.Queue()
    sites = [
        context.Process(target=_train, args=(case, name, barrier, times if name == case.names[0] else None))
        for name in case.names
    ]
    for one in sites:
        one.start()
    try:
        return float(times.get(timeout=case.limit))
    finally:
        for one in sites:
            one.join(10)
            if one.is_alive():
                one.kill()


def _train(case: Case, name: str, barrier: Any, times: Any) -> None:
    rounds = max(case.rounds, 5)
    step, shared = step_of(case.model, name, rounds)
    spent = []
    for round_ in range(rounds):
        barrier.wait(_LONGEST_STEP)
        began = time.perf_counter()
        step(round_, shared)
        barrier.wait(_LONGEST_STEP)
        spent.append(time.perf_counter() - began)
    if times is not None:
        times.put(float(np.median(spent[1:])))


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def marked(folder: Path) -> Iterator[None]:
    """Mark what is started within, and end whatever of it still runs afterwards."""
    os.environ[MARK] = str(folder)
    try:
        yield
    finally:
        for _ in range(5):
            # One may start another while the first are ended.
            found = _family(folder)
            for one in found:
                with contextlib.suppress(psutil.Error):
                    one.kill()
            psutil.wait_procs(found, timeout=5)
        del os.environ[MARK]


def _family(folder: Path) -> list[psutil.Process]:
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if one.pid != os.getpid() and one.environ().get(MARK) == str(folder):
                found.append(one)
    return found


@contextlib.contextmanager
def memory_watched(folder: Path, roles: Mapping[str, str], peaks: dict[str, int]) -> Iterator[None]:
    """Note the largest resident memory of marked processes, by a word of their command line."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            for one in _family(folder):
                with contextlib.suppress(psutil.Error, OSError):
                    line = " ".join(one.cmdline())
                    role = next((role for role, word in roles.items() if word in line), None)
                    if role:
                        peaks[role] = max(peaks.get(role, 0), _peak(one))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _peak(process: psutil.Process) -> int:
    """Return a process's high-water mark where the system keeps one, else what it has now."""
    status = Path(f"/proc/{process.pid}/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(process.memory_info().rss)


class Wire:
    """A line of TCP in front of a server, which counts the bytes that pass: TLS and all.

    Parameters
    ----------
    port, server
        Where it listens, and the port it passes on to; both on 127.0.0.1.
    """

    def __init__(self, port: int, server: int) -> None:
        self._server = server
        self._counts = [0, 0]
        self._marks: list[tuple[float, int, int]] = [(0.0, 0, 0)]
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(asyncio.start_server(self._pass_on, "127.0.0.1", port), self._loop).result(10)

    def between(self, begin: float, end: float) -> tuple[int, int]:
        """Return the bytes to the server, and from it, between two times."""
        first, last = (self._marks[bisect.bisect(self._marks, (when, 2**62)) - 1] for when in (begin, end))
        return last[1] - first[1], last[2] - first[2]

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for one in others:
            one.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._server)
        await asyncio.gather(self._pump(reader, back, 0), self._pump(there, writer, 1))

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, direction: int) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(2**18):
                target.write(data)
                await target.drain()
                self._counts[direction] += len(data)
                self._marks.append((time.time(), self._counts[0], self._counts[1]))
        target.close()


def within(limit: float, work: Callable[[], Any]) -> Any:
    """Return what some work returns; if it takes too long, leave it: its processes are ended by who called."""
    done: list[Any] = []
    problems: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as problem:  # It is raised again in the caller's thread.
            problems.append(problem)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit)
    if problems:
        raise problems[0]
    if not done:
        raise TimeoutError(f"not done within {limit:.0f} s")
    return done[0]


def wait_for(what: Callable[[], object], limit: float, why: str) -> float:
    """Wait until something holds; return after how many seconds it did."""
    began = time.monotonic()
    while not what():
        if time.monotonic() - began > limit:
            raise TimeoutError(f"{why}: not within {limit:.0f} s")
        time.sleep(0.05)
    return time.monotonic() - began


def differences(times: Sequence[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(times)]
