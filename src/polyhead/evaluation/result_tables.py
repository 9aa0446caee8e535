"""The two tables that evaluation leaves behind; what their rows mean is told in `polyhead.evaluation.evaluate`."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import polars as pl

from polyhead.atomic import write_atomically
from polyhead.evaluation.bootstrap import Estimate, estimate
from polyhead.evaluation.compare import holm, paired_comparison
from polyhead.evaluation.measure import MEAN, Results, mean_over_findings

__all__ = ["COMPARISONS", "METRICS", "Row", "comparison_rows", "make_table", "metric_rows", "write_table"]

_TEXT, _COUNT, _NUMBER = pl.String(), pl.Int64(), pl.Float64()

METRICS: dict[str, pl.DataType] = {
    **dict.fromkeys(("method", "seed", "site", "finding", "metric"), _TEXT),
    **dict.fromkeys(("value", "low", "high"), _NUMBER),
    **dict.fromkeys(("positives", "negatives", "patients", "replicates_used"), _COUNT),
}

COMPARISONS: dict[str, pl.DataType] = {
    **dict.fromkeys(("method", "reference", "site", "finding", "metric"), _TEXT),
    **dict.fromkeys(("difference", "low", "high", "p", "p_holm"), _NUMBER),
    "replicates_used": _COUNT,
}

Row = tuple[str | int | float, ...]


def metric_rows(method: str, seed: str, site: str, results: Results) -> list[Row]:
    """Return the rows of `METRICS` of one model, or of several seeds together, and their mean over the findings."""
    rows: list[Row] = []
    for finding, metrics in (results | {MEAN: {"auroc": mean_over_findings(results)}}).items():
        for metric, measured in metrics.items():
            found = estimate(measured.draws)
            counts = measured.positives, measured.negatives, len(measured.patients), found.used
            rows.append((method, seed, site, finding, metric, *_numbers(found), *counts))
    return rows


def comparison_rows(methods: dict[str, Results], site: str) -> list[Row]:
    """Return the rows of `COMPARISONS` of a site: each method against every one before it.

    Parameters
    ----------
    methods
        Each method's results, its seeds together.
    site
        The site's name.
    """
    rows: list[Row] = []
    for reference, method in combinations(methods, 2):
        rows += [(method, reference, site, *row) for row in _compare(methods[method], methods[reference])]
    return rows


def _compare(method: Results, reference: Results) -> list[Row]:
    shared = [finding for finding in method if finding in reference]
    ours, theirs = ({finding: results[finding] for finding in shared} for results in (method, reference))
    compared = [paired_comparison(ours[f]["auroc"].draws, theirs[f]["auroc"].draws) for f in shared]
    mean = paired_comparison(mean_over_findings(ours).draws, mean_over_findings(theirs).draws)
    corrected = [*holm([one.p for one in compared]), mean.p]
    return [
        (finding, "auroc", *_numbers(one.difference), one.p, p_holm, one.difference.used)
        for finding, one, p_holm in zip([*shared, MEAN], [*compared, mean], corrected, strict=True)
    ]


def _numbers(found: Estimate) -> tuple[float, float, float]:
    return found.value, found.low, found.high


def make_table(rows: Sequence[Row], columns: dict[str, pl.DataType]) -> pl.DataFrame:
    """Return rows as a table in which a number that is not defined is null."""
    table = pl.DataFrame(rows, schema=columns, orient="row")
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))


def write_table(table: pl.DataFrame, path: Path) -> None:
    """Write a table as CSV; whatever happens, the file is the old one or the new one, whole."""
    write_atomically(path, table.write_csv())
