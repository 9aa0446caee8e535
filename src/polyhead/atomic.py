"""Files that are whole or not there, and stay so when the power fails."""

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from polyhead.errors import DiskError

__all__ = [
    "append_durably",
    "flush",
    "free_bytes",
    "make_folders",
    "remove_leftovers",
    "replacing",
    "write_atomically",
    "write_whole",
]

# What _temporary_name gives: the process, and eight digits that nobody can foresee.
_TEMPORARY = re.compile(r"\..+\.([1-9][0-9]*)\.[0-9a-f]{8}\.tmp", re.DOTALL)
_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what is written there takes the place of `path` at the end.

    The file is flushed to disk, renamed, and the folder flushed, in this order, so that a power cut leaves the old file
    or the new one. If the block raises, the old file stays and the temporary one is removed. Folders that are missing
    on the way are made, as durably.

    Raises
    ------
    DiskError
        If the disk is full, or a quota used up.
    """
    with _full_disk_explained(path), _taking_the_place_of(path) as temporary:
        yield temporary
        flush(temporary)


def write_atomically(path: Path, *parts: str | bytes | memoryview, mode: int = 0o666) -> None:
    """Write a whole file from its parts, text as UTF-8; see `replacing`.

    Parameters
    ----------
    mode
        Permissions of the file, less those that the process's umask takes away.

    Raises
    ------
    DiskError
        If the disk is full, or a quota used up, with the bytes that are needed.
    """
    raw = [part.encode() if isinstance(part, str) else part for part in parts]
    with _full_disk_explained(path, sum(map(len, raw))), _taking_the_place_of(path) as temporary:
        # A link that waits under this name is not written through.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            for part in raw:
                write_whole(descriptor, part)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def append_durably(path: Path, text: str) -> None:
    """Add text, as UTF-8, to the end of a file, which is made if need be; on return it is on disk.

    If that fails, the file is as it was before. A power cut or a kill may leave a part of the text.

    Raises
    ------
    DiskError
        If the disk is full, or a quota used up, with the bytes that are needed.
    """
    raw = text.encode()
    with _full_disk_explained(path, len(raw)):
        make_folders(path.parent)
        is_new = not path.exists()
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        before = os.fstat(descriptor).st_size
        try:
            write_whole(descriptor, raw)
            os.fsync(descriptor)
            if is_new:
                flush(path.parent)
        except BaseException:
            with suppress(OSError):  # The first fault is the one to be told.
                os.ftruncate(descriptor, before)
                if is_new:
                    os.unlink(path)  # noqa: PTH108
            raise
        finally:
            os.close(descriptor)


def remove_leftovers(folder: Path) -> int:
    """Remove the temporary files, anywhere below a folder, of processes that were killed; return their number.

    The file of another process that lives stays: it may be writing. Those of this process's own number go, so it may
    not be writing there itself: they are of one that had the number before. Files of any other name, folders and links
    stay, and no link is followed.
    """
    removed = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            found = _TEMPORARY.fullmatch(name)
            if found and not _is_another_that_lives(int(found[1])):
                removed += _remove_file(Path(parent, name))
    return removed


def _is_another_that_lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return process != os.getpid()


def _remove_file(path: Path) -> bool:
    with suppress(FileNotFoundError):
        if stat.S_ISREG(path.lstat().st_mode):
            os.unlink(path)  # noqa: PTH108
            return True
    return False


def free_bytes(folder: Path) -> int:
    """Return the bytes that are free on the disk of a folder that may not be there yet."""
    place = folder.absolute()
    return shutil.disk_usage(next(one for one in (place, *place.parents) if one.exists())).free


def make_folders(folder: Path) -> None:
    """Make a folder and those that are missing above it; on return they are on disk."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        with suppress(FileExistsError):  # Another process was faster.
            os.mkdir(place)  # noqa: PTH102
        flush(place.parent)


def write_whole(descriptor: int, raw: bytes | memoryview) -> None:
    """Write all of it; the system may take a part at a time."""
    rest = memoryview(raw)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def flush(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as problem:
        # Some shared folders of virtual machines cannot flush a folder; they say so with this number.
        if problem.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _taking_the_place_of(path: Path) -> Iterator[Path]:
    """Yield a temporary path; whoever writes there flushes it before this renames it."""
    make_folders(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108
        raise
    flush(path.parent)


@contextmanager
def _full_disk_explained(path: Path, needed: int | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        if problem.errno not in _FULL:
            raise
        free = f"{free_bytes(path.parent):,} bytes are free"
        both = free if needed is None else f"{needed:,} bytes are needed, {free}"
        raise DiskError(
            f"{path}: cannot be written, {_FULL[problem.errno]}: {both}. "
            "Make room there, or write to another disk; then run this again. What was there before is unharmed."
        ) from problem
