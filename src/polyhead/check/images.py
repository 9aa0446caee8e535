"""A site's images, each read once into the pixel cache that training will use."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from polyhead.atomic import free_bytes
from polyhead.check.duplicates import duplicate_problems
from polyhead.check.result import DiskUse
from polyhead.errors import CacheError
from polyhead.imaging.cache_files import fingerprint
from polyhead.imaging.prepare import PixelCache, open_cache, prepare
from polyhead.imaging.recipe import STANDARD, Recipe
from polyhead.manifest import Manifest, image_lines
from polyhead.problems import Problem, Severity, first_named

__all__ = ["Progress", "Reading", "cache_use", "disk_of", "image_problems", "policies", "read_images"]

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Reading:
    """How images are read.

    Attributes
    ----------
    cache
        Folder of the pixel caches; None is each manifest's own folder.
    bad_budget
        Largest share of a manifest's images that may be unreadable.
    images
        Whether images are read at all.
    """

    size: int = 224
    recipe: Recipe = STANDARD
    cache: Path | None = None
    bad_budget: float = 0.01
    images: bool = True
    progress: Progress = lambda what, done, total: None

    def folder(self, manifest: Path) -> Path:
        """Return the folder of a manifest's cache."""
        return self.cache or manifest.parent


def read_images(manifest: Manifest, reading: Reading) -> tuple[PixelCache | None, tuple[Problem, ...]]:
    """Open a manifest's pixel cache, or build it.

    Returns
    -------
    PixelCache or None
        None if no image was read.
    tuple
        Why not.
    """
    if cache := open_cache(manifest, reading.folder(manifest.path), reading.size, reading.recipe):
        return cache, ()
    names = manifest.frame["image"]
    absent = [name for name in names if fingerprint(manifest.root / name) is None]
    if 2 * len(absent) > len(names):
        text = (
            f"{len(absent):,} of {len(names):,} images are missing below {manifest.root}, first {absent[0]}. No image "
            "was read. Is that the right folder? `images` in site.toml, beside the manifest, can name another."
        )
        return None, (Problem("error", "missing-images", text, len(absent)),)
    label = f"Images of {manifest.path.parent.name}"
    try:
        cache = prepare(
            manifest,
            reading.folder(manifest.path),
            reading.size,
            reading.recipe,
            bad_budget=1.0,
            progress=lambda done, total: reading.progress(label, done, total),
        )
    except CacheError as problem:
        return None, (Problem("error", "cache", f"{problem} No image was read."),)
    return cache, ()


def image_problems(manifest: Manifest, cache: PixelCache, reading: Reading) -> Iterator[Problem]:
    """Yield images that cannot be read, are there twice, or were changed by a policy."""
    lines = image_lines(manifest.path)
    yield from _bad_images(cache, lines, reading.bad_budget * manifest.frame.height)
    site = manifest.path.parent.name
    yield from duplicate_problems(
        *(manifest, cache, lines), lambda what, done, total: reading.progress(f"{what} of {site}", done, total)
    )
    for note, count in policies(cache).items():
        yield Problem("note", "policy", f"{note}: {count:,} images.", count)


def policies(cache: PixelCache) -> dict[str, int]:
    """Count the images that each policy concerned, the most frequent first."""
    return dict(Counter(note for notes in cache.notes.values() for note in notes).most_common())


def cache_use(manifest: Manifest, reading: Reading, *, is_read: bool) -> DiskUse:
    """Say what the pixel cache of a manifest needs on disk; one that has been read is there."""
    folder = reading.folder(manifest.path)
    ready = is_read or open_cache(manifest, folder, reading.size, reading.recipe) is not None
    return DiskUse(folder, manifest.frame.height * reading.size**2, free_bytes(folder), ready)


def disk_of(folder: Path) -> int:
    """Return the number of the disk of a folder that may not be there yet."""
    return _there(folder).stat().st_dev


def _there(folder: Path) -> Path:
    return next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())


def _bad_images(cache: PixelCache, lines: Mapping[str, int], budget: float) -> Iterator[Problem]:
    within = len(cache.bad) <= budget
    what = "It is left out." if within else f"Allowed are {budget:.3g} such images; mend or remove it."
    severity: Severity = "warning" if within else "error"
    yield from first_named(
        (
            Problem(severity, "bad-image", f"line {lines[image]}, {image}: {reason} {what}")
            for image, reason in cache.bad.items()
        ),
        "images",
    )
