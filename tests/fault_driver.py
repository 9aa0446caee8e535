"""Runs polyhead's commands with something going wrong, in forks of one process that has imported everything.

    python -m tests.fault_driver

Reads a line of JSON for each command, and answers with a line of JSON:

    {"arguments": [WORD, ...], "fault": {...}, "patch": NAME}
    {"status": EXIT STATUS, "stdout": TEXT, "stderr": TEXT, "operations": [[OPERATION, PATH], ...]}

`fault` is about file operations below `folder`: `operations` that count, a regular expression that the path `match`es,
and what happens at the `number`-th of them: "full" (it raises ENOSPC), "half" (a write puts half of its bytes before it
raises), both at every one that counts from then on, or "signals" (the process gets `signals`). `patch` names what is
broken in the code. A command that does not end within half a minute is killed.
"""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.networks.nets  # noqa: F401  what the first network would import, in each child
import torch
import torch._dynamo  # and what the first optimizer would

import polyhead.environment
import polyhead.federation.simulate
import polyhead.report.plots
import polyhead.study
from polyhead.atomic import write_atomically
from polyhead.cli import main
from polyhead.report.load import load_run
from tests.kill_driver import below

LIMIT = 30  # seconds


def polyhead_driver() -> subprocess.Popen[str]:
    """Start the driver; `ask` it."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fault_driver"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        # Wide, so that no message is wrapped.
        env={**os.environ, "COLUMNS": "1000", "OMP_NUM_THREADS": "1"},
    )


def ask(driver: subprocess.Popen[str], **command: Any) -> dict[str, Any]:
    assert driver.stdin
    assert driver.stdout
    driver.stdin.write(json.dumps(command) + "\n")
    driver.stdin.flush()
    answer: dict[str, Any] = json.loads(driver.stdout.readline())
    return answer


def command(arguments: list[str], fault: dict[str, Any] | None = None, patch: str | None = None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("stdout", "stderr", "operations")]
        child = os.fork()
        if not child:
            run_here(arguments, fault, patch, files)
        status = wait(child)
        stdout, stderr, operations = (file.read_text() for file in files)
    done = [line.split(" ", 1) for line in operations.splitlines()]
    return {"status": status, "stdout": stdout, "stderr": stderr, "operations": done}


def run_here(arguments: list[str], fault: dict[str, Any] | None, patch: str | None, files: list[Path]) -> None:
    try:
        for number, file in enumerate(files, 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number if number < 3 else 9)
        if patch:
            PATCHES[patch]()
        if fault:
            break_files(fault)
        sys.argv = ["polyhead", *arguments]
        main()
    except SystemExit as end:
        sys.stdout.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


def wait(child: int) -> int:
    ends = time.monotonic() + LIMIT
    while time.monotonic() < ends:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -signal.SIGALRM


def break_files(fault: dict[str, Any]) -> None:
    """Let the file operations of this process go wrong; note each that counts."""
    count = 0
    tell = os.write

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def broken(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            path = path_of(arguments[0])
            if not (below(arguments[0], fault["folder"]) and re.search(fault.get("match", ""), path)):
                return real(*arguments, **options)
            count += 1
            tell(9, f"{name} {path}\n".encode())
            number = fault.get("number")
            if number is None or count < number:
                return real(*arguments, **options)
            if fault["do"] == "signals":
                for one in fault["signals"] if count == number else []:
                    os.kill(os.getpid(), one)
                return real(*arguments, **options)
            if fault["do"] == "half" and name == "write" and count == number:
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return broken

    for name in fault.get("operations", ["write"]):
        setattr(os, name, wrap(name, getattr(os, name)))


def path_of(target: object) -> str:
    try:
        return str(Path(f"/proc/self/fd/{target}").readlink()) if isinstance(target, int) else str(target)
    except OSError:
        return ""


def evaluation_breaks() -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("nobody expected this")

    polyhead.study.evaluate_run = broken  # type: ignore[assignment]


def site_b_fails() -> None:
    """Let a site fail in every round that shares anything."""
    real = polyhead.federation.simulate.site_round

    def failing(site: Any, model: Any, plan: Any, *others: Any) -> Any:
        if site.name == "b" and plan.sharing.backbone:
            raise ValueError("its images are on a disk that is gone")
        return real(site, model, plan, *others)

    polyhead.federation.simulate.site_round = failing


def report_is_short() -> None:
    """Read all that the report shows, but draw nothing: drawing is most of what a finished run costs."""

    def short(run: Path) -> Path:
        write_atomically(run / "report.html", "\n".join(map(str, load_run(run).rounds.rows())))
        return run / "report.html"

    polyhead.study.write_report = short  # type: ignore[assignment]


PATCHES = {
    "evaluation breaks": evaluation_breaks,
    "site b fails": site_b_fails,
    "report is short": report_is_short,
}


if __name__ == "__main__":
    # PyTorch's pool of threads does not live through a fork; the parent must not have begun one either.
    torch.set_num_threads(1)
    # It may change while the tests run, and asking for it takes longer than much of what is tested.
    polyhead.environment._commit = lambda: None
    for line in sys.stdin:
        print(json.dumps(command(**json.loads(line))), flush=True)
