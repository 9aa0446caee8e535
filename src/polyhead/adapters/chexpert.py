"""CheXpert: a table for each split, labels of 1, 0, -1 and blank, and all that is known of an image in its path."""

from pathlib import Path

import polars as pl

from polyhead.adapters.images import folders_of, keep_present, list_images, say_missing
from polyhead.adapters.imported import Imported, Options
from polyhead.adapters.labels import complete_no_finding, read_labels
from polyhead.adapters.rows import age_in_years, keep_frontal, sex_letter
from polyhead.adapters.source_files import check_key, find_file, read_source
from polyhead.adapters.splits import carve_validation, say_validation
from polyhead.errors import SourceError

__all__ = ["FINDINGS", "NO_FINDING", "import_chexpert"]

FINDINGS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""The 14 columns of the CheXpert labeller, in the order of its tables."""

NO_FINDING = (
    "after the policies: 0 where a finding other than Support Devices is 1, blank where an uncertain one is blank"
)
"""What is put for a blank "No Finding" of that labeller."""

_PAGE = "Stanford AIMI, CheXpert download page"
_ABOUT = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
_PATH = r"^(?:.*/)?((?:train|valid|val|test)/(patient\d+)/(study\d+)/[^/]*?(frontal|lateral)[^/]*)$"


def import_chexpert(root: Path, options: Options) -> Imported:
    """Import CheXpert (Irvin et al., AAAI 2019), full size or small.

    The images that radiologists read are the test set: those of ``valid.csv``, and validation is carved from the
    training patients; or those of the official test set, where its table is there, and ``valid.csv`` is validation.

    Parameters
    ----------
    root
        Folder with ``train.csv`` and ``valid.csv``, or the one that holds it as ``CheXpert-v1.0*``.
    options
        See `Options`.

    Raises
    ------
    SourceError
        A file or column is missing, a path or label is not as published, or images are missing.
    """
    folder = find_file(root, ["train.csv", "CheXpert-v1.0*/train.csv"], _PAGE).parent
    tests = [name for name in ("test.csv", "test_labels.csv") if (folder / name).is_file()]
    parts = [_read(folder / "train.csv", "train"), _read(folder / "valid.csv", "val" if tests else "test")]
    table = pl.concat([*parts, *(_read(folder / name, "test") for name in tests[:1])])
    table, views = keep_frontal(table, pl.col("frontal"), options)
    table, missing = keep_present(table, list_images(folder, folders_of(table)), folder, options, _PAGE)
    if not tests:
        table = carve_validation(table, options.validation, options.seed)
    table = complete_no_finding(
        *(table, FINDINGS),
        uncertain=options.uncertain,
        not_mentioned=options.not_mentioned,
        apart=["Support Devices"],
    )
    frame = table.select("image", "patient_id", "split", "view", "sex", "age", "study_id", *FINDINGS)
    return Imported(frame, folder, _choices(options, tests), (*views, *missing))


def _read(path: Path, split: str) -> pl.DataFrame:
    """Read one table; the official test set's has no columns about the patient."""
    about = _ABOUT if split != "test" else ()
    optional = tuple(name for name in _ABOUT if name not in about)
    table = read_source(path, _PAGE, ["Path", *about, *FINDINGS], optional=optional, others=False)
    check_key(table, ["Path"], path)
    table = read_labels(table, FINDINGS, path)
    table = table.with_columns(pl.lit(None, pl.String).alias(name) for name in _ABOUT if name not in table.columns)
    image, patient, study, view = (pl.col("Path").str.extract(_PATH, group) for group in (1, 2, 3, 4))
    table = table.with_columns(
        image.alias("image"),
        patient.alias("patient_id"),
        pl.concat_str(patient, study, separator="/").alias("study_id"),
    )
    odd = table.filter(pl.col("image").is_null())
    if odd.height:
        raise SourceError(
            f"{path}, column 'Path': {odd['Path'][0]!r} ({odd.height} such). "
            "Expected: .../train/patient00001/study1/view1_frontal.jpg, as published."
        )
    frontal = pl.col("Frontal/Lateral").fill_null(view).str.to_lowercase() == "frontal"
    name = pl.when(frontal).then(pl.col("AP/PA").fill_null("Frontal")).otherwise(pl.lit("Lateral"))
    return table.select(
        "image",
        "patient_id",
        "study_id",
        pl.lit(split).alias("split"),
        frontal.alias("frontal"),
        name.alias("view"),
        sex_letter("Sex"),
        age_in_years("Age"),
        *FINDINGS,
    )


def _choices(options: Options, tests: list[str]) -> dict[str, str]:
    carved = say_validation(options.validation, options.seed)
    return {
        "adapter": "chexpert",
        "labels": "training: mined from reports by the CheXpert labeller; valid.csv and test: read by radiologists",
        "uncertain": options.uncertain,
        "not_mentioned": options.not_mentioned,
        "no_finding": NO_FINDING,
        "views": options.views,
        "split": f"official; {tests[0]} is the test set" if tests else "valid.csv is the test set",
        "validation": "valid.csv" if tests else carved,
        **say_missing(options),
    }
