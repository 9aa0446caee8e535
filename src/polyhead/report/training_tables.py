"""The report's tables on training: time, traffic, and rounds that did not go well."""

from typing import Any

import polars as pl

from polyhead.report.load import RunTables
from polyhead.report.wording import duration, number, size, whole

__all__ = ["setback_table", "traffic_table"]

Row = dict[str, Any]
_WENT_BADLY = ~pl.col("status").is_in(["averaged", "alone"])
# A status that has a reason is "KIND: REASON".
_KIND = pl.col("status").str.splitn(":", 2).struct.field("field_0")
_LONGEST = 300


def traffic_table(run: RunTables) -> list[Row]:
    """Return, by method and site, the time and the bytes of a round, and how many did not go well."""
    return [
        {"method": method, "site": site, **_traffic(rounds, run.study.federation.rounds)}
        for method in run.methods
        for site in (*run.sites, *run.pools)
        if len(rounds := run.rounds.filter((pl.col("method") == method) & (pl.col("site") == site)))
    ]


def _traffic(rows: pl.DataFrame, federated: int) -> Row:
    """Sum up; what comes after the federation's rounds is fine-tuning, which counts in the total time only."""
    # Sorted, so that the order of the file's rows cannot move the last digit of a sum.
    rounds = rows.sort(pl.all()).filter(pl.col("round") < federated)
    troubles = rounds.filter(_WENT_BADLY).select(_KIND.value_counts(sort=True).struct.unnest())
    return {
        "rounds": whole(rounds.n_unique(["seed", "round"])),
        "seconds": number(_mean(rounds["seconds"]), 2),
        "total": duration(float(rows["seconds"].sort().sum())),
        "up": size(_mean(rounds["bytes_up"])),
        "down": size(_mean(rounds["bytes_down"])),
        "troubles": ", ".join(f"{count} {kind}" for kind, count in sorted(troubles.rows())) or "none",
    }


def setback_table(run: RunTables) -> list[Row]:
    """Return, by method, seed and site, each kind of round that did not count as sent: how many, and the first."""
    bad = run.rounds.filter(_WENT_BADLY & pl.col("status").str.contains(":")).with_columns(_KIND.alias("kind"))
    # Of two reasons in one round, which a round that is repeated has, the order of the file's rows decides nothing.
    grouped = bad.sort("round", "status").group_by("method", "seed", "site", "kind", maintain_order=True)
    found = grouped.agg(pl.len().alias("count"), pl.col("round", "status").first()).to_dicts()
    rank = {method: place for place, method in enumerate(run.methods)}
    ordered = sorted(found, key=lambda row: (rank.get(row["method"], len(rank)), row["seed"], row["site"], row["kind"]))
    return [
        {**row, "count": whole(row["count"]), "round": whole(row["round"]), "status": row["status"][:_LONGEST]}
        for row in ordered
    ]


def _mean(values: pl.Series) -> float | None:
    mean = values.mean()
    return float(mean) if isinstance(mean, int | float) else None
