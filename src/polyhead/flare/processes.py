"""Starting and stopping what runs from a kit."""

import logging
import os
import platform
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import IO

import psutil

from polyhead.errors import RunError
from polyhead.flare.kits import settle

__all__ = ["end", "quiet_loggers", "remove_jobs", "request_stop", "silenced", "start"]

_SETTINGS = {
    # The engine waits so many seconds for the last word of sites after a job, 900 as shipped; ours was said before.
    "NVFLARE_CLIENT_OUTCOME_WAIT_TIMEOUT": "5",
    # Or a file `torch.py` in the folder where a command is given would be run.
    "PYTHONSAFEPATH": "1",
}
# The engine's script puts PYTHONPATH behind a colon, and nothing behind a colon is the current folder: the kit.
_NOWHERE = "/nonexistent"
_PIDS = ("daemon_pid.fl", "pid.fl")
_ORDERS = ("shutdown.fl", "restart.fl")


def start(kit: Path, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Start server or site from its kit, in a process group of its own: the engine kills its whole group at times.

    Parameters
    ----------
    log
        Where what it prints goes.

    Raises
    ------
    RunError
        If one runs from this kit already; if this is no Linux.
    """
    if platform.system() != "Linux":
        raise RunError("server and sites need Linux: only there a process learns whose user speaks to it.")
    kit = kit.resolve()
    settle(kit)
    _clear(kit)
    script, nothing = str(kit / "startup" / "sub_start.sh"), subprocess.DEVNULL
    return subprocess.Popen(  # noqa: S603
        [script], stdout=log, stderr=log, stdin=nothing, env=_environment(), start_new_session=True
    )


def request_stop(kit: Path) -> None:
    """Ask what runs from a kit to stop; it takes some ten seconds."""
    (kit / "shutdown.fl").touch()


def end(process: "subprocess.Popen[bytes]", kit: Path, patience: float = 20.0) -> None:
    """Stop what runs from a kit: ask it, and after `patience` seconds end it with all its processes."""
    family = _family(process.pid)
    try:
        if process.poll() is None:
            request_stop(kit)
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience)
    finally:
        # A job's process is of another group, and knows its parent's end only seconds later.
        for one in {*family, *_family(process.pid)}:
            with suppress(psutil.NoSuchProcess):
                one.kill()
    process.wait()
    for name in (*_PIDS, *_ORDERS):
        (kit / name).unlink(missing_ok=True)


def remove_jobs(kit: Path) -> None:
    """Remove the folders that the engine made for jobs, one a segment.

    Raises
    ------
    RunError
        If something runs from the kit.
    """
    _clear(kit.resolve())
    for folder in kit.iterdir():
        if folder.is_dir() and not folder.is_symlink() and _is_job(folder.name):
            shutil.rmtree(folder)


@contextmanager
def silenced() -> Iterator[None]:
    """Keep the engine's own words, on the standard output and in its loggers, from who gave a command."""
    with quiet_loggers(), redirect_stdout(StringIO()):
        yield


@contextmanager
def quiet_loggers() -> Iterator[None]:
    """Keep what the engine logs from who gave a command."""
    engine, handlers = logging.getLogger("nvflare"), list(logging.getLogger().handlers)
    nobody = logging.NullHandler()
    engine.addHandler(nobody)
    before, engine.propagate = engine.propagate, False
    for handler in handlers:
        handler.addFilter(_is_ours)
    try:
        yield
    finally:
        engine.removeHandler(nobody)
        engine.propagate = before
        for handler in handlers:
            handler.removeFilter(_is_ours)


def _is_ours(record: logging.LogRecord) -> bool:
    # The engine tells of some failures at the root.
    return record.name != "root"


def _environment() -> dict[str, str]:
    # The engine's scripts take whatever `python3` comes first.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    modules = os.pathsep.join(str(Path(folder).absolute()) for folder in given if folder)
    own = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    return {**own, **_SETTINGS, "PATH": path, "PYTHONPATH": modules or _NOWHERE}


def _clear(kit: Path) -> None:
    """Remove the numbers of processes that were killed: they may be others' by now, and the engine would wait."""
    for name in _PIDS:
        number = _number_in(kit / name)
        if number is not None and _runs_from(number, kit):
            raise RunError(
                f"{kit}: process {number} runs from this kit already. Leave it running, or end it first: "
                f"touch {kit / _ORDERS[0]}"
            )
    for name in (*_PIDS, *_ORDERS):
        (kit / name).unlink(missing_ok=True)


def _number_in(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _runs_from(number: int, kit: Path) -> bool:
    try:
        return any(str(kit) in word for word in psutil.Process(number).cmdline())
    except psutil.Error:
        return False


def _family(number: int) -> "list[psutil.Process]":
    try:
        parent = psutil.Process(number)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _is_job(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False
