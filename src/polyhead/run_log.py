"""``run.log``: what was logged, kept in a file beside what is on the terminal."""

import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polyhead.errors import PolyheadError, RunError
from polyhead.printable import printable

__all__ = ["log_to"]

_log = logging.getLogger(__name__)
_OURS = "polyhead"


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Write what is logged meanwhile to the end of a file, too: INFO and above of ours, WARNING and above of others.

    A line a record: time in UTC, level and message, control characters written out. What `logging.exception` logs is
    followed by its traceback, indented, and so is an error that ends the block, unless it is a person's mistake. What
    other handlers show does not change. If the file cannot be written any longer, that is logged once, and lines are
    lost.

    Raises
    ------
    RunError
        If the file cannot be opened, or is a link or no plain file.
    """
    root, ours = logging.getLogger(), logging.getLogger(_OURS)
    handler = _LogFile(path)
    # Without a handler, Python shows warnings by one of last resort, which ours would put an end to.
    resort = [logging.lastResort] if logging.lastResort and not root.handlers else []
    others = [*root.handlers, *ours.handlers, *resort]
    level, shown = ours.level, ours.getEffectiveLevel()

    def as_before(record: logging.LogRecord) -> bool:
        return record.levelno >= shown or not _is_ours(record)

    for other in others:
        other.addFilter(as_before)
    for added in (handler, *resort):
        root.addHandler(added)
    ours.setLevel(min(logging.INFO, shown))
    try:
        yield
    except BaseException as problem:
        # A log that has no room for what ended the run is not worth a second line beside it.
        handler.failed = True
        handler.handle(_ending(problem))
        raise
    finally:
        ours.setLevel(level)
        for added in (handler, *resort):
            root.removeHandler(added)
        for other in others:
            other.removeFilter(as_before)
        handler.close()


def _ending(problem: BaseException) -> logging.LogRecord:
    """Return a record of what ended the block; whoever catches it says so on the terminal."""
    interrupted = isinstance(problem, KeyboardInterrupt | SystemExit)
    text = "stopped by a signal." if interrupted else f"stopped by an error: {problem}"
    explained = interrupted or isinstance(problem, PolyheadError)
    trace = None if explained else (type(problem), problem, problem.__traceback__)
    return _log.makeRecord(_log.name, logging.ERROR, __file__, 0, text, (), trace)


class _LogFile(logging.Handler):
    """A handler whose file may fail without a word for each line."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.failed = False
        self.descriptor, self.cut_off = _open(path)

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= (logging.INFO if _is_ours(record) else logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            raw = ("\n" * self.cut_off + _lines(record)).encode()
        except Exception:  # Arguments that do not fit the message: as every handler treats it.
            self.handleError(record)
            return
        try:
            written = os.write(self.descriptor, raw)
        except OSError as problem:
            self._fail(str(problem.strerror))
            return
        # A disk that becomes full takes the first part of a line.
        self.cut_off = written < len(raw)
        if self.cut_off:
            self._fail("the disk is full")

    def close(self) -> None:
        os.close(self.descriptor)
        super().close()

    def _fail(self, reason: str) -> None:
        if not self.failed:
            self.failed = True  # before the warning, which comes here, too
            _log.warning("%s: cannot be written (%s); lines of the log are lost, the run goes on.", self.path, reason)


def _open(path: Path) -> tuple[int, bool]:
    """Return a descriptor, and whether the last line there was cut off."""
    try:
        # Never through a link, and never waiting for a pipe.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o644)
    except OSError as problem:
        raise RunError(
            f"{path}: the log cannot be written ({problem.strerror}). If it is a link or a folder, remove it; "
            "otherwise make it writable."
        ) from problem
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise RunError(f"{path}: is no plain file, so no log can be written to it. Remove it.")
    last = os.pread(descriptor, 1, max(found.st_size - 1, 0))
    return descriptor, last not in (b"", b"\n")


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name == _OURS or record.name.startswith(f"{_OURS}.")


def _lines(record: logging.LogRecord) -> str:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
    message = printable(record.getMessage()).replace("\n", "\\n")
    # As text it comes from another process.
    trace = record.exc_text or (logging.Formatter().formatException(record.exc_info) if record.exc_info else "")
    below = [f"    {line}\n" for line in printable(trace).split("\n") if line]
    return "".join([f"{moment} {record.levelname} {message}\n", *below])
