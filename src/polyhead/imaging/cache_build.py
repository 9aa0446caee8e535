"""Building a pixel cache: in parallel, able to go on after an interruption at any moment.

Threads, not processes: decoding, which is nearly all the work on full-size radiographs, runs outside Python's lock, and
the lock on the folder stays with one process. Each chunk of rows is written and flushed before the journal calls it
done, and the header, which makes the array valid, comes last.
"""

import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from polyhead.errors import CacheError, ImageError
from polyhead.imaging.cache_files import (
    Contents,
    Fingerprint,
    Rows,
    append_journal,
    array_file,
    cache_key,
    fingerprint,
    header_file,
    open_array,
    read_header,
    read_journal,
    remove_others,
    write_header,
    write_journal,
)
from polyhead.imaging.pixels import confined_path, load_pixels
from polyhead.manifest import Manifest

__all__ = ["Progress", "build"]

CHUNK_ROWS = 64
_BOOKKEEPING_BYTES = 256  # header and journal, an image

Progress = Callable[[int, int], None]
Done = dict[Rows, dict[str, str]]
Stamped = tuple[str, Fingerprint]


@dataclass(frozen=True)
class _Earlier:
    """An older cache with the same settings, and in it the row of each good image."""

    contents: Contents
    pixels: NDArray[np.uint8]
    row_of: Mapping[Stamped, int]


@dataclass(frozen=True)
class _Plan:
    """What is to be built, where, and what an older cache can give to it.

    Attributes
    ----------
    root
        Folder that the images' names are relative to.
    images
        Each row's image with its fingerprint, as in `contents`.
    """

    root: Path
    contents: Contents
    images: Sequence[Stamped]
    header: Path
    array: Path
    journal: Path
    earlier: _Earlier | None


def build(manifest: Manifest, folder: Path, size: int, progress: Progress | None, workers: int | None) -> None:
    """Build the cache of a whole manifest, unless a valid one of just these contents is there.

    The caller holds the lock. Bad images become rows of zeros and are named in the header; judging them is the
    caller's. See `polyhead.imaging.prepare.prepare` for parameters and errors.
    """
    _check_confined(manifest)
    key = cache_key(manifest.path, folder, size)
    plan = _make_plan(manifest, folder, key, size)
    if plan.earlier and plan.earlier.contents.images == plan.contents.images:
        return
    try:
        done = _begin(plan)
        _decode(plan, done, progress, workers)
        bad = {name: reason for rows in sorted(done) for name, reason in done[rows].items()}
        write_header(plan.header, replace(plan.contents, bad=bad))
        remove_others(folder, key, keep=plan.array)
    except OSError as problem:
        raise CacheError(
            f"{plan.array}: cannot be written ({problem.strerror}). What is done is kept: mend this, then run it again."
        ) from problem


def _check_confined(manifest: Manifest) -> None:
    for line, name in enumerate(manifest.frame["image"], start=2):
        try:
            confined_path(manifest.root, name)
        except ImageError as problem:
            raise CacheError(f"{manifest.path}, line {line}, column 'image': {problem}") from problem


def _make_plan(manifest: Manifest, folder: Path, key: str, size: int) -> _Plan:
    root, header = manifest.root, header_file(folder, key)
    contents = Contents(size, {name: fingerprint(root / name) for name in manifest.frame["image"]})
    array = array_file(folder, key, contents)
    images = tuple(contents.images.items())
    return _Plan(root, contents, images, header, array, array.with_suffix(".journal"), _open_earlier(folder, key))


def _open_earlier(folder: Path, key: str) -> _Earlier | None:
    contents = read_header(header_file(folder, key))
    pixels = open_array(array_file(folder, key, contents), contents.shape) if contents else None
    if contents is None or pixels is None:
        return None
    row_of = {image: row for row, image in enumerate(contents.images.items()) if image[0] not in contents.bad}
    return _Earlier(contents, pixels, row_of)


def _begin(plan: _Plan) -> Done:
    """Make array and journal ready, and return the chunks that an interrupted build has finished."""
    begun = open_array(plan.array, plan.contents.shape) is not None
    chunks = set(_chunks(plan))
    done = {rows: bad for rows, bad in read_journal(plan.journal).items() if begun and rows in chunks}
    _check_space(plan, done)
    if plan.earlier is None:
        plan.header.unlink(missing_ok=True)  # It must never come to stand beside a new array of the same name.
    write_journal(plan.journal, done)
    if not begun:
        open_memmap(plan.array, "w+", np.uint8, plan.contents.shape)
    return done


def _chunks(plan: _Plan) -> list[Rows]:
    n = len(plan.images)
    return [(start, min(start + CHUNK_ROWS, n)) for start in range(0, n, CHUNK_ROWS)]


def _count(done: Done) -> int:
    return sum(stop - start for start, stop in done)


def _check_space(plan: _Plan, done: Done) -> None:
    n, height, width = plan.contents.shape
    needed = (n - _count(done)) * height * width + n * _BOOKKEEPING_BYTES
    free = shutil.disk_usage(plan.array.parent).free
    if needed > free:
        raise CacheError(
            f"{plan.array.parent}: the pixel cache needs {needed:,} bytes, but {free:,} are free. "
            "Make room, or set the study's key 'cache' to a folder with more."
        )


def _decode(plan: _Plan, done: Done, progress: Progress | None, workers: int | None) -> None:
    """Write the chunks that are missing, in the order they finish, and add them to `done` with their bad images."""
    pending = [rows for rows in _chunks(plan) if rows not in done]
    images_done = _count(done)
    # Reading an image silences warnings; this restores the process's filters after all threads have ended.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        futures = {pool.submit(_write_chunk, plan, rows): rows for rows in pending}
        try:
            for future in as_completed(futures):
                rows, bad = futures[future], future.result()
                append_journal(plan.journal, rows, bad)
                done[rows] = bad
                images_done += rows[1] - rows[0]
                if progress:
                    progress(images_done, len(plan.images))
        finally:
            pool.shutdown(cancel_futures=True)


def _write_chunk(plan: _Plan, rows: Rows) -> dict[str, str]:
    """Write the pixels of some rows to disk, and return the bad images among them with the reason."""
    n, height, width = plan.contents.shape
    pixels = np.zeros((rows[1] - rows[0], height, width), np.uint8)
    bad = {}
    for row, (name, stamp) in enumerate(plan.images[slice(*rows)]):
        try:
            pixels[row] = _read(plan, name, stamp)
        except ImageError as problem:
            bad[name] = str(problem).removeprefix(f"{plan.root / name}: ")
    # Plain writes, not a writable map: a full disk is then an error to report, not a signal that kills the process.
    with plan.array.open("r+b") as file:
        file.seek((rows[0] - n) * height * width, os.SEEK_END)
        file.write(pixels.data)
        file.flush()
        os.fsync(file.fileno())
    return bad


def _read(plan: _Plan, name: str, stamp: Fingerprint) -> NDArray[np.uint8]:
    if plan.earlier and (name, stamp) in plan.earlier.row_of:
        earlier: NDArray[np.uint8] = plan.earlier.pixels[plan.earlier.row_of[name, stamp]]
        return earlier
    return load_pixels(plan.root / name, plan.contents.size)
