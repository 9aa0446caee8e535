"""The files of a run that the report reads: text, JSON, and tables, whose columns and numbers are checked."""

from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from polyhead import json_file
from polyhead.errors import RunError
from polyhead.limited_file import read_limited

__all__ = ["AT_HOME", "COLUMNS", "command", "read_object", "read_table", "read_text"]

# Of each table the columns of text, which tell its rows apart, and those of numbers.
COLUMNS = {
    "sites.csv": ("site finding canonical split", "positives negatives blank images patients"),
    "rounds.csv": ("method seed site status", "round loss seconds bytes_up bytes_down"),
    "privacy.csv": ("site method", "seeds patients rate steps epsilon delta"),
    "metrics.csv": ("method seed site finding metric", "value low high positives negatives patients"),
    "cross_site.csv": (
        "method seed head_site data_site finding",
        "auroc low high positives negatives patients own difference difference_low difference_high",
    ),
    "comparisons.csv": ("method reference site finding metric", "difference low high p p_holm"),
}
AT_HOME = "at_home.json"  # only where hospitals in houses of their own trained
_EVALUATED = ("metrics.csv", "comparisons.csv", "cross_site.csv")
_MOST_BYTES = 2**24
_NOT_AVAILABLE = ("na", "nan", "null", "none")


def read_object(folder: Path, name: str) -> dict[str, Any]:
    """Read a file of JSON that holds one object.

    Raises
    ------
    RunError
        If it is missing, with the command that makes it; or holds anything else.
    """
    _require(folder, name)
    return json_file.read_object(folder / name, f"Remove it, then make it again: {command(name, folder)}")


def read_text(folder: Path, name: str) -> str:
    """Read a file of text.

    Raises
    ------
    RunError
        If it is missing, with the command that makes it; or no UTF-8.
    """
    _require(folder, name)
    raw = read_limited(folder / name, RunError, _MOST_BYTES)
    try:
        return raw.decode()
    except UnicodeDecodeError as problem:
        raise RunError(f"{folder / name}: cannot be read as UTF-8 text ({problem}).") from problem


def read_table(folder: Path, name: str) -> pl.DataFrame:
    """Read one of `COLUMNS`: those columns and no others, what is not available as null.

    Raises
    ------
    RunError
        As `read_text`; or if it is no such table, naming row and column.
    """
    _require(folder, name)
    try:
        table = pl.read_csv(folder / name, infer_schema=False, glob=False)
    except (OSError, PolarsError) as problem:
        raise RunError(f"{folder / name}: cannot be read as CSV ({problem}).") from problem
    text, numeric = (columns.split() for columns in COLUMNS[name])
    missing = [column for column in (*text, *numeric) if column not in table.columns]
    if missing:
        raise RunError(f"{folder / name}: no column {missing[0]!r}. Make the file again: {command(name, folder)}")
    for column in text:
        _refuse(folder / name, table[column], table[column].is_null(), "Allowed: any text")
    typed = table.select(*text, *(_as_number(folder / name, table[column]) for column in numeric))
    if name != "rounds.csv":  # the one table whose rows may repeat: a round that was taken up again
        key = [column for column in text if column != "canonical"]
        _refuse(folder / name, table[key[0]], table.select(key).is_duplicated(), f"One row for each {', '.join(key)}")
    return typed


def _as_number(path: Path, column: pl.Series) -> pl.Series:
    known = column.set(column.str.to_lowercase().is_in(_NOT_AVAILABLE), None)
    number = known.cast(pl.Float64, strict=False)
    _refuse(path, column, known.is_not_null() & ~number.is_finite().fill_null(False), "Allowed: finite numbers or NA")
    return number


def _refuse(path: Path, column: pl.Series, bad: pl.Series, allowed: str) -> None:
    if bad.any():
        row = bad.arg_true()[0]
        raise RunError(f"{path}, row {row + 1}, column {column.name!r}: {column[row]!r}. {allowed}.")


def _require(folder: Path, name: str) -> None:
    if not (folder / name).is_file():
        raise RunError(f"{folder / name}: missing. Make it: {command(name, folder)}")


def command(name: str, folder: Path) -> str:
    """Return the command that makes a file of a run."""
    if (folder / AT_HOME).exists():
        return f"polyhead federation start STUDY.toml ADMIN_KIT --out {folder}"
    return f"polyhead evaluate {folder}" if name in _EVALUATED else f"polyhead run STUDY.toml --out {folder}"
