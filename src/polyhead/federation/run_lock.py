"""The lock of a run directory: one process at a time, and a trace of one that did not end by itself.

``RUN/.lock`` is locked with ``flock``, which the kernel gives back when its holder dies, however it dies. While a
process runs, the file names it; at its end, by an error or Ctrl-C too, the file is emptied. A lock that is free but
still names a process is stale: that process was killed, or the machine went down. What it had begun to work at the
same time may live on for moments: such processes hold ``RUN/study.toml`` with a shared lock.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import IO

from polyhead.atomic import make_folders
from polyhead.errors import RunError

__all__ = ["Lock", "locked", "signed", "wait_for_orphans"]

_log = logging.getLogger(__name__)

_MOST_BYTES = 4096
_MOST_TRIES = 100
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_LOOKS_EVERY, _LONGEST_WAIT = 0.2, 60.0  # seconds
_NO_FILE = {errno.ELOOP, errno.EISDIR, errno.ENXIO}  # a link, a folder, a socket


@dataclass(frozen=True)
class Lock:
    """A lock that this process holds.

    Attributes
    ----------
    file
        The lock file, open.
    unfinished
        A text about the process that held it last, if that did not end by itself; None otherwise.
    """

    file: FileIO
    unfinished: str | None


@contextmanager
def locked(run: Path) -> Iterator[Lock]:
    """Hold the lock of a run directory, which is made if need be; the lock file is not written to.

    Raises
    ------
    RunError
        If another process holds it (which, and since when), the directory cannot be written, or its file system has no
        locks.
    """
    for _ in range(_MOST_TRIES):
        try:
            file = _open(run)
        except FileNotFoundError:
            continue  # moved away between its making and the opening
        with file:
            _take(run, file)
            # Whoever was here a moment ago may have moved the directory, and with it the file that we opened.
            if _lies_at(file, run / ".lock"):
                yield Lock(file, _last_owner(file))
                return
    raise RunError(f"{run}: is moved or removed again and again by another process. Choose another --out.")


def wait_for_orphans(run: Path) -> None:
    """Wait until what a run that was killed had begun at the same time has ended, too: moments, as a rule.

    Raises
    ------
    RunError
        If it has not within a minute.
    """
    try:
        held = (run / "study.toml").open("r+b")
    except OSError:
        return  # Nobody works for a run without a study; what else may lie there is the next one's to judge.
    with held:
        if _free(held):
            return
        _log.warning("%s: waiting for the end of what a run that was killed had begun.", run)
        ends = time.monotonic() + _LONGEST_WAIT
        while not _free(held):
            if time.monotonic() > ends:
                raise RunError(
                    f"{run}: processes of a run that was killed are still at work here. End them, or wait; then give "
                    "the same command again."
                )
            time.sleep(_LOOKS_EVERY)


@contextmanager
def signed(lock: Lock) -> Iterator[None]:
    """Write into the lock file who holds it, and empty it at the end."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        lock.file.truncate(0)
        os.pwrite(lock.file.fileno(), json.dumps({"pid": os.getpid(), "started": started}).encode(), 0)
        os.fsync(lock.file.fileno())
    except OSError as problem:
        raise RunError(f"{lock.file.name}: cannot be written ({problem.strerror}). Make room for it.") from problem
    try:
        yield
    finally:
        # At worst the next process is told of an end that was none; the error on its way says more.
        with contextlib.suppress(OSError):
            lock.file.truncate(0)


def _open(run: Path) -> FileIO:
    path = run / ".lock"
    try:
        # A link whose folder was moved away leads to where the new one belongs.
        make_folders(run.resolve())
        # Never through a link, and never waiting for a pipe: the file may not be ours.
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        raise
    except OSError as problem:
        if problem.errno in _NO_FILE:
            raise _not_plain(path) from problem
        raise RunError(
            f"{run}: cannot be written ({problem.strerror}: {problem.filename}). "
            "Make it writable, or choose another --out."
        ) from problem
    # By its path, for messages; the descriptor is closed with it.
    file = FileIO(path, "r+", opener=lambda *_: descriptor)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
        return file
    file.close()
    raise _not_plain(path)


def _not_plain(path: Path) -> RunError:
    return RunError(f"{path}: is no plain file, or has a second name elsewhere. Remove it, or choose another --out.")


def _take(run: Path, file: FileIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        owner = _owner(_content(file))
        who = f" (process {owner[0]}, since {owner[1]})" if owner else ""
        raise RunError(
            f"{run}: another process is running in it{who}. Wait for it, or choose another --out."
        ) from problem
    except OSError as problem:
        if problem.errno not in _NO_LOCKS:
            raise RunError(f"{file.name}: cannot be locked ({problem.strerror}). Choose another --out.") from problem
        raise RunError(
            f"{run}: its file system has no locks ({problem.strerror}), so a second process could not be kept out. "
            "Choose an --out on a local disk."
        ) from problem


def _free(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lies_at(file: FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def _last_owner(file: FileIO) -> str | None:
    content = _content(file)
    if not content:
        return None
    owner = _owner(content)
    who = f"the process {owner[0]} that ran here since {owner[1]}" if owner else "the process that ran here last"
    return f"{who} did not end by itself"


def _content(file: FileIO) -> bytes:
    try:
        return os.pread(file.fileno(), _MOST_BYTES, 0)
    except OSError:
        return b""  # Who held the lock is only told; that it can be held now is what counts.


def _owner(content: bytes) -> tuple[int, str] | None:
    """Return process id and beginning, or None if the file does not say so, which a power cut can do to it."""
    try:
        found = json.loads(content)
        pid, started = found["pid"], datetime.fromisoformat(found["started"]).astimezone(UTC)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return (pid, f"{started:%Y-%m-%d %H:%M:%S} UTC") if type(pid) is int and 0 < pid < 2**32 else None
