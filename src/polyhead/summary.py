"""A run's outcome as small tables for the terminal; findings one by one are in the CSVs and the report."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from polyhead.evaluation import ALL_SEEDS, COMPARISONS, CROSS_SITE, MEAN, METRICS

if TYPE_CHECKING:
    from polyhead.report.gain import Gain

__all__ = ["print_gains", "print_summary"]

Row = dict[str, Any]

_MOST_CROSS_SITE = 12


def print_summary(run: Path, console: Console) -> None:
    """Print the macro means of ``metrics.csv`` and ``comparisons.csv``: a line a site and method, and a difference.

    Where heads were released, a few lines of ``cross_site.csv``, too.
    """
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
    if (run / "cross_site.csv").exists():
        _print_cross_site(pl.read_csv(run / "cross_site.csv", schema=CROSS_SITE, glob=False), console)


def _print_cross_site(found: pl.DataFrame, console: Console) -> None:
    """Print how released heads do where others annotate their finding; first where nobody trained it, NA last."""
    unknown, trained = pl.col("auroc").is_null(), pl.col("own").is_not_null()
    found = found.filter(pl.col("seed") == ALL_SEEDS).sort(unknown, trained, maintain_order=True)
    title = "Released heads on other sites' test images: AUROC, and that of the site's own head"
    table = _table(title, "method", "finding", "head of", "on", "AUROC [95 %]", "own")
    for row in found.head(_MOST_CROSS_SITE).iter_rows(named=True):
        # Of test images of one class nothing is known, whether or not the site has a head of its own.
        own = "NA" if row["auroc"] is None else "-" if row["own"] is None else f"{row['own']:.3f}"
        _add(
            table,
            *(row["method"], row["finding"], row["head_site"], row["data_site"]),
            *(_interval(row, "auroc", "{:.3f}"), own),
        )
    if table.row_count:
        console.print(table)
    if len(found) > _MOST_CROSS_SITE:
        console.print(f"{len(found) - _MOST_CROSS_SITE} more are in cross_site.csv.")


def print_gains(run: Path, console: Console) -> None:
    """Print what each site gained by each federated method, at what cost: a line each, where the terminal is wide."""
    # Here: drawing a report takes matplotlib, which `polyhead evaluate` need not wait for.
    from polyhead.report.gain import gained_over, gains
    from polyhead.report.load import load_run

    tables = load_run(run)
    found, over, seeds = gains(tables), gained_over(tables), len(tables.seeds)
    if not found:
        console.print("What would my hospital gain? Nothing can be said: the study trains no federated method.")
        return
    table = _gain_table(found, over, seeds, wide=True)
    if console.measure(table, options=console.options.update(max_width=10_000)).maximum > console.width:
        table = _gain_table(found, over, seeds, wide=False)
    console.print(table)


def _gain_table(found: "Sequence[Gain]", over: Sequence[str], seeds: int, wide: bool) -> Table:
    """Return a table whose cells of several parts are on one line, or one below the other."""
    apart, listed = (" ", ", ") if wide else ("\n", "\n")
    title = "What would my hospital gain? Mean AUROC [95 %], verdict against training alone"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    cost = "cost" if seeds == 1 else f"cost of {seeds} seeds"
    for name in ("site", "verdict", *(f"over{apart}{one}" for one in over), cost):
        table.add_column(name)
    for one in found:
        gained = (text if wide else _below(text) for text in one.over)
        cost = listed.join((f"sent {one.sent}", f"received {one.received}", f"took {one.here} of {one.whole}"))
        _add(table, f"{one.site}{listed}{one.method}", one.verdict, *gained, cost)
    return table


def _below(interval: str) -> str:
    return interval.removesuffix(")").replace(" (", "\n").replace(" to ", "\nto ")


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left")


def _add(table: Table, *cells: object) -> None:
    # As Text, so that square brackets in a name are not read as markup.
    table.add_row(*(Text(str(cell)) for cell in cells))


def _interval(row: Row, key: str, form: str) -> str:
    if row[key] is None:
        return "NA"
    return f"{form.format(row[key])} [{form.format(row['low'])}, {form.format(row['high'])}]"
