"""MIMIC-CXR-JPG: labels for each study, views and splits for each image, in three packed tables."""

from pathlib import Path

import polars as pl

from polyhead.adapters.chexpert import FINDINGS, NO_FINDING
from polyhead.adapters.images import folders_of, keep_present, list_images, say_missing
from polyhead.adapters.imported import Imported, Options
from polyhead.adapters.labels import complete_no_finding, read_labels
from polyhead.adapters.rows import keep, keep_frontal
from polyhead.adapters.source_files import check_key, find_file, read_source
from polyhead.errors import SourceError

__all__ = ["import_mimic_cxr"]

_PAGE = "PhysioNet, MIMIC-CXR-JPG v2.1.0 (credentialed access)"
_STUDY = ["subject_id", "study_id"]
_SPLITS = {"train": "train", "validate": "val", "test": "test"}


def import_mimic_cxr(root: Path, options: Options) -> Imported:
    """Import MIMIC-CXR-JPG (Johnson et al., 2019), with its official split.

    An image has the labels of its study, from the CheXpert labeller. Images of a study without labels are left out, as
    are those without a view position unless `views` is ``all``.

    Parameters
    ----------
    root
        Folder with the three tables ``mimic-cxr-2.0.0-{chexpert,metadata,split}.csv.gz`` and ``files/``.
    options
        See `Options`; `seed` and `validation` do not apply.

    Raises
    ------
    SourceError
        A file or column is missing, the tables contradict each other, or images are missing.
    """
    table = _images(root).join(_labels(root), on=_STUDY, how="left", maintain_order="left")
    table, unlabelled = keep(table, pl.col("labelled"), "belong to a study without labels")
    table, views = keep_frontal(table, pl.col("view").is_in(["AP", "PA"]), options)
    table = table.with_columns(_image("files/" if (root / "files").is_dir() else ""))
    table, missing = keep_present(table, list_images(root, folders_of(table)), root, options, _PAGE)
    table = complete_no_finding(
        *(table, FINDINGS),
        uncertain=options.uncertain,
        not_mentioned=options.not_mentioned,
        apart=["Support Devices"],
    )
    frame = table.select("image", pl.col("subject_id").alias("patient_id"), "split", "view", "study_id", *FINDINGS)
    return Imported(frame, root, _choices(options), (*unlabelled, *views, *missing))


def _read(root: Path, name: str, key: list[str], columns: list[str], *, others: bool = True) -> pl.DataFrame:
    path = find_file(root, [f"mimic-cxr-2*-{name}.csv.gz", f"mimic-cxr-2*-{name}.csv"], _PAGE)
    table = read_source(path, _PAGE, columns, others=others)
    check_key(table, key, path)
    return table


def _images(root: Path) -> pl.DataFrame:
    """Return a row for each image, with its split and view; the two tables must tell of the same images."""
    key = ["dicom_id", *_STUDY]
    split, metadata = _split(root), _metadata(root)
    stray = [one.join(other, on=key, how="anti")["dicom_id"] for one, other in ((split, metadata), (metadata, split))]
    images = pl.concat(stray).unique().sort()
    if images.len():
        raise SourceError(
            f"{root}: the tables of splits and metadata do not tell of the same images and patients, first "
            f"{images[0]} ({images.len():,} such). Get both again: {_PAGE}."
        )
    return split.join(metadata, on=key, how="left", maintain_order="left")


def _split(root: Path) -> pl.DataFrame:
    table = _read(root, "split", ["dicom_id"], ["dicom_id", *_STUDY, "split"])
    strange = table.filter(~pl.col("split").is_in(list(_SPLITS)).fill_null(False))
    if strange.height:
        raise SourceError(
            f"{root}, table of splits: image {strange['dicom_id'][0]} is in {strange['split'][0]!r} "
            f"({strange.height} such). Allowed: {', '.join(_SPLITS)}."
        )
    return table.with_columns(pl.col("split").replace_strict(_SPLITS, return_dtype=pl.String))


def _metadata(root: Path) -> pl.DataFrame:
    columns = ["dicom_id", *_STUDY, "ViewPosition"]
    return _read(root, "metadata", ["dicom_id"], columns).rename({"ViewPosition": "view"})


def _labels(root: Path) -> pl.DataFrame:
    table = _read(root, "chexpert", _STUDY, [*_STUDY, *FINDINGS], others=False)
    path = find_file(root, ["mimic-cxr-2*-chexpert.csv*"], _PAGE)
    return read_labels(table, FINDINGS, path).with_columns(pl.lit(True).alias("labelled"))


def _image(top: str) -> pl.Expr:
    subject, study = pl.col("subject_id"), pl.col("study_id")
    return pl.format(top + "p{}/p{}/s{}/{}.jpg", subject.str.slice(0, 2), subject, study, "dicom_id").alias("image")


def _choices(options: Options) -> dict[str, str]:
    return {
        "adapter": "mimic-cxr",
        "labels": "of the study, mined from its report by the CheXpert labeller",
        "uncertain": options.uncertain,
        "not_mentioned": options.not_mentioned,
        "no_finding": NO_FINDING,
        "views": options.views,
        "split": "official",
        "validation": "official",
        **say_missing(options),
    }
