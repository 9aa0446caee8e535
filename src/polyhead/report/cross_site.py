"""Released heads on the test images of other sites: for each finding a line a head, and a column a site."""

from typing import Any

import polars as pl

from polyhead.findings import name_at_site
from polyhead.report.load import OVERALL, Comparison, Estimate, RunTables
from polyhead.report.wording import interval, whole

__all__ = ["cross_site_tables"]

Row = dict[str, Any]
_Cells = dict[tuple[str, str, str], Row]

# From which AUROC on a cell is of the next darker shade; below the first it has none.
_SHADES = (0.6, 0.7, 0.8, 0.9)


def cross_site_tables(run: RunTables) -> list[Row]:
    """Return a table for each method whose heads were released: findings by canonical name, heads, and sites' cells.

    A cell is None where the site has no annotated test image of the finding.
    """
    if run.cross_site.is_empty():
        return []
    overall = run.cross_site.filter(pl.col("seed") == OVERALL)
    parts = {method: overall.filter(pl.col("method") == method) for method in run.methods}
    return [_table(run, method, part) for method, part in parts.items() if len(part)]


def _table(run: RunTables, method: str, rows: pl.DataFrame) -> Row:
    learned = _learned(run)
    cells: _Cells = {
        (row["finding"], row["head_site"], row["data_site"]): _cell(row, (row["finding"], row["data_site"]) in learned)
        for row in rows.to_dicts()
    }
    heads = {(finding, head) for finding, head, _ in cells}
    cells |= _at_home(run, method, heads)
    agreed = {site.name for site in run.study.site if site.release_head}
    groups = []
    for finding in sorted({finding for finding, _ in heads}):
        lines = [
            {"head": head, "cells": [cells.get((finding, head, site)) for site in run.sites]}
            for head in run.sites
            if (finding, head) in heads
        ]
        groups.append({"finding": finding, "rows": lines})
    untested = sorted(name_at_site(finding, site) for finding, site in learned - heads if site in agreed)
    return {"method": method, "groups": groups, "untested": untested}


def _learned(run: RunTables) -> set[tuple[str, str]]:
    """Return canonical name and site of every row of a head that could learn: training images with, and without."""
    both = (pl.col("split") == "train") & (pl.col("positives") > 0) & (pl.col("negatives") > 0)
    return set(run.counts.filter(both).select("canonical", "site").rows())


def _cell(row: Row, trained: bool) -> Row:
    # Not by whether there is an `own`: test images of one class have none, a row that learned nothing has one.
    found = Estimate(*(row[name] for name in ("auroc", "low", "high", "positives", "negatives", "patients")))
    gap = Comparison(row["difference"], row["difference_low"], row["difference_high"], p=None, p_holm=None)
    return _shown(found) | {"trained": trained, "gap": interval(gap)}


def _at_home(run: RunTables, method: str, heads: set[tuple[str, str]]) -> _Cells:
    """Return the heads' results on the test images of the sites that trained them."""
    cells: _Cells = {}
    for site, finding, canonical in run.counts.select("site", "finding", "canonical").unique().rows():
        found = run.metric(method, OVERALL, site, finding, "auroc")
        if found and (canonical, site) in heads:
            cells[canonical, site, site] = _shown(found) | {"home": True}
    return cells


def _shown(found: Estimate) -> Row:
    value = found.value
    shade = sum(value is not None and value >= least for least in _SHADES)
    counts = f"{whole(found.positives)} with, {whole(found.negatives)} without"
    return {"text": interval(found), "counts": counts, "shade": shade, "home": False}
