"""The report's tables: rows of text, ready for the page."""

from collections.abc import Iterator
from typing import Any

import polars as pl

from polyhead.report.load import MEAN, OVERALL, Comparison, Estimate, RunTables
from polyhead.report.wording import (
    NOT_AVAILABLE,
    compared,
    difference,
    finding_verdict,
    interval,
    number,
    p_value,
    verdict,
    whole,
)

__all__ = [
    "auroc_table",
    "comparison_table",
    "count_table",
    "finding_matrix",
    "operating_table",
    "seed_table",
    "split_sizes",
]

Row = dict[str, Any]
_SPLITS = ("train", "val", "test")


def finding_matrix(run: RunTables) -> list[Row]:
    """Return a row for each finding by canonical name; for each site its training counts, or None.

    Findings that more sites annotate come first: what is shared is what there is to learn from each other directly.
    """
    training = run.counts.filter(pl.col("split") == "train")
    cells = {(row["canonical"], row["site"]): _counts(row) for row in training.to_dicts()}
    names = sorted({name for name, _ in cells})
    rows = [{"name": name, "cells": [cells.get((name, site)) for site in run.sites]} for name in names]
    for row in rows:
        row["sites"] = sum(cell is not None for cell in row["cells"])
    return sorted(rows, key=lambda row: -row["sites"])


def split_sizes(run: RunTables) -> list[Row]:
    """Return, for each split, the images and patients of each site."""
    largest = run.counts.group_by("site", "split").agg(pl.col("images", "patients").max())
    sizes = {(site, split): (whole(images), whole(patients)) for site, split, images, patients in largest.rows()}
    return [{"split": split, "cells": [sizes.get((site, split)) for site in run.sites]} for split in _SPLITS]


def count_table(run: RunTables) -> list[Row]:
    """Return, by site and finding, the counts of every split."""
    counts = {(row["site"], row["finding"], row["split"]): _counts(row) for row in run.counts.to_dicts()}
    return [
        {
            "site": site,
            "rows": [
                {"finding": finding, "splits": [counts.get((site, finding, split)) for split in _SPLITS]}
                for finding in run.findings[site]
            ],
        }
        for site in run.sites
    ]


def comparison_table(run: RunTables) -> list[Row]:
    """Return every comparison of the study: by method and reference, then site and finding."""
    pairs = {(method, reference) for method, reference, *_ in run.comparisons}
    subject, _ = compared(run)
    rank = {method: place for place, method in enumerate(run.methods)}
    last = len(rank)
    ordered = sorted(pairs, key=lambda p: (p[0] != subject, rank.get(p[0], last), rank.get(p[1], last), p))
    return [
        {"method": method, "reference": reference, "groups": list(_comparison_groups(run, method, reference))}
        for method, reference in ordered
    ]


def _comparison_groups(run: RunTables, method: str, reference: str) -> Iterator[Row]:
    for site in run.sites:
        keys = [(method, reference, site, finding) for finding in (*run.findings[site], MEAN)]
        rows = [_comparison_row(key[-1], run.comparisons[key]) for key in keys if key in run.comparisons]
        if rows:
            yield {"site": site, "rows": rows}


def _comparison_row(finding: str, result: Comparison) -> Row:
    judge = verdict if finding == MEAN else finding_verdict
    return {
        "finding": finding,
        "mean": finding == MEAN,
        "difference": difference(result.difference),
        "low": difference(result.low),
        "high": difference(result.high),
        "p": p_value(result.p),
        # Holm's correction is over findings; their mean is a question of its own.
        "p_holm": "" if finding == MEAN else p_value(result.p_holm),
        "verdict": judge(result) if result.difference is not None else NOT_AVAILABLE,
    }


def auroc_table(run: RunTables) -> list[Row]:
    """Return, by site and finding, each method's AUROC over all seeds."""
    return [
        {"site": site, "rows": [_auroc_row(run, site, finding) for finding in (*run.findings[site], MEAN)]}
        for site in run.sites
    ]


def _auroc_row(run: RunTables, site: str, finding: str) -> Row:
    found = [run.metric(method, OVERALL, site, finding, "auroc") for method in run.methods]
    known = next((one for one in reversed(found) if one), None)
    averaged = [run.averaged(method, site) if finding == MEAN else 0 for method in run.methods]
    return {
        "finding": finding,
        "mean": finding == MEAN,
        "positives": whole(known.positives) if known and finding != MEAN else "",
        "negatives": whole(known.negatives) if known and finding != MEAN else "",
        "patients": whole(known.patients) if known else NOT_AVAILABLE,
        "cells": [
            {"text": interval(one), "findings": count if count != max(averaged) else None} if one else None
            for one, count in zip(found, averaged, strict=True)
        ],
    }


def seed_table(run: RunTables) -> list[Row]:
    """Return, by site and finding, each method's AUROC seed by seed."""
    return [
        {
            "site": site,
            "rows": [
                {"finding": finding, "mean": finding == MEAN, "cells": _seed_cells(run, site, finding)}
                for finding in (*run.findings[site], MEAN)
            ],
        }
        for site in run.sites
    ]


def _seed_cells(run: RunTables, site: str, finding: str) -> list[list[str] | None]:
    found = [[run.metric(method, seed, site, finding, "auroc") for seed in run.seeds] for method in run.methods]
    return [[number(one.value) if one else "–" for one in seeds] if any(seeds) else None for seeds in found]


def operating_table(run: RunTables) -> list[Row]:
    """Return, by site, finding and method: the validation threshold, and what it does on the test patients."""
    return [{"site": site, "rows": list(_operating_rows(run, site))} for site in run.sites]


def _operating_rows(run: RunTables, site: str) -> Iterator[Row]:
    for finding in run.findings[site]:
        for method in run.methods:
            sensitivity = run.metric(method, OVERALL, site, finding, "sensitivity")
            specificity = run.metric(method, OVERALL, site, finding, "specificity")
            if sensitivity or specificity:
                yield {
                    "finding": finding,
                    "method": method,
                    "threshold": _threshold(run, method, site, finding),
                    "sensitivity": interval(sensitivity) if sensitivity else NOT_AVAILABLE,
                    "specificity": interval(specificity) if specificity else NOT_AVAILABLE,
                }


def _threshold(run: RunTables, method: str, site: str, finding: str) -> str:
    """Return the threshold; where the table has none over all seeds, those of the seeds."""
    overall = run.metric(method, OVERALL, site, finding, "threshold")
    if overall and overall.value is not None:
        return number(overall.value)
    found: list[Estimate | None] = [run.metric(method, seed, site, finding, "threshold") for seed in run.seeds]
    return ", ".join(number(one.value) for one in found if one and one.value is not None) or NOT_AVAILABLE


def _counts(row: Row) -> Row:
    shown = {name: whole(row[name]) for name in ("positives", "negatives", "blank")}
    return {"finding": row["finding"], **shown, "some_blank": bool(row["blank"])}
