"""The files of a pixel cache and what makes them valid.

=======================  =================================================================================
file                     meaning
=======================  =================================================================================
``KEY.json``             the header: settings, images with fingerprints, bad images, notes. Written last, whole.
``KEY-DIGEST.npy``       the pixels of exactly the contents with that digest; valid only if the header says so
``KEY-DIGEST.journal``   while building: a line for each chunk of rows whose pixels are safely on disk
``KEY.lock``             locked by the process that builds; the lock dies with the process
=======================  =================================================================================

KEY names the size, the recipe and the manifest as seen from the folder, so sites, sizes and recipes share a folder, and
a site's folder can be moved as a whole. No array is ever renamed or written to after its header: who has it open keeps
what it opened.
"""

import fcntl
import hashlib
import json
import os
import tokenize
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from polyhead.atomic import write_atomically
from polyhead.errors import CacheError
from polyhead.imaging.pixels import PATH_VERSION
from polyhead.imaging.recipe import Recipe

__all__ = [
    "Contents",
    "Done",
    "Fingerprint",
    "Outcome",
    "Rows",
    "Settings",
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
FORMAT = 3

Fingerprint = tuple[int, int, int] | None
Rows = tuple[int, int]  # first, and one past the last


@dataclass(frozen=True)
class Settings:
    """What every square of a cache is made with: its side in pixels, and the recipe."""

    size: int
    recipe: Recipe


@dataclass(frozen=True)
class Outcome:
    """What reading some images gave beside their pixels.

    Attributes
    ----------
    bad
        Images that could not be read, with the reason; their rows are zeros.
    notes
        What a policy did, image by image; see `polyhead.imaging.radiograph.Radiograph`. Images without are left out.
    """

    bad: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


Done = dict[Rows, Outcome]


@dataclass(frozen=True)
class Contents:
    """What a cache holds.

    Attributes
    ----------
    images
        Name of each row's image, with its fingerprint.
    """

    settings: Settings
    images: Mapping[str, Fingerprint]
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the array."""
        return len(self.images), self.settings.size, self.settings.size

    def digest(self) -> str:
        """Return a hash of everything that decides the pixels."""
        decisive = [FORMAT, PATH_VERSION, asdict(self.settings), list(self.images.items())]
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]


def fingerprint(path: Path) -> Fingerprint:
    """Return a file's bytes and its two times of change in ns, following links, or None if there is none.

    The second time, of the entry on disk, tells files apart that were exchanged with their own time kept.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def cache_key(manifest: Path, folder: Path, settings: Settings) -> str:
    """Return the first part of the names of a cache's files."""
    seen_from_folder = os.path.relpath(manifest.resolve(), folder.resolve())
    which = json.dumps([seen_from_folder, asdict(settings.recipe)])
    return f"pixels-{settings.size}-{hashlib.sha256(which.encode()).hexdigest()[:12]}"


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
    images = [[name, *(stamp or (None, None, None))] for name, stamp in contents.images.items()]
    made_by = {"format": FORMAT, "path": PATH_VERSION, **asdict(contents.settings)}
    write_atomically(file, json.dumps({**made_by, **asdict(contents.outcome), "images": images}))


def read_header(file: Path) -> Contents | None:
    """Return what a header declares; None if there is none, or one of another format or pixel path."""
    try:
        header = json.loads(file.read_bytes())
        if (header["format"], header["path"]) != (FORMAT, PATH_VERSION):
            return None
        images = {name: None if size is None else (size, *times) for name, size, *times in header["images"]}
        return Contents(Settings(header["size"], Recipe(**header["recipe"])), images, _outcome(header))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def write_journal(file: Path, done: Done) -> None:
    """Begin a journal with the chunks already done."""
    write_atomically(file, "".join(_journal_line(rows, outcome) for rows, outcome in done.items()))


def append_journal(file: Path, rows: Rows, outcome: Outcome) -> None:
    """Note a chunk as done. Its pixels must be on disk before."""
    with file.open("a") as journal:
        journal.write(_journal_line(rows, outcome))
        journal.flush()
        os.fsync(journal.fileno())


def read_journal(file: Path) -> Done:
    """Return the chunks done, each with its outcome; empty if there is no journal."""
    done: Done = {}
    try:
        for line in file.read_bytes().splitlines():
            entry = json.loads(line)
            done[entry["rows"][0], entry["rows"][1]] = _outcome(entry)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return done  # A line that a crash cut short is not JSON, and the last.
    return done


def _journal_line(rows: Rows, outcome: Outcome) -> str:
    return json.dumps({"rows": rows, **asdict(outcome)}) + "\n"


def _outcome(entry: Mapping[str, Any]) -> Outcome:
    return Outcome(dict(entry["bad"]), {name: tuple(notes) for name, notes in entry["notes"].items()})


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
            "Name a folder that can be written: the study's key 'cache', or --cache."
        ) from problem


def remove_others(folder: Path, key: str, keep: Path) -> None:
    """Remove every array and journal of a cache but the array to `keep`."""
    for file in folder.glob(f"{key}-*"):
        if file != keep:
            file.unlink(missing_ok=True)
