"""VinDr-CXR: three readers for each training image, a consensus for each test image, and no patients."""

from pathlib import Path

import polars as pl

from polyhead.adapters.images import keep_present, list_images, say_missing
from polyhead.adapters.imported import Imported, Options
from polyhead.adapters.labels import UNCERTAIN, apply_policies, read_labels
from polyhead.adapters.source_files import check_key, find_file, read_source
from polyhead.adapters.splits import carve_validation, say_validation
from polyhead.errors import SourceError

__all__ = ["FINDINGS", "import_vindr_cxr"]

FINDINGS = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Clavicle fracture",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Enlarged PA",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Nodule/Mass",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
    "Rib fracture",
    "Other lesion",
    "COPD",
    "Lung tumor",
    "Pneumonia",
    "Tuberculosis",
    "Other diseases",
    "No finding",
)
"""22 local findings, 5 diagnoses and "No finding", as the training table spells them."""

_PAGE = "PhysioNet, VinDr-CXR v1.0.0 (credentialed access)"
# The test table's own spelling.
_SPELLING = {"Other disease": "Other diseases"}
# The original before what somebody made of it.
_EXTENSIONS = ("dicom", "dcm", "png", "jpg", "jpeg")


def import_vindr_cxr(root: Path, options: Options) -> Imported:
    """Import VinDr-CXR (Nguyen et al., Sci Data 2022).

    A training label is that of the majority of the image's readers; a tie is uncertain. A test label is the official
    consensus. Validation is carved from the training images. There are no patient ids: each image stands for a patient
    of its own, which nobody can check.

    Parameters
    ----------
    root
        Folder with ``annotations/`` (or its two tables themselves), ``train/`` and ``test/``; images are DICOM, or PNG
        or JPEG of the same name.
    options
        Neither `not_mentioned` nor `views` applies.

    Raises
    ------
    SourceError
        A file or column is missing, a label is not as published, or images are missing.
    """
    train, ties = _majority(_read(root, "train", ["image_id", "rad_id"]))
    test = _read(root, "test", ["image_id"])
    parts = {"train": train, "test": test}
    rows = [part.select("image_id", *FINDINGS, pl.lit(name).alias("split")) for name, part in parts.items()]
    table, missing = _find_images(pl.concat(rows), root, options)
    table = carve_validation(table.with_columns(patient_id="image_id"), options.validation, options.seed)
    table = apply_policies(table, FINDINGS, uncertain=options.uncertain, not_mentioned="blank")
    frame = table.select("image", "patient_id", "split", pl.lit("PA").alias("view"), *FINDINGS)
    notes = ["The data set has no patient ids; each image stands for a patient of its own.", *missing]
    tied = [f"Training labels that count as uncertain because an image's readers are tied: {ties:,}."] if ties else []
    return Imported(frame, root, _choices(options), (*notes, *tied))


def _read(root: Path, split: str, key: list[str]) -> pl.DataFrame:
    path = find_file(root, [f"annotations/image_labels_{split}.csv", f"image_labels_{split}.csv"], _PAGE)
    respelt = [name for pair in _SPELLING.items() for name in pair]
    needed = [name for name in FINDINGS if name not in respelt]
    table = read_source(path, _PAGE, [*key, *needed], optional=[*respelt, "rad_id"], others=False)
    table = table.rename(_SPELLING, strict=False)
    if "Other diseases" not in table.columns:
        raise SourceError(f"{path}, line 1: no column 'Other diseases'. The published table has it: {_PAGE}.")
    check_key(table, key, path)
    return read_labels(table, FINDINGS, path, decided=True)


def _majority(votes: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Return a row for each image, with -1 for a tie, and the number of ties."""
    shares = votes.group_by("image_id", maintain_order=True).agg(pl.col(FINDINGS).cast(pl.Float64).mean())
    ties = shares.select(pl.sum_horizontal((pl.col(FINDINGS) == 0.5).sum())).item()
    labels = (
        pl.when(pl.col(name) == 0.5)
        .then(UNCERTAIN)
        .otherwise((pl.col(name) > 0.5).cast(pl.Int8))
        .cast(pl.Int8)
        .alias(name)
        for name in FINDINGS
    )
    return shares.with_columns(labels), int(ties)


def _find_images(table: pl.DataFrame, root: Path, options: Options) -> tuple[pl.DataFrame, list[str]]:
    """Add ``image``, with the extension that is on disk, and leave rows out whose image is not there."""
    listing = list_images(root, ["train", "test"])
    extension = pl.col("name").str.extract(r"\.([^.]*)$").str.to_lowercase()
    rank = extension.replace_strict(_EXTENSIONS, range(len(_EXTENSIONS)), default=None, return_dtype=pl.Int8)
    listing = listing.with_columns(
        rank.alias("rank"), pl.col("image").str.replace(r"\.[^.]*$", "").alias("place")
    ).drop_nulls("rank")
    best = listing.sort("rank").unique("place", keep="first", maintain_order=True).select("place", "image")
    table = table.with_columns(pl.format("{}/{}", "split", "image_id").alias("place"))
    table = table.join(best, on="place", how="left", maintain_order="left")
    table = table.with_columns(pl.col("image").fill_null(pl.format("{}.dicom", "place")))
    return keep_present(table, listing, root, options, _PAGE)


def _choices(options: Options) -> dict[str, str]:
    return {
        "adapter": "vindr-cxr",
        "labels": "training: majority of three readers, each finding by itself; test: consensus of five",
        "uncertain": f"{options.uncertain} (ties between readers)",
        "not_mentioned": "none in this set",
        "views": "frontal (the set has no other)",
        "split": "official test set",
        "validation": say_validation(options.validation, options.seed).replace("patients", "images"),
        "patients": "none given; each image stands for a patient",
        **say_missing(options),
    }
