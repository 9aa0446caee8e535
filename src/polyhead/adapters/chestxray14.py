"""ChestX-ray14: one table, findings joined by ``|``, and two official lists of images."""

from pathlib import Path

import polars as pl

from polyhead.adapters.images import keep_present, list_images, say_missing
from polyhead.adapters.imported import Imported, Options
from polyhead.adapters.labels import listed_labels
from polyhead.adapters.rows import age_in_years, keep, keep_frontal, sex_letter
from polyhead.adapters.source_files import check_key, find_file, read_lines, read_source
from polyhead.adapters.splits import carve_validation, say_validation
from polyhead.errors import SourceError
from polyhead.findings import closest

__all__ = ["FINDINGS", "import_chestxray14"]

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "No Finding",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
"""The 14 findings and "No Finding", as the data set spells them."""

_PAGE = "NIH Clinical Center, ChestX-ray14 (NIHCC) download page"
_COLUMNS = {
    "Image Index": "name",
    "Finding Labels": "labels",
    "Patient ID": "patient_id",
    "Patient Age": "years",
    "View Position": "view",
}
_SEX = {"Patient Gender": "sex", "Patient Sex": "sex"}


def import_chestxray14(root: Path, options: Options) -> Imported:
    """Import ChestX-ray14 (Wang et al., CVPR 2017).

    A finding that is not listed is 0: the labels were mined from reports, and every image has all of them. The official
    test list is the test set; validation is carved from the patients of ``train_val_list.txt``.

    Parameters
    ----------
    root
        Folder with ``Data_Entry_2017*.csv``, the two lists, and the images in ``images/``, ``images_001/images/``, ...
    options
        Neither `uncertain` nor `not_mentioned` applies.

    Raises
    ------
    SourceError
        A file or column is missing, a finding is unknown, or images are missing.
    """
    path = find_file(root, ["Data_Entry_2017*.csv", "Data_Entry_2017*.csv.gz"], _PAGE)
    table = read_source(path, _PAGE, list(_COLUMNS), optional=list(_SEX), trailing_comma=True)
    table = table.rename({**_COLUMNS, **_SEX}, strict=False)
    check_key(table, ["name"], path)
    table = table.with_columns(_labels(table, path))
    table, nobodys = keep(_official_split(table, root), pl.col("patient_id").is_not_null(), "have no patient id")
    table, unlisted = keep(table, pl.col("split").is_not_null(), "are on neither official list")
    table, views = keep_frontal(table, pl.col("view").is_in(["AP", "PA"]), options)
    table, missing = _find_images(table, root, options)
    table = carve_validation(table, options.validation, options.seed)
    sex = [sex_letter("sex")] if "sex" in table.columns else []
    frame = table.select("image", "patient_id", "split", "view", *sex, age_in_years("years"), *FINDINGS)
    too_old = (frame["age"].is_null() & table["years"].is_not_null()).sum()
    ages = [f"Impossible ages left blank: {too_old:,}."] if too_old else []
    return Imported(frame, root, _choices(options), (*nobodys, *unlisted, *views, *missing, *ages))


def _labels(table: pl.DataFrame, path: Path) -> list[pl.Expr]:
    lists = table["labels"].str.split("|").list.eval(pl.element().str.strip_chars())
    names = lists.explode()
    unknown = names.filter(names.is_not_null() & ~names.is_in(FINDINGS))
    if unknown.len():
        raise SourceError(
            f"{path}, column 'Finding Labels': {unknown[0]!r} is none of the 14 findings ({unknown.len()} such); "
            f"{closest(unknown[0], FINDINGS)}."
        )
    if lists.null_count():
        line = int(lists.is_null().arg_max() or 0) + 2
        raise SourceError(f"{path}, line {line}, column 'Finding Labels': blank. The published table has no blank.")
    return listed_labels(pl.lit(lists), FINDINGS)


def _official_split(table: pl.DataFrame, root: Path) -> pl.DataFrame:
    """Add ``split``: train, test, or null for an image that is on neither list."""
    train, test = (
        read_lines(find_file(root, [name], _PAGE), _PAGE).unique() for name in ("train_val_list.txt", "test_list.txt")
    )
    both = train.filter(train.is_in(test.implode()))
    if both.len():
        raise SourceError(
            f"{root}: {both.len()} images are on both official lists, first {both.sort()[0]}. Get them again."
        )
    name = pl.col("name")
    split = pl.when(name.is_in(train.implode())).then(pl.lit("train")).when(name.is_in(test.implode()))
    return table.with_columns(split.then(pl.lit("test")).alias("split"))


def _find_images(table: pl.DataFrame, root: Path, options: Options) -> tuple[pl.DataFrame, list[str]]:
    """Add ``image``, whichever of the archives' folders holds it, and leave rows out whose image is not there."""
    tops = sorted(path.name for path in root.glob("images*") if path.is_dir())
    listing = list_images(root, [folder for top in tops for folder in (top, f"{top}/images")])
    places = listing.unique("name", keep="first", maintain_order=True).select("name", "image")
    table = table.join(places, on="name", how="left", maintain_order="left")
    table = table.with_columns(pl.col("image").fill_null(pl.format("images/{}", "name")))
    return keep_present(table, listing, root, options, _PAGE)


def _choices(options: Options) -> dict[str, str]:
    return {
        "adapter": "chestxray14",
        "labels": "mined from reports; a finding that is not listed is 0",
        "uncertain": "none in this set",
        "not_mentioned": "none in this set",
        "views": options.views,
        "split": "official test list",
        "validation": say_validation(options.validation, options.seed),
        **say_missing(options),
    }
