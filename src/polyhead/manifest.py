"""A site's manifest: one row an image, one column a finding.

==============  ==========================================================================================
column          meaning
==============  ==========================================================================================
``image``       path of the image, relative to the manifest's folder; never outside it; unique
``patient_id``  text, exactly as written: "007", "7" and "7.0" are three patients
``split``       ``train``, ``val`` or ``test``; a patient is in one split only
``view``, ``sex``, ``age``, ``study_id``
                optional, text, never read as findings
any other       a finding: **1** present, **0** absent, **blank** not annotated
==============  ==========================================================================================

Blank never means negative: a blank label enters neither the loss nor a metric.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from polyhead.atomic import replacing
from polyhead.errors import ManifestError
from polyhead.findings import closest
from polyhead.tables import read_text_table

__all__ = [
    "REQUIRED_COLUMNS",
    "RESERVED_COLUMNS",
    "SPLITS",
    "Manifest",
    "label_counts",
    "limit_training",
    "read_manifest",
    "select_findings",
    "take_shard",
    "write_manifest",
]

SPLITS = ("train", "val", "test")
REQUIRED_COLUMNS = ("image", "patient_id", "split")
RESERVED_COLUMNS = (*REQUIRED_COLUMNS, "view", "sex", "age", "study_id")

_LABELS = {"1": 1, "0": 0, "1.0": 1, "0.0": 0}
_SHOWN_PROBLEMS = 8
_LINE = "\0line"  # No header can hold this name.


@dataclass(frozen=True)
class Manifest:
    """A checked manifest.

    Attributes
    ----------
    path
        The file it was read from; images are relative to ``path.parent``.
    frame
        The reserved columns as text, then each finding as Int8: 1, 0 or null (not annotated).
    findings
        The finding columns, in the file's order.
    """

    path: Path
    frame: pl.DataFrame
    findings: tuple[str, ...]

    def split(self, name: str) -> pl.DataFrame:
        """Return the rows of one split, in file order."""
        return self.frame.filter(pl.col("split") == name)


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises
    ------
    ManifestError
        Naming file, line, column and value of what was found; see the module's table for what is allowed.
    """
    text = read_text_table(path, ManifestError)
    missing = [name for name in REQUIRED_COLUMNS if name not in text.columns]
    if missing:
        raise ManifestError(f"{path}: no column {missing[0]!r}; {closest(missing[0], text.columns)}. Rename or add it.")
    findings = tuple(name for name in text.columns if name not in RESERVED_COLUMNS)
    problems = list(_problems(text, findings))
    if problems:
        more = len(problems) - _SHOWN_PROBLEMS
        shown = problems[:_SHOWN_PROBLEMS] + ([f"and {more} more problems"] if more > 0 else [])
        raise ManifestError("\n".join(f"{path}, {problem}" for problem in shown))
    reserved = [name for name in RESERVED_COLUMNS if name in text.columns]
    labels = pl.col(findings).replace_strict(_LABELS, return_dtype=pl.Int8)
    return Manifest(path, text.select(*reserved, labels) if findings else text.select(reserved), findings)


def write_manifest(frame: pl.DataFrame, path: Path) -> Manifest:
    """Write a table as ``manifest.csv`` and return it as read back, so that what is written has been checked."""
    with replacing(path) as temporary:
        frame.write_csv(temporary)
    return read_manifest(path)


def select_findings(manifest: Manifest, names: Sequence[str]) -> Manifest:
    """Keep some of the findings, in the order asked for.

    Raises
    ------
    ManifestError
        If one is not a column of the manifest; the nearest columns are named.
    """
    for name in names:
        if name not in manifest.findings:
            raise ManifestError(f"{manifest.path}: no finding {name!r}; {closest(name, manifest.findings)}.")
    reserved = [name for name in RESERVED_COLUMNS if name in manifest.frame.columns]
    return replace(manifest, frame=manifest.frame.select(*reserved, *names), findings=tuple(names))


def take_shard(manifest: Manifest, index: int, count: int) -> Manifest:
    """Keep the patients of shard `index` (1 to `count`), so that one manifest can play several hospitals.

    Patients are dealt by a hash of their id: the shards are disjoint, and no seed or row order changes them.
    """
    hashes = _patient_hashes(manifest, "shard")
    kept = [patient for patient, value in hashes.items() if value % count == index - 1]
    return replace(manifest, frame=manifest.frame.filter(pl.col("patient_id").is_in(kept)))


def limit_training(manifest: Manifest, most: int) -> Manifest:
    """Keep at most `most` training images, whole patients only; validation and test stay.

    Patients are taken in an order fixed by a hash of their id, so every seed of a study trains on the same patients,
    and those of a smaller limit are among those of a larger one unless a patient with many images did not fit.
    """
    images = dict(manifest.split("train").group_by("patient_id").len().iter_rows())
    hashes = _patient_hashes(manifest, "train_images")
    kept: list[str] = []
    left = most
    for patient in sorted(images, key=lambda name: hashes[name]):
        if images[patient] <= left:
            kept.append(patient)
            left -= images[patient]
    keep = (pl.col("split") != "train") | pl.col("patient_id").is_in(kept)
    return replace(manifest, frame=manifest.frame.filter(keep))


def label_counts(manifest: Manifest) -> pl.DataFrame:
    """Count labels: a row a split and finding, with positives, negatives, blanks, images and patients."""
    rows = []
    for split in SPLITS:
        part = manifest.split(split)
        size = {"images": part.height, "patients": part["patient_id"].n_unique()}
        for finding in manifest.findings:
            label = part[finding]
            counts = {"positives": (label == 1).sum(), "negatives": (label == 0).sum(), "blank": label.null_count()}
            rows.append({"split": split, "finding": finding, **counts, **size})
    return pl.DataFrame(rows)


def _patient_hashes(manifest: Manifest, purpose: str) -> dict[str, int]:
    return {
        patient: int.from_bytes(hashlib.sha256(f"{purpose}\0{patient}".encode()).digest()[:8])
        for patient in manifest.frame["patient_id"].unique()
    }


def _problems(text: pl.DataFrame, findings: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong, each beginning with the line of the file."""
    names = list(_name_problems(findings))
    if names:
        yield from names
        return
    numbered = text.with_row_index(_LINE, offset=2)
    for column in REQUIRED_COLUMNS:
        for line in numbered.filter(pl.col(column).is_null())[_LINE]:
            yield f"line {line}, column {column!r}: blank. Every image needs one."
    yield from _split_problems(numbered)
    yield from _image_problems(numbered)
    for finding in findings:
        bad = numbered.filter(pl.col(finding).is_not_null() & ~pl.col(finding).is_in(list(_LABELS)))
        for line, value in bad.select(_LINE, finding).iter_rows():
            yield f"line {line}, column {finding!r}: {value!r}. Allowed: 1, 0 or blank (not annotated)."


def _name_problems(findings: Sequence[str]) -> Iterator[str]:
    if not findings:
        yield "line 1: no finding column. Add at least one column with 1, 0 or blank."
    for finding in findings:
        # A spreadsheet would run a name that begins like a formula, and a terminal obeys control characters.
        if not finding[0].isalnum() or not finding.isprintable():
            yield f"line 1: column {finding!r} cannot be a finding. Begin with a letter or digit; printable text only."
        if finding.casefold() in (*RESERVED_COLUMNS, "mean"):
            yield f"line 1: column {finding!r} cannot be a finding: {finding.casefold()!r} has a meaning of its own."


def _split_problems(numbered: pl.DataFrame) -> Iterator[str]:
    unknown = numbered.filter(pl.col("split").is_not_null() & ~pl.col("split").is_in(SPLITS))
    for line, value in unknown.select(_LINE, "split").iter_rows():
        yield f"line {line}, column 'split': {value!r}. Allowed: {', '.join(SPLITS)}."
    for split in SPLITS:
        if not (numbered["split"] == split).any():
            yield f"column 'split': no image in {split!r}. Training, validation and test all need some."
    torn = (
        numbered.filter(pl.col("patient_id").is_not_null())
        .group_by("patient_id")
        .agg(pl.col("split").unique().sort(), pl.col(_LINE).min())
        .filter(pl.col("split").list.len() > 1)
        .sort(_LINE)
    )
    if torn.height:
        first = ", ".join(
            f"{row['patient_id']} ({'+'.join(map(str, row['split']))})" for row in torn.head(3).to_dicts()
        )
        yield f"column 'split': {torn.height} patients are in more than one split, first {first}. Keep each in one."


def _image_problems(numbered: pl.DataFrame) -> Iterator[str]:
    image = pl.col("image")
    outside = numbered.filter(image.str.contains(r"^[/\\~]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)"))
    for line, value in outside.select(_LINE, "image").iter_rows():
        yield f"line {line}, column 'image': {value!r} leads out of the site's folder. Give a path below it."
    control = numbered.filter(image.str.contains(r"[\x00-\x1f\x7f-\x9f]"))
    for line, value in control.select(_LINE, "image").iter_rows():
        yield f"line {line}, column 'image': {value!r} holds control characters. Rename the file."
    twice = numbered.filter(image.is_not_null() & image.is_duplicated() & ~image.is_first_distinct())
    for line, value in twice.select(_LINE, "image").iter_rows():
        yield f"line {line}, column 'image': {value!r} stands on an earlier line too. Keep one row per image."
