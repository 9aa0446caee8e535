"""The updates of one round on disk, for as long as all of them are needed at once.

Whether an update is too far off, or where its values stand among the others', is known only after the last one has
come; memory for all of them would grow with the number of sites. A spooled update is a file of its tensors' bytes, one
entry after the other, each flattened as `current` lies. It is read where it is needed, not mapped: pages of a mapped
file count as memory of the process. Nothing is flushed, since no round outlives its process.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch

from polyhead.atomic import free_bytes, write_whole
from polyhead.errors import DiskError
from polyhead.federation.flat import flatten
from polyhead.training.tensor_file import memory_of

__all__ = ["Spooled", "clear_spool", "read_piece", "spool_state"]

# Never from a site's name, which is a stranger's text.
_FILE = re.compile(r"[0-9]{6}\.update")


@dataclass(frozen=True)
class Spooled:
    """An update on disk.

    Attributes
    ----------
    file
        Where its bytes are.
    places
        Of each entry the first byte.
    types
        Of each entry the type of its values.
    """

    file: Path
    places: Mapping[str, int]
    types: Mapping[str, torch.dtype]


def clear_spool(folder: Path) -> None:
    """Remove spooled updates, of this process or of one that was killed; the folder too if nothing else is in it.

    Raises
    ------
    DiskError
        If they cannot be removed, or a link lies there: what it leads to is not ours.
    """
    if folder.is_symlink():
        raise DiskError(f"{folder}: is a link, where a folder for a round's updates belongs. Remove it.")
    if not folder.is_dir():
        return
    with _explained(folder, "cleared"):
        for name in os.listdir(folder):  # noqa: PTH208
            if _FILE.fullmatch(name):
                os.unlink(folder / name)  # noqa: PTH108
    with suppress(OSError):
        folder.rmdir()


def spool_state(
    folder: Path, number: int, state: Mapping[str, torch.Tensor], current: Mapping[str, torch.Tensor]
) -> Spooled:
    """Write a checked update's tensors to a new file.

    Parameters
    ----------
    folder
        Made if need be.
    number
        Of the update within its round, 0 to 999,999.
    current
        Gives names, types and the order of values.

    Raises
    ------
    DiskError
        If the disk is full or cannot be written, with the bytes needed and free.
    """
    file = folder / f"{number:06}.update"
    sizes = [tensor.nbytes for tensor in current.values()]
    places = dict(zip(current, accumulate(sizes, initial=0), strict=False))
    with _explained(folder, "written", sum(sizes)):
        folder.mkdir(parents=True, exist_ok=True)
        # A link that waits under this name is not written through. Weights are nobody else's business.
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            for name, tensor in current.items():
                write_whole(descriptor, memory_of(flatten(state[name], like=tensor)))
        finally:
            os.close(descriptor)
    return Spooled(file, places, {name: tensor.dtype for name, tensor in current.items()})


def read_piece(spooled: Spooled, name: str, start: int, stop: int) -> torch.Tensor:
    """Return an entry's values from `start` to before `stop`, shape ``(stop - start,)``, in the order of the file.

    Raises
    ------
    DiskError
        If the file is gone or cut short.
    """
    piece = torch.empty(stop - start, dtype=spooled.types[name])
    with _explained(spooled.file, "read again"):
        descriptor = os.open(spooled.file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.lseek(descriptor, spooled.places[name] + start * piece.itemsize, os.SEEK_SET)
            _read(descriptor, memory_of(piece))
        finally:
            os.close(descriptor)
    return piece


def _read(descriptor: int, rest: memoryview) -> None:
    while rest:
        count = os.readv(descriptor, [rest])
        if not count:
            raise OSError("the file is shorter than what was written")
        rest = rest[count:]


@contextmanager
def _explained(path: Path, done: str, needed: int | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        bytes_ = "" if needed is None else f" {needed:,} bytes are needed, {_free(path)} are free."
        raise DiskError(
            f"{path}: an update of the round under way cannot be {done} ({problem.strerror or problem}).{bytes_} "
            "See to the disk and to the folder's permissions, and leave the folder alone during a run; then run this "
            "again. Nothing is kept there if aggregation = 'mean' and distance_rule = 'off' under [federation]."
        ) from problem


def _free(folder: Path) -> str:
    try:
        return f"{free_bytes(folder):,}"
    except OSError:
        return "an unknown number"
