"""A site's manifest: one row an image, one column a finding.

==============  ==========================================================================================
column          meaning
==============  ==========================================================================================
``image``       path of the image, relative to the manifest's folder, or to the one that ``site.toml`` beside it names;
                never outside it; unique
``patient_id``  text, exactly as written: "007", "7" and "7.0" are three patients
``split``       ``train``, ``val`` or ``test``; a patient is in one split only
``view``, ``sex``, ``age``, ``study_id``
                optional, text, never read as findings
any other       a finding: **1** present, **0** absent, **blank** not annotated
==============  ==========================================================================================

Blank never means negative: a blank label enters neither the loss nor a metric.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from polyhead.atomic import replacing
from polyhead.errors import ManifestError
from polyhead.findings import closest
from polyhead.manifest_rules import (
    LABELS,
    REQUIRED_COLUMNS,
    RESERVED_COLUMNS,
    SPLITS,
    finding_columns,
    table_problems,
    usable_rows,
)
from polyhead.problems import Problem
from polyhead.seeds import derive_seed
from polyhead.site_file import SiteFile, read_site_file, write_site_file
from polyhead.tables import read_text_table

__all__ = [
    "REQUIRED_COLUMNS",
    "RESERVED_COLUMNS",
    "SPLITS",
    "Manifest",
    "check_manifest",
    "image_lines",
    "label_counts",
    "limit_training",
    "narrow",
    "read_manifest",
    "select_findings",
    "shuffle_training_labels",
    "take_shard",
    "write_manifest",
]

_SHOWN_PROBLEMS = 8


@dataclass(frozen=True)
class Manifest:
    """A checked manifest.

    Attributes
    ----------
    path
        The file it was read from.
    frame
        The reserved columns as text, then each finding as Int8: 1, 0 or null (not annotated).
    findings
        The finding columns, in the file's order.
    root
        The folder that images are relative to.
    """

    path: Path
    frame: pl.DataFrame
    findings: tuple[str, ...]
    root: Path

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
    return _trusted(path, *check_manifest(path))


def check_manifest(path: Path) -> tuple[tuple[Problem, ...], Manifest | None]:
    """Read a manifest as far as it can be read.

    Returns
    -------
    tuple
        Everything that is wrong with it; empty if it is sound.
    Manifest or None
        What remains if faulty rows are left out and faulty labels are blank; None if columns are missing or misnamed.

    Raises
    ------
    ManifestError
        The file cannot be read as a table at all.
    """
    return _check(path, read_site_file(path.parent).images or path.parent)


def image_lines(path: Path) -> dict[str, int]:
    """Return every image that a manifest names in a usable row, with its line in the file; labels are not judged."""
    text = read_text_table(path, ManifestError).with_row_index("\0line", offset=2)
    return dict(usable_rows(text).select("image", "\0line").iter_rows())


def write_manifest(frame: pl.DataFrame, path: Path, site: SiteFile | None = None) -> Manifest:
    """Write a table as ``manifest.csv``, and `site` as ``site.toml`` beside it.

    Returns
    -------
    Manifest
        As read back, so that what is written has been checked.

    Raises
    ------
    ManifestError
        As from `read_manifest`. Nothing is written then, and files that were there before stay as they were.
    """
    folder = path.parent
    # A faulty site.toml that is to be replaced is not read.
    images = read_site_file(folder).images if site is None else site.images and folder / site.images
    with replacing(path) as temporary:
        content = io.BytesIO()
        frame.write_csv(content)
        temporary.write_bytes(content.getbuffer())
        try:
            manifest = _trusted(temporary, *_check(temporary, images or folder))
        except ManifestError as problem:
            raise ManifestError(str(problem).replace(str(temporary), str(path))) from problem
        if site is not None:
            write_site_file(folder, site)
    return replace(manifest, path=path)


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


def narrow(manifest: Manifest, findings: Sequence[str] | None, shard: str | None, train_images: int | None) -> Manifest:
    """Keep what a study asks of a site: findings (None: all), shard ``"i/n"``, training images; in this order.

    Raises
    ------
    ManifestError
        As from `select_findings`.
    """
    manifest = select_findings(manifest, findings or manifest.findings)
    if shard:
        index, count = map(int, shard.split("/"))
        manifest = take_shard(manifest, index, count)
    return limit_training(manifest, train_images) if train_images else manifest


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


def shuffle_training_labels(manifest: Manifest, site: str) -> Manifest:
    """Deal the labels of the training images out among them at random, each image's labels together, blanks too.

    Every finding is as frequent as before, and no label tells anything of its image. Whatever order the rows have, an
    image gets the same labels; `site` decides which. Validation and test labels stay.
    """
    labels = manifest.split("train").sort("image").select("image", *manifest.findings)
    order = np.random.default_rng(derive_seed("shuffled labels", site)).permutation(labels.height)
    dealt = labels.select("image").hstack(labels[order].drop("image"))
    return replace(manifest, frame=manifest.frame.update(dealt, on="image", include_nulls=True))


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


def _check(path: Path, root: Path) -> tuple[tuple[Problem, ...], Manifest | None]:
    text = read_text_table(path, ManifestError)
    problems = tuple(table_problems(text))
    if any(problem.kind == "column" for problem in problems):
        return problems, None
    findings = finding_columns(text)
    reserved = [name for name in RESERVED_COLUMNS if name in text.columns]
    labels = pl.col(findings).replace_strict(LABELS, default=None, return_dtype=pl.Int8)
    rows = usable_rows(text) if problems else text
    return problems, Manifest(path, rows.select(*reserved, labels), findings, root)


def _trusted(path: Path, problems: Sequence[Problem], manifest: Manifest | None) -> Manifest:
    if problems or manifest is None:
        more = sum(problem.count for problem in problems[_SHOWN_PROBLEMS:])
        shown = [problem.text for problem in problems[:_SHOWN_PROBLEMS]]
        raise ManifestError(
            "\n".join(f"{path}, {line}" for line in shown + ([f"and {more} more problems"] if more else []))
        )
    return manifest


def _patient_hashes(manifest: Manifest, purpose: str) -> dict[str, int]:
    return {
        patient: int.from_bytes(hashlib.sha256(f"{purpose}\0{patient}".encode()).digest()[:8])
        for patient in manifest.frame["patient_id"].unique()
    }
