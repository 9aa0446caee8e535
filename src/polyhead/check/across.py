"""The same image at two sites: trained on at one, and kept for validation or test at another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from polyhead.check.images import Reading
from polyhead.check.result import ManifestCheck
from polyhead.imaging.hashes import pixel_hash
from polyhead.imaging.prepare import open_cache
from polyhead.manifest import Manifest, image_lines
from polyhead.problems import Problem, Severity, first_named

__all__ = ["add_pixels_elsewhere"]

_KIND = "same-pixels-two-sites"


@dataclass(frozen=True)
class _Place:
    site: str
    file: Path
    image: str
    split: str


def add_pixels_elsewhere(
    checks: Sequence[ManifestCheck], sites: Sequence[tuple[str, Manifest]], reading: Reading, severity: Severity
) -> tuple[ManifestCheck, ...]:
    """Add to each manifest its images of validation and test that a site with another manifest trains on.

    Sites of one manifest file are not compared with each other: what is twice in one file has been said of it.

    Parameters
    ----------
    sites
        Names, and manifests as narrowed by a study. Those whose pixel cache is not there are left out.
    reading
        How the caches were made: equal pixels are told only at one size and by one recipe.
    severity
        Of each image that is found.
    """
    if not reading.images or len({manifest.path.resolve() for _, manifest in sites}) < 2:
        return tuple(checks)
    trained: dict[bytes, dict[Path, _Place]] = {}
    held: dict[tuple[Path, str], tuple[bytes, _Place]] = {}
    for pixels, place in _places(sites, reading):
        if place.split == "train":
            trained.setdefault(pixels, {}).setdefault(place.file, place)
        else:
            held.setdefault((place.file, place.image), (pixels, place))
    pairs = [
        (place, next(other for file, other in trained[pixels].items() if file != place.file))
        for pixels, place in held.values()
        if trained.get(pixels, {}).keys() - {place.file}
    ]
    return tuple(_added(check, pairs, severity) for check in checks)


def _places(sites: Sequence[tuple[str, Manifest]], reading: Reading) -> Iterator[tuple[bytes, _Place]]:
    """Yield each image of each site with a hash of its pixels; an image of a file is hashed once."""
    hashes: dict[tuple[Path, str], bytes] = {}
    done, total = 0, sum(manifest.frame.height for _, manifest in sites)
    for site, manifest in sites:
        cache = open_cache(manifest, reading.folder(manifest.path), reading.size, reading.recipe)
        file = manifest.path.resolve()
        for image, split in manifest.frame.select("image", "split").iter_rows():
            done += 1
            reading.progress("Comparing images of all sites", done, total)
            if cache is None or image in cache.bad:
                continue
            if (file, image) not in hashes:
                hashes[file, image] = pixel_hash(cache.images[cache.row_of[image]])
            yield hashes[file, image], _Place(site, file, image, split)


def _added(check: ManifestCheck, pairs: Sequence[tuple[_Place, _Place]], severity: Severity) -> ManifestCheck:
    own = [pair for pair in pairs if pair[0].file == check.path.resolve()]
    return replace(check, problems=(*check.problems, *_problems(own, severity))) if own else check


def _problems(pairs: Sequence[tuple[_Place, _Place]], severity: Severity) -> Iterator[Problem]:
    lines = {file: image_lines(file) for file in {place.file for pair in pairs for place in pair}}
    texts = (
        f"{_named(place, lines[place.file])} and, at {other.site}, {_named(other, lines[other.file])}: the same "
        "pixels. What is trained on together must not be measured on. Remove one."
        for place, other in pairs
    )
    yield from first_named((Problem(severity, _KIND, text) for text in texts), "images")


def _named(place: _Place, lines: dict[str, int]) -> str:
    return f"line {lines[place.image]}, {place.image} ({place.split})"
