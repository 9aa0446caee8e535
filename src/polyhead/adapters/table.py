"""Any hospital's own table, by a map of its columns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl

from polyhead.adapters.cells import LINE, label_findings, refuse_cells
from polyhead.adapters.column_map import ColumnMap, plain
from polyhead.adapters.headers import add_headers
from polyhead.adapters.images import folders_of, keep_present, list_images, say_missing
from polyhead.adapters.imported import Imported, Options
from polyhead.adapters.rows import keep_frontal
from polyhead.adapters.splits import SHARES, carve_validation, say_shares, say_validation, split_by_patient
from polyhead.adapters.table_choices import say_findings, say_map
from polyhead.adapters.table_columns import choose_findings, find_table, resolve_columns
from polyhead.errors import SourceError
from polyhead.manifest import RESERVED_COLUMNS, SPLITS
from polyhead.manifest_rules import OUTSIDE
from polyhead.tables import read_text_table

__all__ = ["import_table"]

_NO_VIEW = "No column says which views these are: all are kept, lateral ones too. Name it in the map: view = ..."


@dataclass(frozen=True)
class _Where:
    """The table's file, and what it calls the reserved columns."""

    path: Path
    names: Mapping[str, str]


def import_table(
    root: Path, options: Options, columns: ColumnMap, progress: Callable[[int, int], None] | None = None
) -> Imported:
    """Import a hospital's own table.

    Without a column that says so, patients are dealt to splits by a hash of their id. A table with training and test
    but no validation gets that from the training patients.

    Parameters
    ----------
    root
        Folder of the table and the images, which lie in it or below it.
    options
        All apply but those that belong to one public set.
    columns
        What means what; see `polyhead.adapters.column_map`.
    progress
        Called with the numbers of files done and of all, where DICOM headers are read.

    Raises
    ------
    SourceError
        A column or a file is missing, or a cell is not understood: file, line, column and value.
    """
    path = find_table(root, columns)
    table = read_text_table(path, SourceError).with_row_index(LINE, offset=2)
    if not table.height:
        raise SourceError(f"{path}: has a header and no rows. At least one image is needed.")
    sources = resolve_columns(path, table.columns[1:], columns)
    findings, unused = choose_findings(path, table, sources, columns)
    rows = table.select(LINE, *(source.expression().alias(key) for key, source in sources.items()))
    where = _Where(path, {key: " + ".join(source.columns) for key, source in sources.items()})
    rows = _check_images(where, rows)
    rows, notes = _keep_rows(where, rows, root, options, columns, progress)
    _refuse(where, rows, "patient_id", pl.col("patient_id").is_null(), "names the patient", "Every image needs one.")
    rows, split, split_notes = _split(where, rows, options, columns)
    kept = table.filter(pl.col(LINE).is_in(rows[LINE].implode()))
    labels, label_notes = label_findings(path, kept, findings, options)
    reserved = rows.select(key for key in RESERVED_COLUMNS if key in rows.columns)
    said = say_map(columns, options, rows.columns, "split" in sources)
    choices = {**said, **say_missing(options), **split, **say_findings(columns, findings)}
    frame = pl.concat([reserved, labels], how="horizontal")
    return Imported(frame, root, choices, (*notes, *split_notes, *label_notes, *unused))


def _refuse(where: _Where, rows: pl.DataFrame, key: str, bad: pl.Expr, why: str, remedy: str) -> None:
    name = where.names.get(key, key)
    cells = rows.filter(bad).select(LINE, pl.lit(name).alias("column"), pl.col(key).alias("value"))
    refuse_cells(where.path, cells, why, remedy)


def _check_images(where: _Where, rows: pl.DataFrame) -> pl.DataFrame:
    """Refuse images that are not named, lie elsewhere, or are named twice; write Windows' paths with slashes."""
    image = pl.col("image")
    _refuse(where, rows, "image", image.is_null(), "names the image", "Every row needs one.")
    _refuse(where, rows, "image", image.str.contains(OUTSIDE), "leads out of ROOT", "Give paths below it.")
    rows = rows.with_columns(image.str.replace_all("\\", "/", literal=True))
    _refuse(where, rows, "image", ~image.is_first_distinct(), "stands on an earlier line too", "Keep one row an image.")
    return rows


def _say_missing_images(where: _Where, columns: ColumnMap, missing: pl.DataFrame) -> str:
    """Return what to do about images that are not on disk: more often than not, a path is not what it seems."""
    pattern = columns.columns.get("image")
    said = (
        f"{columns.path} has image = {pattern!r}" if pattern else "the map (--map) may have image = 'folder/{file}.png'"
    )
    return (
        f"The first is {where.path}, line {missing[LINE][0]}, column {where.names['image']!r}; {said}. "
        "Mend the pattern or the column, or bring the images"
    )


def _keep_rows(
    where: _Where,
    rows: pl.DataFrame,
    root: Path,
    options: Options,
    columns: ColumnMap,
    progress: Callable[[int, int], None] | None,
) -> tuple[pl.DataFrame, list[str]]:
    """Leave out what is not frontal or not on disk; read headers, where the map says so, of what is left."""
    notes: list[str] = []
    if "view" not in columns.from_dicom:
        rows, notes = _frontal(where, rows, options, columns)
    remedy = partial(_say_missing_images, where, columns)
    rows, missing = keep_present(rows, list_images(root, folders_of(rows)), root, options, remedy=remedy)
    notes += missing
    if columns.from_dicom:
        rows, unreadable = add_headers(where.path, rows, root, columns.from_dicom, options, progress)
        notes += unreadable
    if "view" in columns.from_dicom:
        rows, lateral = _frontal(where, rows, options, columns)
        notes += lateral
    return rows, notes


def _frontal(where: _Where, rows: pl.DataFrame, options: Options, columns: ColumnMap) -> tuple[pl.DataFrame, list[str]]:
    if options.views == "all":
        return rows, []
    if "view" not in rows.columns:
        return rows, [_NO_VIEW]
    frontal = [view for view in rows["view"].unique() if view and plain(view) in columns.frontal_views]
    if not frontal:
        remedy = "No image would be left. Say in the map which are (frontal_views), or import --views all."
        _refuse(where, rows, "view", pl.lit(True), "is no frontal view", remedy)
    return keep_frontal(rows, pl.col("view").is_in(frontal), options)


def _split(
    where: _Where, rows: pl.DataFrame, options: Options, columns: ColumnMap
) -> tuple[pl.DataFrame, dict[str, str], list[str]]:
    """Return the rows with their split, how it came about, and what a person should know of it."""
    if "split" not in rows.columns:
        return _deal(where, rows, options)
    meanings = {value: columns.split_values.get(plain(value or "")) for value in rows["split"].unique()}
    unknown = pl.col("split").replace_strict(meanings, return_dtype=pl.String).is_null()
    allowed = ", ".join(columns.split_values)
    remedy = f"Known spellings: {allowed}. Give others a meaning under [split_values] of the map (--map)."
    _refuse(where, rows, "split", unknown, "is no split", remedy)
    rows = rows.with_columns(pl.col("split").replace_strict(meanings, return_dtype=pl.String))
    if set(rows["split"]) != {"train", "test"}:
        return rows, {"split": "the table's", "validation": "the table's"}, []
    carved = carve_validation(rows, options.validation, options.seed)
    taken = f"Training images that became validation, which the table has not: {carved.filter(split='val').height:,}."
    choices = {"split": "the table's", "validation": say_validation(options.validation, options.seed)}
    return carved, choices, [taken]


def _deal(where: _Where, rows: pl.DataFrame, options: Options) -> tuple[pl.DataFrame, dict[str, str], list[str]]:
    dealt = rows.with_columns(split_by_patient(rows["patient_id"], SHARES, options.seed))
    patients = rows["patient_id"].n_unique()
    if dealt["split"].n_unique() < len(SPLITS):
        raise SourceError(
            f"{where.path}: {patients} patients are too few to be dealt to {', '.join(SPLITS)} by chance. Add a column "
            "with the split of each image."
        )
    return dealt, {"split": say_shares(SHARES, options.seed)}, []
