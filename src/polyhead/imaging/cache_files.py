"""The files of a pixel cache and what makes them valid.

=======================  =================================================================================
file                     meaning
=======================  =================================================================================
``KEY.json``             the header: settings, images with fingerprints, bad images. Written last, whole.
``KEY-DIGEST.npy``       the pixels of exactly the contents with that digest; valid only if the header says so
``KEY-DIGEST.journal``   while building: a line for each chunk of rows whose pixels are safely on disk
``KEY.lock``             locked by the process that builds; the lock dies with the process
=======================  =================================================================================

KEY names the size and the manifest as seen from the folder, so sites and sizes share a folder, and a site's folder can
be moved as a whole. No array is ever renamed or written to after its header: who has it open keeps what it opened.
"""

import fcntl
import hashlib
import json
import os
import tokenize
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from polyhead.atomic import write_atomically
from polyhead.errors import CacheError
from polyhead.imaging.pixels import RECIPE

__all__ = [
    "Contents",
    "Fingerprint",
    "Rows",
    "append_journal",
    "array_file",
    "cache_key",
    "fingerprint",
    "header_file",
    "locked",
    "open_array",
    "read_header",
    "read_journal",
    "remove_others",
    "write_header",
    "write_journal",
]

# Raised with the layout of any of the files.
FORMAT = 1

Fingerprint = tuple[int, int] | None
Rows = tuple[int, int]  # first, and one past the last


@dataclass(frozen=True)
class Contents:
    """What a cache holds.

    Attributes
    ----------
    size
        Side of each square in pixels.
    images
        Name of each row's image, with its fingerprint.
    bad
        Images that could not be read, with the reason; their rows are zeros.
    """

    size: int
    images: Mapping[str, Fingerprint]
    bad: Mapping[str, str] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the array."""
        return len(self.images), self.size, self.size

    def digest(self) -> str:
        """Return a hash of everything that decides the pixels."""
        decisive = [FORMAT, RECIPE, self.size, list(self.images.items())]
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]


def fingerprint(path: Path) -> Fingerprint:
    """Return (bytes, time of change in ns) of a file, following links, or None if there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def cache_key(manifest: Path, folder: Path, size: int) -> str:
    """Return the first part of the names of a cache's files."""
    seen_from_folder = os.path.relpath(manifest.resolve(), folder.resolve())
    return f"pixels-{size}-{hashlib.sha256(seen_from_folder.encode()).hexdigest()[:12]}"


def header_file(folder: Path, key: str) -> Path:
    """Return the header of a cache."""
    return folder / f"{key}.json"


def array_file(folder: Path, key: str, contents: Contents) -> Path:
    """Return the file that holds, or will hold, the pixels of these contents."""
    return folder / f"{key}-{contents.digest()}.npy"


def open_array(file: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Map an array for reading; None if the file is absent, cut short or of another shape or type."""
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError, tokenize.TokenError):
        return None
    fits = isinstance(array, np.memmap) and array.shape == shape and array.dtype == np.uint8
    return array if fits and array.flags.c_contiguous else None


def write_header(file: Path, contents: Contents) -> None:
    """Declare an array complete."""
    images = [[name, *(stamp or (None, None))] for name, stamp in contents.images.items()]
    header = {"format": FORMAT, "recipe": RECIPE, "size": contents.size, "bad": dict(contents.bad), "images": images}
    write_atomically(file, json.dumps(header))


def read_header(file: Path) -> Contents | None:
    """Return what a header declares; None if there is none, or one of another format or recipe."""
    try:
        header = json.loads(file.read_bytes())
        if (header["format"], header["recipe"]) != (FORMAT, RECIPE):
            return None
        images = {name: None if size is None else (size, time) for name, size, time in header["images"]}
        return Contents(header["size"], images, dict(header["bad"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write_journal(file: Path, done: Mapping[Rows, Mapping[str, str]]) -> None:
    """Begin a journal with the chunks already done."""
    write_atomically(file, "".join(_journal_line(rows, bad) for rows, bad in done.items()))


def append_journal(file: Path, rows: Rows, bad: Mapping[str, str]) -> None:
    """Note a chunk as done. Its pixels must be on disk before."""
    with file.open("a") as journal:
        journal.write(_journal_line(rows, bad))
        journal.flush()
        os.fsync(journal.fileno())


def read_journal(file: Path) -> dict[Rows, dict[str, str]]:
    """Return the chunks done, each with its bad images; empty if there is no journal."""
    done: dict[Rows, dict[str, str]] = {}
    try:
        for line in file.read_bytes().splitlines():
            entry = json.loads(line)
            done[entry["rows"][0], entry["rows"][1]] = dict(entry["bad"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return done  # A line that a crash cut short is not JSON, and the last.
    return done


def _journal_line(rows: Rows, bad: Mapping[str, str]) -> str:
    return json.dumps({"rows": rows, "bad": dict(bad)}) + "\n"


@contextmanager
def locked(folder: Path, key: str) -> Iterator[None]:
    """Hold the right to build a cache; who comes second is refused.

    Raises
    ------
    CacheError
        Another process holds it, or the folder cannot be written.
    """
    with _lock_file(folder, key) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise CacheError(
                f"{folder}: another process is preparing the cache {key}. Wait for it, then run this again."
            ) from problem
        yield


def _lock_file(folder: Path, key: str) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / f"{key}.lock").open("a")
    except OSError as problem:
        raise CacheError(
            f"{folder}: no pixel cache can be written here ({problem.strerror}). "
            "Set the study's key 'cache' to a folder that can be written."
        ) from problem


def remove_others(folder: Path, key: str, keep: Path) -> None:
    """Remove every array and journal of a cache but the array to `keep`."""
    for file in folder.glob(f"{key}-*"):
        if file != keep:
            file.unlink(missing_ok=True)
