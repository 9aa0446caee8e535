"""Several jobs of a study at a time, each in a process of its own, which trains one after the other.

This process holds the run's lock, gives out the jobs, shows progress, and is the only one that writes ``rounds.csv``
and the log; rows and records come to it as JSON from `polyhead.worker`. What a job leaves depends on the job alone, not
on how many there are at a time: each computes with the same number of threads.
"""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

from rich.progress import Progress, TaskID

from polyhead.errors import RunError
from polyhead.federation.rounds import RoundRow, append_rounds, mend_rounds, trim_rounds
from polyhead.job import Job
from polyhead.stopping import gently
from polyhead.worker import error_of, words_of

__all__ = ["run_jobs"]

_log = logging.getLogger(__name__)
_LOOKS_EVERY = 0.2  # seconds

Message = dict[str, Any]


def run_jobs(jobs: Sequence[Job], workers: int, threads: int, progress: Progress) -> None:
    """Run jobs, up to `workers` at a time, begun in their order.

    If one fails, the others are trained all the same: what is left does not depend on which came first. Ctrl-C ends
    each after its step.

    Parameters
    ----------
    jobs
        Of one study in one run, whose pixel caches are there.
    threads
        CPU threads of each job.

    Raises
    ------
    PolyheadError
        That of the first job, in their order, that failed; it begins with the job's name. Others are in the log.
    """
    with gently(lambda _: _log.warning("stopping each training after its step; again to stop at once")) as stop_here:
        house = _House(jobs, progress)
        try:
            for _ in range(min(workers, len(jobs))):
                house.workers.append(_start(jobs[0], threads, house.told))
            _listen(house, stop_here)
        finally:
            for worker in house.workers:
                _end(worker.process)
    if house.failures:
        raise house.failures[min(house.failures)]


@dataclass
class _Worker:
    process: subprocess.Popen[str]
    number: int = -1  # of its job; -1: none
    task: TaskID | None = None


@dataclass
class _House:
    jobs: Sequence[Job]
    progress: Progress
    workers: list[_Worker] = field(default_factory=list)
    told: "SimpleQueue[tuple[int, Message | None]]" = field(default_factory=SimpleQueue)
    begun: int = 0
    failures: dict[int, Exception] = field(default_factory=dict)
    stopping: bool = False


def _start(job: Job, threads: int, told: "SimpleQueue[tuple[int, Message | None]]") -> _Worker:
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-m", "polyhead.worker", str(writing)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            pass_fds=(writing,),
            # Ctrl-C in a terminal is for this process alone, which passes it on.
            process_group=0,
        )
    finally:
        os.close(writing)
    threading.Thread(target=_read, args=(process.pid, os.fdopen(reading, encoding="utf-8"), told), daemon=True).start()
    worker = _Worker(process)
    study = job.study.model_dump_json()
    _order(worker, run=str(job.run.absolute()), study=study, threads=threads, parent=os.getpid())
    return worker


def _read(process: int, lines: IO[str], told: "SimpleQueue[tuple[int, Message | None]]") -> None:
    with lines:
        for line in lines:
            # Of a process that was killed the last line may be cut off.
            if line.endswith("\n"):
                told.put((process, json.loads(line)))
    told.put((process, None))


def _order(worker: _Worker, **order: object) -> None:
    to = worker.process.stdin
    if to and not to.closed:
        with suppress(BrokenPipeError):  # It has ended, which the end of what it tells will say.
            to.write(json.dumps(order) + "\n")
            to.flush()


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()
    if process.stdin:
        with suppress(BrokenPipeError):
            process.stdin.close()


def _listen(house: _House, stop_here: Callable[[], None]) -> None:
    """Answer what is told until no process is left."""
    left = {worker.process.pid: worker for worker in house.workers}
    while left:
        try:
            stop_here()
        except (KeyboardInterrupt, SystemExit):
            _stop(house, left)
            raise
        try:
            process, message = house.told.get(timeout=_LOOKS_EVERY)
        except Empty:
            continue
        if message is None:
            _bury(house, left.pop(process))
        else:
            _answer(house, left[process], message)


def _stop(house: _House, left: dict[int, _Worker]) -> None:
    """Let each end after its step, and hear what it has to say until then; a second signal ends the waiting."""
    house.stopping = True
    for worker in left.values():
        _order(worker, stop=True)
    while left:
        process, message = house.told.get()
        if message is None:
            left.pop(process)
        elif message["kind"] != "ready":
            _answer(house, left[process], message)


def _answer(house: _House, worker: _Worker, message: Message) -> None:
    kind = message.pop("kind")
    if kind == "rounds":
        _order(worker, failed=_write_rounds(house.jobs[worker.number].run, **message))
    elif kind == "log":
        _log_here(message["record"], house.stopping)
    elif kind == "shown":
        _show(house.progress, worker, message)
    elif kind == "failed":
        _fail(house, worker, message)
    else:
        _give_next(house, worker)


def _write_rounds(run: Path, what: str, method: str, seed: int, argument: Any) -> Message | None:
    try:
        if what == "append":
            append_rounds(run, method, seed, [RoundRow(**row) for row in argument])
        else:
            {"trim": trim_rounds, "mend": mend_rounds}[what](run, method, seed, argument)
    except Exception as problem:
        return words_of(problem)
    return None


def _log_here(record: Message, stopping: bool) -> None:
    log = logging.getLogger(record["name"])
    # That each of them stops after its step was said once for all.
    level = min(record["levelno"], logging.INFO) if stopping else record["levelno"]
    if log.isEnabledFor(level):
        log.handle(logging.makeLogRecord({**record, "levelno": level, "levelname": logging.getLevelName(level)}))


def _show(progress: Progress, worker: _Worker, shown: Message) -> None:
    if shown["text"]:
        progress.console.print(shown["text"], markup=False, highlight=False, soft_wrap=True)
    if worker.task is None:
        worker.task = progress.add_task("", total=None)
    for description, completed, total in shown["tasks"]:
        progress.update(worker.task, description=description, completed=completed, total=total)


def _fail(house: _House, worker: _Worker, words: Message) -> None:
    error = error_of(words)
    name = house.jobs[worker.number].name if worker.number >= 0 else ""
    if isinstance(error, OSError) or str(error).startswith(name):
        house.failures[worker.number] = error
    else:
        house.failures[worker.number] = type(error)(f"{name}: {error}")
        for note in getattr(error, "__notes__", ()):
            house.failures[worker.number].add_note(note)
    text = f"{house.failures[worker.number]}".rstrip(".")
    _log.info("failed: %s. The others are trained to their end.", text)
    if words["trace"]:
        _log_here({"name": _log.name, "levelno": logging.INFO, "msg": text, "exc_text": words["trace"]}, False)


def _give_next(house: _House, worker: _Worker) -> None:
    if worker.task is not None:
        house.progress.remove_task(worker.task)
    worker.task, worker.number = None, -1
    if house.begun == len(house.jobs):
        if worker.process.stdin:
            worker.process.stdin.close()
        return
    worker.number, house.begun = house.begun, house.begun + 1
    job = house.jobs[worker.number]
    _order(worker, key=job.key, method=job.method.name, seed=job.seed)


def _bury(house: _House, worker: _Worker) -> None:
    """Note a process that ended before its job did."""
    status = worker.process.wait()
    if worker.number in house.failures or (worker.number < 0 and not status):
        return
    name = house.jobs[worker.number].name if worker.number >= 0 else "a process that was to train"
    house.failures[worker.number] = RunError(
        f"{name}: its process ended with status {status}. If memory was short, take fewer --jobs; then give the same "
        "command again."
    )
