"""A site's pixel cache: its images at one size, decoded once, in one memory-mapped array.

A cache is of a whole manifest *file*, so that sites that use parts of it (`shard`, `train_images`) share one cache.
It is reused only while size, recipe, and names, sizes and times of change of the images are what they were.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from polyhead.errors import CacheError
from polyhead.imaging.cache_build import Progress, build
from polyhead.imaging.cache_files import (
    Contents,
    Settings,
    array_file,
    cache_key,
    fingerprint,
    header_file,
    locked,
    open_array,
    read_header,
)
from polyhead.imaging.recipe import STANDARD, Recipe
from polyhead.manifest import Manifest, image_lines

__all__ = ["PixelCache", "open_cache", "prepare"]

_SHOWN_PROBLEMS = 8


@dataclass(frozen=True)
class PixelCache:
    """The images of a manifest.

    Attributes
    ----------
    images
        Shape ``(n, size, size)``, uint8, read-only, on disk; may hold more images than the manifest asked for.
    row_of
        Row of each image by its name.
    bad
        Images of the manifest that could not be read, with the reason.
    notes
        What a policy did to images of the manifest; see `polyhead.imaging.radiograph.Radiograph`. Images to which
        nothing was done are left out.
    """

    images: NDArray[np.uint8]
    row_of: Mapping[str, int]
    bad: Mapping[str, str]
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def rows(self, names: Iterable[str]) -> NDArray[np.int64]:
        """Return the rows of images by name, in the order asked for; a bad or unknown image is an error."""
        names = list(names)
        for name in names:
            if name in self.bad or name not in self.row_of:
                raise CacheError(f"image {name!r}: {self.bad.get(name, 'not in the pixel cache')}. Leave it out.")
        return np.array([self.row_of[name] for name in names], dtype=np.int64)


def prepare(
    manifest: Manifest,
    folder: Path,
    size: int,
    recipe: Recipe = STANDARD,
    *,
    bad_budget: float = 0.01,
    progress: Progress | None = None,
    workers: int | None = None,
) -> PixelCache:
    """Open the pixel cache of a manifest, and build it first where there is none that fits.

    A build that was interrupted, at whatever moment, goes on where it was. Images that an older cache of this manifest
    holds unchanged are copied from it. Of the manifest's file only the column of images is read, so that one whose
    labels are faulty can be prepared, and checked, too.

    Parameters
    ----------
    folder
        Where the cache is kept; caches of several manifests, sizes and recipes may share it.
    size
        Side of the squares in pixels.
    recipe
        How an image becomes a square.
    bad_budget
        Largest share of the images that may be unreadable; they are left out and named in ``PixelCache.bad``.
    progress
        Called with (images done, images in all), by the calling thread.
    workers
        Number of threads; by default one a CPU.

    Raises
    ------
    CacheError
        More images are bad than the budget allows, an image lies outside the site's folder, the folder cannot be
        written or has too little space, or another process is building the same cache.
    """
    cache = open_cache(manifest, folder, size, recipe)
    if cache is None:
        _check_budget(manifest, _missing(manifest), bad_budget)
        settings = Settings(size, recipe)
        with locked(folder, cache_key(manifest.path, folder, settings)):
            build(manifest, folder, settings, progress, workers)
            cache = open_cache(manifest, folder, size, recipe)
    if cache is None:
        raise CacheError(f"{manifest.path}: it or its images changed while they were prepared. Run this again.")
    _check_budget(manifest, cache.bad, bad_budget)
    return cache


def open_cache(manifest: Manifest, folder: Path, size: int, recipe: Recipe = STANDARD) -> PixelCache | None:
    """Open the pixel cache of a manifest without writing anything; None if there is none, or it no longer fits."""
    settings = Settings(size, recipe)
    key = cache_key(manifest.path, folder, settings)
    contents = read_header(header_file(folder, key))
    if contents is None or contents.settings != settings or not _fits(contents, manifest):
        return None
    images = open_array(array_file(folder, key, contents), contents.shape)
    if images is None:
        return None
    outcome, names = contents.outcome, manifest.frame["image"].to_list()
    bad = {name: outcome.bad[name] for name in names if name in outcome.bad}
    notes = {name: outcome.notes[name] for name in names if name in outcome.notes}
    return PixelCache(images, {name: row for row, name in enumerate(contents.images)}, bad, notes)


def _fits(contents: Contents, manifest: Manifest) -> bool:
    root = manifest.root
    return all(
        name in contents.images and contents.images[name] == fingerprint(root / name)
        for name in manifest.frame["image"]
    )


def _missing(manifest: Manifest) -> dict[str, str]:
    root = manifest.root
    return {name: "is missing." for name in manifest.frame["image"] if fingerprint(root / name) is None}


def _check_budget(manifest: Manifest, bad: Mapping[str, str], budget: float) -> None:
    if len(bad) <= budget * manifest.frame.height:
        return
    lines = image_lines(manifest.path)  # The manifest may be a part of its file; lines are counted in the file.
    problems = [f"line {lines.get(name, '?')}, {name}: {reason}" for name, reason in bad.items()]
    more = len(problems) - _SHOWN_PROBLEMS
    shown = problems[:_SHOWN_PROBLEMS] + ([f"and {more} more images."] if more > 0 else [])
    raise CacheError(
        f"{manifest.path}: {len(bad)} of {manifest.frame.height} images cannot be used; allowed are {budget:.1%}. "
        "Mend the files or remove their rows, then run this again; what is done is kept. Or allow more: "
        "the study's key 'bad_images', or `polyhead prepare --skip`.\n"
        + "\n".join(f"{manifest.path}, {problem}" for problem in shown)
    )
