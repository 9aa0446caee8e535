"""Reading a file that may be something else by now, or be made to harm: it never waits and never reads too much."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from polyhead.errors import PolyheadError

__all__ = ["limited_file", "may_pass", "read_limited"]

_MISSING = (FileNotFoundError, NotADirectoryError)


@contextmanager
def limited_file(
    path: Path, error: type[PolyheadError], most_bytes: int, remedy: str | None = None
) -> Iterator[BufferedReader]:
    """Open a file for reading if it is a regular one of at most so many bytes.

    Parameters
    ----------
    remedy
        What the error tells the reader to do about what lies there; by default, to look at it. Of a file that is there
        and only cannot be read, nothing is advised but to look for the cause.

    Raises
    ------
    PolyheadError
        Of the class `error`: it is not, or cannot be read, in the block too. Where the system could not read it, which
        says nothing of its content, and only there, an `OSError` is its `__cause__`.
    """
    try:
        descriptor = _open(path, error, remedy)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                what_to_do = remedy or "Put a file in its place, no folder, pipe or device."
                raise error(f"{path}: is not a file. {what_to_do}")
            if status.st_size > most_bytes:
                what_to_do = remedy or "Check that it is the right file."
                found = f"{status.st_size:,} bytes; what belongs here has at most {most_bytes:,}"
                raise error(f"{path}: {found}. {what_to_do}")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                yield file
        finally:
            os.close(descriptor)
    except OSError as problem:
        what_to_do = (
            remedy if remedy and isinstance(problem, _MISSING) else "Check the path, its permissions and the disk."
        )
        raise error(f"{path}: cannot be read ({problem.strerror}). {what_to_do}") from problem


def _open(path: Path, error: type[PolyheadError], remedy: str | None) -> int:
    try:
        # Without waiting: a pipe that nobody writes to would hold an ordinary open for ever.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as problem:
        raise error(f"{str(path)!r}: no file can have this name. {remedy or 'Check the path.'}") from problem


def may_pass(problem: PolyheadError) -> bool:
    """Tell whether an error of `limited_file` says nothing of the file: too many are open, no permission, a bad disk.

    What is missing is missing, and counts as damage.
    """
    return isinstance(problem.__cause__, OSError) and not isinstance(problem.__cause__, _MISSING)


def read_limited(path: Path, error: type[PolyheadError], most_bytes: int, remedy: str | None = None) -> bytes:
    """Return the content of a regular file of at most so many bytes; see `limited_file`.

    Raises
    ------
    PolyheadError
        Of the class `error`, as `limited_file` does.
    """
    with limited_file(path, error, most_bytes, remedy) as file:
        # No more than that, should it grow.
        return file.read(min(most_bytes, os.fstat(file.fileno()).st_size))
