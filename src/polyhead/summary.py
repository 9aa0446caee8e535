"""A run's outcome as two small tables for the terminal; findings one by one are in the CSVs and the report."""

from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from polyhead.evaluation import ALL_SEEDS, COMPARISONS, MEAN, METRICS

__all__ = ["print_summary"]

Row = dict[str, Any]


def print_summary(run: Path, console: Console) -> None:
    """Print the macro means of ``metrics.csv`` and ``comparisons.csv``: a line a site and method, and a difference."""
    about_mean = (pl.col("metric") == "auroc") & (pl.col("finding") == MEAN)
    metrics = pl.read_csv(run / "metrics.csv", schema=METRICS, glob=False)
    table = _table("Mean test AUROC over each method's own findings", "site", "method", "AUROC [95 %]", "patients")
    for row in (
        metrics.filter(about_mean & (pl.col("seed") == ALL_SEEDS))
        .sort("site", maintain_order=True)
        .iter_rows(named=True)
    ):
        _add(table, row["site"], row["method"], _interval(row, "value", "{:.3f}"), row["patients"])
    console.print(table)
    comparisons = pl.read_csv(run / "comparisons.csv", schema=COMPARISONS, glob=False)
    table = _table(
        "Difference over the findings of both, paired by patient", "site", "methods", "difference [95 %]", "p"
    )
    for row in comparisons.filter(about_mean).sort("site", maintain_order=True).iter_rows(named=True):
        p = "NA" if row["p"] is None else f"{row['p']:.3f}"
        _add(table, row["site"], f"{row['method']} - {row['reference']}", _interval(row, "difference", "{:+.3f}"), p)
    if table.row_count:
        console.print(table)


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left")


def _add(table: Table, *cells: object) -> None:
    # As Text, so that square brackets in a name are not read as markup.
    table.add_row(*(Text(str(cell)) for cell in cells))


def _interval(row: Row, key: str, form: str) -> str:
    if row[key] is None:
        return "NA"
    return f"{form.format(row[key])} [{form.format(row['low'])}, {form.format(row['high'])}]"
