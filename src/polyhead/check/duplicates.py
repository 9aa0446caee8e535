"""The same image twice, under two names: to the bit, or nearly. An image in two splits makes a test worthless."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from polyhead.imaging.hashes import near_pairs, perceptual_hashes, pixel_hash
from polyhead.imaging.prepare import PixelCache
from polyhead.manifest import Manifest
from polyhead.problems import Problem, Severity, first_named

__all__ = ["MOST_COMPARED", "duplicate_problems"]

MOST_COMPARED = 200_000
"""Near-duplicates are looked for among so many images at most: all pairs of them are compared."""


@dataclass(frozen=True)
class _Row:
    line: int
    image: str
    patient: str
    split: str

    def __str__(self) -> str:
        return f"line {self.line}, {self.image} ({self.split})"


def duplicate_problems(
    manifest: Manifest, cache: PixelCache, lines: Mapping[str, int], progress: Callable[[str, int, int], None]
) -> Iterator[Problem]:
    """Yield images that are the same.

    The same pixels in two splits are an error, within one a warning. Images that look the same are of two patients in
    two splits a warning, in one split a note; of one patient nothing, as follow-up images resemble each other.

    Parameters
    ----------
    lines
        Line of each image in the manifest's file.
    progress
        Told what is being done, how much of it is done, and how much there is.
    """
    columns = manifest.frame.select("image", "patient_id", "split").iter_rows()
    rows = [_Row(lines[image], image, patient, split) for image, patient, split in columns if image not in cache.bad]
    groups = _same_pixels(rows, cache, progress)
    yield from _by_split([group for group in groups if len(group) > 1])
    firsts = [group[0] for group in groups]
    if len(firsts) > MOST_COMPARED:
        text = f"near-duplicates are looked for among {MOST_COMPARED:,} images at most; here are {len(firsts):,}."
        yield Problem("note", "not-compared", text, len(firsts))
        return
    yield from _near(firsts, cache, progress)


def _same_pixels(
    rows: Sequence[_Row], cache: PixelCache, progress: Callable[[str, int, int], None]
) -> list[tuple[_Row, ...]]:
    groups: dict[bytes, list[_Row]] = {}
    for done, row in enumerate(rows, start=1):
        groups.setdefault(pixel_hash(cache.images[cache.row_of[row.image]]), []).append(row)
        progress("Equal images", done, len(rows))
    return [tuple(group) for group in groups.values()]


def _by_split(groups: Sequence[tuple[_Row, ...]]) -> Iterator[Problem]:
    torn = [group for group in groups if len({row.split for row in group}) > 1]
    within = [group for group in groups if len({row.split for row in group}) == 1]
    yield from _named("error", "same-pixels-two-splits", torn, "the same pixels. Keep one row, or one split.")
    yield from _named("warning", "same-pixels", within, "the same pixels. Keep one row.")


def _near(firsts: Sequence[_Row], cache: PixelCache, progress: Callable[[str, int, int], None]) -> Iterator[Problem]:
    hashes = perceptual_hashes(
        (cache.images[cache.row_of[row.image]] for row in firsts),
        progress=lambda done: progress("Hashing images", done, len(firsts)),
    )
    near = near_pairs(hashes, progress=lambda done, total: progress("Comparing pairs of images", done, total))
    pairs = [(firsts[one], firsts[other]) for one, other in near]
    of_two = [(one, other) for one, other in pairs if one.patient != other.patient]
    torn = [pair for pair in of_two if pair[0].split != pair[1].split]
    within = [pair for pair in of_two if pair[0].split == pair[1].split]
    yield from _named("warning", "near-duplicate-two-splits", torn, "look the same, of two patients. Compare them.")
    yield from _named("note", "near-duplicate", within, "look the same, of two patients.")


def _named(severity: Severity, kind: str, groups: Sequence[tuple[_Row, ...]], what: str) -> Iterator[Problem]:
    """Yield a problem a group, as `first_named` does."""
    yield from first_named(
        (Problem(severity, kind, f"{_shown(group)}: {what}", len(group)) for group in groups), "groups"
    )


def _shown(group: tuple[_Row, ...]) -> str:
    """Name a row of each split, and at least two."""
    first_of_split = {row.split: row for row in reversed(group)}
    shown = sorted({*first_of_split.values(), *group[:2]}, key=lambda row: row.line)
    more = f" and {len(group) - len(shown)} more" if len(group) > len(shown) else ""
    return f"{' and '.join(map(str, shown))}{more}"
