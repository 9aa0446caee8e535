"""Rows that are left out, each with its count, and what a patient's columns are made of."""

import polars as pl

from polyhead.adapters.imported import Options
from polyhead.errors import SourceError

__all__ = ["age_in_years", "keep", "keep_frontal", "sex_letter"]

_OLDEST = 120


def keep(frame: pl.DataFrame, condition: pl.Expr, why: str) -> tuple[pl.DataFrame, list[str]]:
    """Return the rows that meet a condition (null does not), and a note on how many were left out, if any.

    Raises
    ------
    SourceError
        None does.
    """
    kept = frame.filter(condition.fill_null(False))
    left_out = frame.height - kept.height
    if not kept.height:
        raise SourceError(f"nothing to import: all {left_out:,} images {why}.")
    return kept, [f"Images left out because they {why}: {left_out:,}."] if left_out else []


def keep_frontal(frame: pl.DataFrame, frontal: pl.Expr, options: Options) -> tuple[pl.DataFrame, list[str]]:
    """Leave out what is not a frontal view, unless all views are asked for; a blank ``view`` is counted by itself."""
    if options.views == "all":
        return frame, []
    named, blank = keep(frame, pl.col("view").is_not_null(), "have no view position")
    kept, lateral = keep(named, frontal, "are not frontal views")
    return kept, blank + lateral


def sex_letter(column: str) -> pl.Expr:
    """Return ``M``, ``F`` or null from a column that writes ``M``, ``Male``, ``f``, ... , as ``sex``."""
    letter = pl.col(column).str.slice(0, 1).str.to_uppercase()
    return pl.when(letter.is_in(["M", "F"])).then(letter).alias("sex")


def age_in_years(column: str) -> pl.Expr:
    """Return whole years as text from ``"58"``, ``"058Y"``, ``"013M"`` or ``"5D"``; null above 120, as ``age``."""
    number = pl.col(column).str.extract(r"^([0-9]{1,6})(?:\.0)?[YMD]?$").cast(pl.Int64)
    unit = pl.col(column).str.extract(r"([MD])$")
    years = pl.when(unit == "M").then(number // 12).when(unit == "D").then(number // 365).otherwise(number)
    return pl.when(years <= _OLDEST).then(years).cast(pl.String).alias("age")
