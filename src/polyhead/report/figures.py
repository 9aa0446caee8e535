"""The report's figures, filled with the numbers of a run."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from statistics import fmean

import polars as pl

from polyhead.report.load import MEAN, OVERALL, Estimate, RunTables
from polyhead.report.plots import (
    Curve,
    Dots,
    ForestRow,
    dot_plot,
    forest_plot,
    method_styles,
    roc_plot,
    training_plot,
)
from polyhead.report.roc import roc_curves
from polyhead.report.wording import NOT_AVAILABLE, compared, directions, interval, whole

__all__ = ["auroc_figures", "forest_figures", "roc_figures", "training_figures"]

_FOREST_ROWS = 32  # about a printed page
_CURVE_POINTS = 160


def forest_figures(run: RunTables) -> list[dict[str, object]]:
    """Return the main figure: for each group of sites one panel a reference, all on the same axis."""
    subject, references = compared(run)
    limit = _limit(row for reference in references for site in run.sites for row in _forest(run, reference, site))
    groups: list[dict[str, object]] = []
    for sites in _groups(run):
        panels = []
        for reference in references:
            rows = list(chain.from_iterable(_forest(run, reference, site) for site in sites))
            title = f"{subject} minus {reference}"
            alt = f"Forest plot: difference in AUROC, {title}, at {', '.join(sites)}; numbers in the table below."
            panels.append({"title": title, "svg": forest_plot(rows, directions(subject, reference), limit, alt)})
        groups.append({"sites": ", ".join(sites), "panels": panels})
    return groups if references else []


def auroc_figures(run: RunTables) -> list[dict[str, str]]:
    """Return a dot plot of AUROC for each site, all on the same axis."""
    rows = {site: [_dots(run, site, finding) for finding in (*run.findings[site], MEAN)] for site in run.sites}
    values = [value for dots in chain.from_iterable(rows.values()) for _, *three in dots.values for value in three]
    low, high = min([*values, 0.5]), max([*values, 0.9])
    limits = (max(0.0, low - 0.02), min(1.005, high + 0.02))
    return [
        {"title": site, "svg": dot_plot(rows[site], method_styles(run.methods), limits, f"AUROC by method at {site}.")}
        for site in run.sites
        if site not in run.silent
    ]


def roc_figures(run: RunTables) -> list[dict[str, object]]:
    """Return, for each site, a figure of ROC curves for each finding; None where no curve can be drawn.

    Of hospitals in houses of their own there are none: predictions stay there.
    """
    if run.at_home:
        return []
    styles = method_styles(run.methods)
    return [
        {
            "site": site,
            "panels": [
                {
                    "title": finding,
                    "svg": roc_plot(curves, styles, f"ROC curves: {finding} at {site}.") if curves else None,
                }
                for finding, curves in roc_curves(run, site).items()
            ],
        }
        for site in run.sites
    ]


def training_figures(run: RunTables) -> list[dict[str, str]]:
    """Return the training curves of each site."""
    return [
        {"title": site, "svg": training_plot(curves, method_styles(run.methods), f"Training loss by round at {site}.")}
        for site in (*run.sites, *run.pools)
        if (curves := list(_training(run, site)))
    ]


def _groups(run: RunTables) -> list[list[str]]:
    """Put as many sites into one figure as fit on a page."""
    groups: list[list[str]] = []
    free = 0
    for site in run.sites:
        rows = len(run.findings[site]) + 2
        if rows > free:
            groups.append([])
            free = _FOREST_ROWS
        groups[-1].append(site)
        free -= rows
    return groups


def _forest(run: RunTables, reference: str, site: str) -> Iterator[ForestRow]:
    yield ForestRow(site, heading=True)
    for finding in (*run.findings[site], MEAN):
        yield _forest_row(run, reference, site, finding)


def _forest_row(run: RunTables, reference: str, site: str, finding: str) -> ForestRow:
    subject, _ = compared(run)
    strong = finding == MEAN
    count = "" if strong else _positives(run, subject, site, finding)
    result = run.comparisons.get((subject, reference, site, finding))
    label = "mean over findings" if strong else finding
    if result is None or result.difference is None:
        return ForestRow(label, count, NOT_AVAILABLE if result else "not compared", strong=strong)
    seeds = tuple(_seed_differences(run, subject, reference, site, finding))
    text = interval(result).replace(" to ", ", ")
    return ForestRow(label, count, text, result.difference, result.low, result.high, seeds, strong)


def _positives(run: RunTables, method: str, site: str, finding: str) -> str:
    estimate = run.metric(method, OVERALL, site, finding, "auroc")
    return whole(estimate.positives) if estimate else ""


def _seed_differences(run: RunTables, subject: str, reference: str, site: str, finding: str) -> Iterator[float]:
    """Yield the difference within each seed; for the mean, over the findings that both methods predict."""
    findings = run.findings[site] if finding == MEAN else (finding,)
    for seed in run.seeds:
        pairs = [[_auroc(run, method, seed, site, one) for method in (subject, reference)] for one in findings]
        found = [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
        if found:
            yield fmean(found)


def _auroc(run: RunTables, method: str, seed: str, site: str, finding: str) -> float | None:
    estimate = run.metric(method, seed, site, finding, "auroc")
    return estimate.value if estimate else None


def _limit(rows: Iterable[ForestRow]) -> float:
    values = [value for row in rows for value in (row.difference, row.low, row.high, *row.seeds) if value is not None]
    return 1.06 * max([abs(value) for value in values], default=0.1) or 0.1


def _dots(run: RunTables, site: str, finding: str) -> Dots:
    """Return a line of the AUROC figure; side by side, means over different findings would mislead."""
    methods: Sequence[str] = run.methods
    if finding == MEAN:
        counts = [run.averaged(method, site) for method in methods]
        methods = [method for method, count in zip(methods, counts, strict=True) if count == max(counts)]
    found = [(method, run.metric(method, OVERALL, site, finding, "auroc")) for method in methods]
    values = tuple(_dot(method, one) for method, one in found if one is not None and one.value is not None)
    return Dots("mean over findings" if finding == MEAN else finding, values, finding == MEAN)


def _dot(method: str, estimate: Estimate) -> tuple[str, float, float, float]:
    value = estimate.value or 0.0
    low, high = (value if end is None else end for end in (estimate.low, estimate.high))
    return method, value, low, high


def _training(run: RunTables, site: str) -> Iterator[Curve]:
    federated = pl.col("round") < run.study.federation.rounds  # what comes after is fine-tuning
    table = run.rounds.filter((pl.col("site") == site) & pl.col("loss").is_not_null() & federated)
    for method in run.methods:
        for seed in run.seeds:
            one = table.filter((pl.col("method") == method) & (pl.col("seed") == seed))
            if len(one):
                yield Curve(method, *_thinned(one))


def _thinned(rounds: pl.DataFrame) -> tuple[Sequence[float], Sequence[float]]:
    """Return rounds and losses, in a long training the means of neighbouring rounds."""
    rounds = rounds.sort("round", "loss")
    step = -(-rounds["round"].n_unique() // _CURVE_POINTS)
    place = ((pl.col("round").rank("dense") - 1) // step).alias("place")
    means = rounds.group_by(place, maintain_order=True).agg(pl.col("round", "loss").mean())
    return means["round"].to_list(), means["loss"].to_list()
