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
    Done,
    Fingerprint,
    Outcome,
    Rows,
    Settings,
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
from polyhead.imaging.pixels import Square, confined_path, load_square
from polyhead.manifest import Manifest, image_lines

__all__ = ["Progress", "build"]

CHUNK_ROWS = 64
_BOOKKEEPING_BYTES = 256  # header and journal, an image

Progress = Callable[[int, int], None]
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


def build(manifest: Manifest, folder: Path, settings: Settings, progress: Progress | None, workers: int | None) -> None:
    """Build the cache of a whole manifest file, unless a valid one of just these contents is there.

    Only the names of the images are read from the file; faults in other columns do not matter here. The caller holds
    the lock. Bad images become rows of zeros and are named in the header; judging them is the caller's. See
    `polyhead.imaging.prepare.prepare` for parameters and errors.
    """
    lines = image_lines(manifest.path)
    _check_confined(manifest, lines)
    key = cache_key(manifest.path, folder, settings)
    contents = Contents(settings, {name: fingerprint(manifest.root / name) for name in lines})
    plan = _make_plan(manifest.root, contents, folder, key)
    if plan.earlier and plan.earlier.contents.images == plan.contents.images:
        return
    try:
        done = _begin(plan)
        _decode(plan, done, progress, workers)
        write_header(plan.header, replace(plan.contents, outcome=_together(done)))
        remove_others(folder, key, keep=plan.array)
    except OSError as problem:
        raise CacheError(
            f"{plan.array}: cannot be written ({problem.strerror}). What is done is kept: mend this, then run it again."
        ) from problem


def _check_confined(manifest: Manifest, lines: Mapping[str, int]) -> None:
    for name, line in lines.items():
        try:
            confined_path(manifest.root, name)
        except ImageError as problem:
            raise CacheError(f"{manifest.path}, line {line}, column 'image': {problem}") from problem


def _make_plan(root: Path, contents: Contents, folder: Path, key: str) -> _Plan:
    array = array_file(folder, key, contents)
    earlier = _open_earlier(folder, key, contents.settings)
    images = tuple(contents.images.items())
    return _Plan(root, contents, images, header_file(folder, key), array, array.with_suffix(".journal"), earlier)


def _open_earlier(folder: Path, key: str, settings: Settings) -> _Earlier | None:
    contents = read_header(header_file(folder, key))
    if contents is None or contents.settings != settings:
        return None
    pixels = open_array(array_file(folder, key, contents), contents.shape)
    if pixels is None:
        return None
    row_of = {image: row for row, image in enumerate(contents.images.items()) if image[0] not in contents.outcome.bad}
    return _Earlier(contents, pixels, row_of)


def _together(done: Done) -> Outcome:
    parts = [done[rows] for rows in sorted(done)]
    bad = {name: reason for part in parts for name, reason in part.bad.items()}
    return Outcome(bad, {name: notes for part in parts for name, notes in part.notes.items()})


def _begin(plan: _Plan) -> Done:
    """Make array and journal ready, and return the chunks that an interrupted build has finished."""
    begun = open_array(plan.array, plan.contents.shape) is not None
    chunks = set(_chunks(plan))
    done = {rows: outcome for rows, outcome in read_journal(plan.journal).items() if begun and rows in chunks}
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
    """Write the chunks that are missing, in the order they finish, and add them to `done` with their outcome."""
    pending = [rows for rows in _chunks(plan) if rows not in done]
    images_done = _count(done)
    # Reading an image silences warnings; this restores the process's filters after all threads have ended.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        futures = {pool.submit(_write_chunk, plan, rows): rows for rows in pending}
        try:
            for future in as_completed(futures):
                rows, outcome = futures[future], future.result()
                append_journal(plan.journal, rows, outcome)
                done[rows] = outcome
                images_done += rows[1] - rows[0]
                if progress:
                    progress(images_done, len(plan.images))
        finally:
            pool.shutdown(cancel_futures=True)


def _write_chunk(plan: _Plan, rows: Rows) -> Outcome:
    """Write the pixels of some rows to disk, and return the rest of what reading them gave."""
    n, height, width = plan.contents.shape
    pixels = np.zeros((rows[1] - rows[0], height, width), np.uint8)
    bad, notes = {}, {}
    for row, (name, stamp) in enumerate(plan.images[slice(*rows)]):
        try:
            square = _read(plan, name, stamp)
        except ImageError as problem:
            bad[name] = str(problem).removeprefix(f"{plan.root / name}: ")
            continue
        pixels[row] = square.pixels
        if square.notes:
            notes[name] = square.notes
    # Plain writes, not a writable map: a full disk is then an error to report, not a signal that kills the process.
    with plan.array.open("r+b") as file:
        file.seek((rows[0] - n) * height * width, os.SEEK_END)
        file.write(pixels.data)
        file.flush()
        os.fsync(file.fileno())
    return Outcome(bad, notes)


def _read(plan: _Plan, name: str, stamp: Fingerprint) -> Square:
    if plan.earlier and (name, stamp) in plan.earlier.row_of:
        earlier: NDArray[np.uint8] = plan.earlier.pixels[plan.earlier.row_of[name, stamp]]
        return Square(earlier, plan.earlier.contents.outcome.notes.get(name, ()))
    # Asked again: a link may have taken the file's place since the whole was checked.
    confined_path(plan.root, name)
    return load_square(plan.root / name, plan.contents.settings.size, plan.contents.settings.recipe)
