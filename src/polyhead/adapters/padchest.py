"""PadChest: one table whose labels are Python lists as text, 174 kinds of finding, and no official split."""

from pathlib import Path

import polars as pl

from polyhead.adapters.images import folders_of, keep_present, list_images, say_missing
from polyhead.adapters.imported import Imported, Options
from polyhead.adapters.label_lists import frequent_labels, one_spelling, parse_label_lists
from polyhead.adapters.labels import listed_labels
from polyhead.adapters.rows import age_in_years, keep, keep_frontal, sex_letter
from polyhead.adapters.source_files import find_file, read_source
from polyhead.adapters.splits import SHARES, say_shares, split_by_patient
from polyhead.errors import SourceError

__all__ = ["import_padchest"]

_PAGE = "BIMCV (Medical Imaging Databank of the Valencia Region), PadChest page"
_COLUMNS = {
    "ImageID": "name",
    "ImageDir": "folder",
    "PatientID": "patient_id",
    "StudyID": "study_id",
    "Projection": "view",
    "Labels": "labels",
    "MethodLabel": "method",
}
_OPTIONAL = {"StudyDate_DICOM": "taken", "PatientBirth": "born", "PatientSex_DICOM": "sex"}
_UNREADABLE = 0.01
# Said of the report, not seen in the image: "unchanged" leaves open what there is, "exclude" is not for use.
_UNCHANGED, _EXCLUDE = "unchanged", "exclude"


def import_padchest(root: Path, options: Options) -> Imported:
    """Import PadChest (Bustos et al., Med Image Anal 2020), split by patient with a hash of our own.

    A finding that a report does not list is 0, since reports were labelled as a whole; but blank where the report says
    "unchanged", which leaves open what has not changed. Findings that too few training images show are left out.

    Parameters
    ----------
    root
        Folder with ``PADCHEST_chest_x_ray_images_labels*.csv[.gz]`` and the images, in ``0/`` to ``54/`` or all in one.
    options
        `min_positives` and `labels` are meant for this set; `uncertain` and `not_mentioned` do not apply.

    Raises
    ------
    SourceError
        A file or column is missing, lists of labels cannot be read, no finding is frequent enough, or images are
        missing.
    """
    table, unusable = _usable(_read(root), options)
    table, unlabelled = _labelled(table, root)
    table, excluded = keep(table, pl.col("view").fill_null("") != "EXCLUDE", "have the projection EXCLUDE")
    table, views = keep_frontal(table, pl.col("view").is_in(["PA", "AP", "AP_horizontal"]), options)
    table, missing = _find_images(table, root, options)
    table = table.with_columns(split_by_patient(table["patient_id"], SHARES, options.seed))
    frame, findings = _frame(table, options.min_positives)
    notes = (*unusable, *unlabelled, *excluded, *views, *missing)
    return Imported(frame, root, _choices(options, findings), notes)


def _read(root: Path) -> pl.DataFrame:
    patterns = ["PADCHEST_chest_x_ray_images_labels*.csv.gz", "PADCHEST_chest_x_ray_images_labels*.csv"]
    table = read_source(find_file(root, patterns, _PAGE), _PAGE, list(_COLUMNS), optional=list(_OPTIONAL))
    table = table.rename({**_COLUMNS, **_OPTIONAL}, strict=False)
    table = table.with_columns(
        pl.lit(None, pl.String).alias(name) for name in set(_OPTIONAL.values()) - {*table.columns}
    )
    return table.with_columns(
        pl.col("folder").str.extract(r"^([0-9]{1,3})(?:\.0)?$"), pl.col("name").str.extract(r"^([^/\\]+)$")
    )


def _usable(table: pl.DataFrame, options: Options) -> tuple[pl.DataFrame, list[str]]:
    """Leave rows out that name no image of a patient, name one again, or were labelled in a way not asked for."""
    named = pl.all_horizontal(pl.col("name", "folder", "patient_id").is_not_null())
    table, nameless = keep(table, named, "have no usable name, folder or patient")
    table, again = keep(table, pl.col("name").is_first_distinct(), "stand on an earlier line too")
    by_hand = pl.col("method") == "Physician" if options.labels == "physician" else pl.lit(True)
    table, mined = keep(table, by_hand, "were not labelled by a physician")
    return table, [*nameless, *again, *mined]


def _labelled(table: pl.DataFrame, root: Path) -> tuple[pl.DataFrame, list[str]]:
    """Make lists of the labels, and leave rows out whose labels do not say what the image shows."""
    blank = pl.col("labels").fill_null("nan").str.contains(r"^(nan|\[\s*\])$")
    table, unlabelled = keep(table, ~blank, "have no labels")
    lists = one_spelling(parse_label_lists(table["labels"]))
    if lists.null_count() > _UNREADABLE * table.height:
        first = table.filter(lists.is_null())["labels"][0]
        raise SourceError(
            f"{root}, column 'Labels': {lists.null_count():,} of {table.height:,} are no list of labels, "
            f"first {first[:80]!r}. Expected: ['normal', ...]. Get the table again: {_PAGE}."
        )
    seen = lists.list.eval(pl.element().filter(~pl.element().is_in([_UNCHANGED, _EXCLUDE])))
    said = {name: lists.list.contains(name) for name in (_UNCHANGED, _EXCLUDE)}
    table = table.with_columns(seen.alias("labels"), **said)
    table, broken = keep(table, pl.col("labels").is_not_null(), "have labels that are no list")
    table, excluded = keep(table, ~pl.col(_EXCLUDE), 'are labelled "exclude"')
    table, empty = keep(table, pl.col("labels").list.len() > 0, 'are labelled "unchanged" and nothing else')
    return table, [*unlabelled, *broken, *excluded, *empty]


def _find_images(table: pl.DataFrame, root: Path, options: Options) -> tuple[pl.DataFrame, list[str]]:
    """Add ``image``, in the numbered folders if there are any, and leave rows out whose image is not there."""
    nested = any((root / folder).is_dir() for folder in table["folder"].unique())
    table = table.with_columns(
        pl.format("{}/{}", "folder", "name").alias("image") if nested else pl.col("name").alias("image")
    )
    return keep_present(table, list_images(root, folders_of(table)), root, options, _PAGE)


def _frame(table: pl.DataFrame, least: int) -> tuple[pl.DataFrame, int]:
    """Return the manifest's columns, and how many findings at least so many training images show."""
    findings = frequent_labels(table.filter(pl.col("split") == "train")["labels"], least)
    if not findings:
        raise SourceError(
            f"PadChest, column 'Labels': no finding is shown by {least} training images or more. "
            "Ask for fewer with --min-positives."
        )
    taken, born = (pl.col(name).str.extract(r"^([0-9]{4})").cast(pl.Int64) for name in ("taken", "born"))
    table = table.with_columns((taken - born).cast(pl.String).alias("years"))
    labels = listed_labels(pl.col("labels"), findings, complete=~pl.col(_UNCHANGED))
    about = ("image", "patient_id", "split", "view", sex_letter("sex"), age_in_years("years"), "study_id")
    return table.select(*about, *labels), len(findings)


def _choices(options: Options, findings: int) -> dict[str, str]:
    return {
        "adapter": "padchest",
        "labels": "by physicians" if options.labels == "physician" else "by physicians, or mined from reports",
        "findings": f"the {findings} that at least {options.min_positives} training images show",
        "uncertain": "none in this set",
        "not_mentioned": 'negative, since reports were labelled as a whole; blank where a report says "unchanged"',
        "views": options.views,
        "split": say_shares(SHARES, options.seed),
        **say_missing(options),
    }
