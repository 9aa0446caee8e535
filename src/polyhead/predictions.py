"""Predictions: the table between training and evaluation.

A row is one image and finding: ``image``, ``patient_id``, ``finding`` (text), ``label`` (1, 0 or blank: not annotated)
and ``score`` (any finite number; higher means more likely present). Any program may write it; evaluation asks for
nothing else.
"""

import io
from pathlib import Path

import polars as pl
from polars.exceptions import PanicException, PolarsError

from polyhead.atomic import write_atomically
from polyhead.errors import PredictionsError
from polyhead.findings import closest
from polyhead.tables import read_text_table

__all__ = ["COLUMNS", "check_predictions", "read_predictions", "write_predictions"]

COLUMNS = {
    "image": pl.String(),
    "patient_id": pl.String(),
    "finding": pl.String(),
    "label": pl.Int8(),
    "score": pl.Float64(),
}


def read_predictions(path: Path) -> pl.DataFrame:
    """Read predictions from ``.parquet`` or delimited text, and check them.

    Returns
    -------
    polars.DataFrame
        The columns of `COLUMNS` with those types; ``label`` null where not annotated.

    Raises
    ------
    PredictionsError
        Naming file, row (data rows count from 1) and column.
    """
    if path.suffix != ".parquet":
        return check_predictions(read_text_table(path, PredictionsError), str(path))
    try:
        if path.exists() and not path.is_file():
            raise PredictionsError(f"{path}: is not a file. Name a table of predictions.")
        frame = pl.read_parquet(path, glob=False)
    except (OSError, PolarsError, PanicException) as problem:
        raise PredictionsError(
            f"{path}: cannot be read as parquet ({problem}). It is damaged or no table; write it again."
        ) from problem
    return check_predictions(frame, str(path))


def write_predictions(frame: pl.DataFrame, path: Path) -> None:
    """Check predictions and write them as parquet."""
    checked = check_predictions(frame, str(path))
    # Through memory: a library's own writing would not say how many bytes a full disk lacks.
    content = io.BytesIO()
    checked.write_parquet(content)
    write_atomically(path, content.getvalue())


def check_predictions(frame: pl.DataFrame, source: str) -> pl.DataFrame:
    """Return `frame` with the columns and types of `COLUMNS`, or raise `PredictionsError` naming `source` and row."""
    for column in COLUMNS:
        if column not in frame.columns:
            raise PredictionsError(f"{source}: no column {column!r}; {closest(column, frame.columns)}.")
    try:
        return _checked(frame, source)
    except PolarsError as problem:
        raise PredictionsError(f"{source}: a column has a type that cannot be used ({problem}).") from problem


def _checked(frame: pl.DataFrame, source: str) -> pl.DataFrame:
    for column in ("label", "score"):
        kind = frame[column].dtype
        if not (kind.is_numeric() or kind in (pl.String, pl.Boolean, pl.Null)):
            raise PredictionsError(f"{source}, column {column!r}: is of type {kind}. Allowed: numbers.")
    numbers = frame.select(
        pl.col("image", "patient_id", "finding").cast(pl.String),
        pl.col("label", "score").cast(pl.Float64, strict=False),
    )
    label, score = numbers["label"], numbers["score"]
    _refuse(source, "label", frame, (label.is_null() & frame["label"].is_not_null()) | ~label.is_in([0.0, 1.0]))
    _refuse(source, "score", frame, score.is_null() | ~score.is_finite())
    for column in ("image", "patient_id", "finding"):
        _refuse(source, column, frame, numbers[column].is_null())
    checked = numbers.with_columns(pl.col("label").cast(pl.Int8))
    _refuse(source, "finding", frame, ~checked.select(pl.struct("image", "finding").is_first_distinct()).to_series())
    return checked


_ALLOWED = {
    "label": "Allowed: 1, 0 or blank (not annotated)",
    "score": "Allowed: finite numbers",
    "image": "Allowed: any text",
    "patient_id": "Allowed: any text",
    "finding": "Allowed: any text, once for each image",
}


def _refuse(source: str, column: str, frame: pl.DataFrame, bad: pl.Series) -> None:
    if not bad.any():
        return
    row = bad.arg_true()[0]
    raise PredictionsError(f"{source}, row {row + 1}, column {column!r}: {frame[column][row]!r}. {_ALLOWED[column]}.")
