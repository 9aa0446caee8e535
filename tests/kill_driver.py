"""Starts `polyhead run` many times, kills it, and starts it again, in one process that forks.

    python -m tests.kill_driver < JSON

A fresh Python needs seconds to import PyTorch; a fork of one that has imported it and computed nothing needs
milliseconds, and is killed like any other process. Input is a list of

    {"study": FILE, "out": FOLDER, "after": [[OPERATION, SECONDS], ...], "at": [OPERATION, ...]}

Each start is killed so many seconds after its N-th file operation below `out`, which is a moment like any other on a
machine of any speed; or right before it (a write is half done then). A last start runs to its end. Output: for each
the number of kills that hit, the exit status of the last start, how many file operations it made and how long it took.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.networks.nets  # noqa: F401  what the first network would import, in each child
import torch
import torch._dynamo  # what the first optimizer would import, in each child

from polyhead.cli import main
from polyhead.study import run_study

_OPERATIONS = ("open", "write", "fsync", "replace", "unlink", "mkdir", "rmdir")


def drive(job: dict[str, Any]) -> dict[str, float]:
    arguments = ["polyhead", "run", job["study"], "--out", job["out"]]
    hits = 0
    for number, seconds in job.get("after", []):
        hits += killed_after(arguments, number, seconds, job["out"])
    for number in job.get("at", []):
        child = start(arguments, lambda number=number: kill_before(number, job["out"]))
        hits += wait(child) == -signal.SIGKILL
    counter = Path(job["out"] + ".operations")
    began = time.monotonic()
    last = wait(start(arguments, lambda: count_into(counter, job["out"])))
    seconds = time.monotonic() - began
    return {"hits": hits, "status": last, "operations": int(counter.read_text()), "seconds": seconds}


def start(arguments: list[str], prepare: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        log = os.open(arguments[-1] + ".log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = arguments
        prepare()
        main()
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    os._exit(0)


def killed_after(arguments: list[str], number: int, seconds: float, folder: str) -> bool:
    """Kill a start some time after an operation; return whether it was still running."""
    told, tell = os.pipe()
    child = start(arguments, lambda: tell_at(number, folder, tell))
    os.close(tell)
    if os.read(told, 1):  # Nothing: it ended before.
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    os.close(told)
    return wait(child) == -signal.SIGKILL


def tell_at(number: int, folder: str, tell: int) -> None:
    real = os.write

    def note(count: int) -> bool:
        if count == number:
            real(tell, b".")
        return False

    watch(folder, note)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_before(number: int, folder: str) -> None:
    watch(folder, lambda count: count == number)


def count_into(file: Path, folder: str) -> None:
    def note(count: int) -> bool:
        real(descriptor, str(count).encode().ljust(8), 0)
        return False

    real, descriptor = os.pwrite, os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
    watch(folder, note)


def watch(folder: str, is_last: Callable[[int], bool]) -> None:
    """Count this process's file operations below a folder, and die right before the last.

    Writes that follow each other into one file count as one: a tensor after another is no other state of the disk.
    """
    count = 0
    before: tuple[str, Any] = ("", None)

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal count, before
            this, last = (name, arguments[0]), before
            if below(arguments[0], folder):
                before = this
            if below(arguments[0], folder) and not (name == "write" and this == last):
                count += 1
                if is_last(count):
                    if name == "write":
                        real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return counted

    for name in _OPERATIONS:
        setattr(os, name, wrap(name, getattr(os, name)))


def below(target: object, folder: str) -> bool:
    try:
        path = Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else target
    except OSError:
        return False
    return str(path).startswith(folder)


if __name__ == "__main__":
    # PyTorch's pool of threads does not live through a fork; the parent must not have begun one either.
    torch.set_num_threads(1)
    assert run_study  # imported for the children
    print(json.dumps([drive(job) for job in json.load(sys.stdin)]))
