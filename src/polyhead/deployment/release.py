"""What of a site's results may leave its house: its own policy, and the filter that keeps to it.

A finding that too few patients have, or lack, in the test images is not sent at all; nor is anything computed from it.
Ten images of one patient are one patient. Counts of the others are rounded, and metrics too: from all digits of an
AUROC one could work out the exact counts.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from polyhead.deployment.own_table import own_table
from polyhead.errors import StudyError, UpdateError
from polyhead.evaluation import ALL_SEEDS, MEAN
from polyhead.toml_file import read_toml

__all__ = [
    "Policy",
    "Release",
    "filter_tables",
    "of_few_patients",
    "policy_in",
    "policy_words",
    "read_policy",
    "read_release",
    "withheld",
]

_DIGITS = 4
_MOST_ROWS = 30_000  # of a record's line, which holds them all, less than it may have
_LONGEST = 200
_ALLOWED = ("auroc", "nothing")
_TEXT, _NUMBERS = ("method", "seed", "reference", "finding"), ("value", "difference", "low", "high", "p", "p_holm")
_COUNTS = ("positives", "negatives", "patients")
_METRICS = ("method", "seed", "finding", "value", "low", "high", *_COUNTS)
_COMPARISONS = ("method", "reference", "finding", "difference", "low", "high", "p", "p_holm")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Policy:
    """What a site lets out of its house; ``[release]`` of its own file.

    Attributes
    ----------
    metrics
        ``auroc``: AUROCs with their intervals, differences with theirs, rounded counts; or ``nothing``.
    least
        A finding leaves only if at least so many patients have it in the test images, and so many others lack it;
        counts are rounded to multiples of it.
    """

    metrics: str = "auroc"
    least: int = 10


@dataclass(frozen=True)
class Release:
    """All that leaves a site of its results: rows with exactly the keys of `read_release`; none if it says nothing."""

    metrics: tuple[Row, ...] = ()
    comparisons: tuple[Row, ...] = ()


def read_policy(site_file: Path) -> Policy:
    """Read the policy in a site's own file.

    Raises
    ------
    StudyError
        If it is none.
    """
    return policy_in(read_toml(site_file, StudyError), str(site_file))


def policy_in(settings: Mapping[str, Any], source: str) -> Policy:
    """Return the policy among a site's own settings; errors name `source`."""
    table = own_table(settings, "release", ("metrics", "least"), source)
    metrics, least = table.get("metrics", "auroc"), table.get("least", 10)
    if metrics not in _ALLOWED:
        raise StudyError(f"{source}: key 'release.metrics': found {metrics!r}; allowed are {', '.join(_ALLOWED)}.")
    if not isinstance(least, int) or isinstance(least, bool) or not 1 <= least <= 1_000_000:
        raise StudyError(f"{source}: key 'release.least': found {least!r}; allowed: whole numbers, 1 to 1000000.")
    return Policy(metrics, least)


def policy_words(policy: Policy) -> str:
    """Say to a person what a policy lets out."""
    if policy.metrics == "nothing":
        return "No result leaves this house."
    return (
        "Of the results leave: names of findings, AUROCs and differences between methods with intervals and p-values, "
        f"and counts rounded to multiples of {policy.least}. A finding stays here if fewer than {policy.least} "
        "patients have it in the test images, or fewer others lack it."
    )


def of_few_patients(tests: Iterable[pl.DataFrame], policy: Policy) -> set[str]:
    """Return the findings that too few patients have, or lack, in the test images: nothing of them may leave.

    A patient with the finding on one image has it; who lacks it has images annotated for it, and it is on none.

    Parameters
    ----------
    tests
        Predictions on test images, with the columns of `polyhead.predictions.COLUMNS`.
    """
    hidden: set[str] = set()
    for test in tests:
        patients = test.drop_nulls("label").group_by("finding", "patient_id").agg(pl.col("label").max())
        counts = patients.group_by("finding").agg(have=(pl.col("label") == 1).sum(), lack=(pl.col("label") == 0).sum())
        enough = counts.filter(pl.min_horizontal("have", "lack") >= policy.least)
        hidden |= {*test["finding"]} - {*enough["finding"]}
    return hidden


def withheld(metrics: pl.DataFrame, policy: Policy) -> set[str]:
    """Return the findings of a site's ``metrics.csv`` whose images alone are too few; see `of_few_patients`."""
    findings = metrics.filter((pl.col("metric") == "auroc") & (pl.col("finding") != MEAN))
    few = pl.min_horizontal(*(pl.col(count).fill_null(0) for count in _COUNTS)) < policy.least
    return set(findings.filter(few)["finding"])


def filter_tables(metrics: pl.DataFrame, comparisons: pl.DataFrame, policy: Policy) -> Release:
    """Return what may leave of a site's ``metrics.csv`` and ``comparisons.csv``, less findings of too few patients.

    Means and corrected p-values are of all findings: where one is withheld they are left out. To have them, evaluate
    the others alone.
    """
    if policy.metrics == "nothing":
        return Release()
    hidden = withheld(metrics, policy)
    shown = (pl.col("metric") == "auroc") & ~pl.col("finding").is_in(hidden)
    # A mean names no finding, but with all but one of them at hand it tells that one.
    shown &= (pl.col("finding") != MEAN) if hidden else pl.lit(True)
    enough = (pl.col("finding") != MEAN) | (pl.col("patients").fill_null(0) >= policy.least)
    rows = [_rounded(row, policy.least) for row in metrics.filter(shown & enough).select(_METRICS).to_dicts()]
    known = {row["finding"] for row in rows}
    found = comparisons.filter(shown & pl.col("finding").is_in(known)).select(_COMPARISONS).to_dicts()
    return Release(
        tuple(rows), tuple(_rounded(row | ({"p_holm": None} if hidden else {}), policy.least) for row in found)
    )


def read_release(body: Mapping[str, object], methods: Sequence[str], seeds: Sequence[int]) -> Release:
    """Check what a site sends, or sent, key by key and value by value; nothing else may be in it.

    Raises
    ------
    UpdateError
        If it is anything else.
    """
    if sum(len(rows) for rows in body.values() if isinstance(rows, list)) > _MOST_ROWS:
        raise UpdateError(f"what it sent are no results: more than {_MOST_ROWS:,} rows.")
    allowed = {"method": set(methods), "reference": set(methods), "seed": {ALL_SEEDS, *map(str, seeds)}}
    return Release(
        _checked(body.get("metrics"), _METRICS, allowed), _checked(body.get("comparisons"), _COMPARISONS, allowed)
    )


def _rounded(row: Mapping[str, Any], least: int) -> dict[str, Any]:
    rounded = dict(row)
    for name in _NUMBERS:
        if isinstance(value := rounded.get(name), float):
            rounded[name] = round(value, _DIGITS) if math.isfinite(value) else None
    for name in _COUNTS:
        if name in rounded:
            # A mean's images are summed over findings: no count of anything.
            rounded[name] = None if row["finding"] == MEAN and name != "patients" else _multiple(row[name], least)
    return rounded


def _multiple(count: int, least: int) -> int:
    return least * round(count / least)


def _checked(rows: object, columns: Sequence[str], allowed: Mapping[str, set[str]]) -> tuple[Row, ...]:
    if not isinstance(rows, list):
        raise UpdateError("what it sent are no results: a list of rows is wanted.")
    for row in rows:
        if not isinstance(row, dict) or row.keys() != set(columns):
            raise UpdateError(f"what it sent are no results: a row holds {', '.join(columns)}, and nothing else.")
        for name in columns:
            if not _fits(name, row[name], allowed):
                raise UpdateError(f"what it sent are no results: column {name!r} holds what it may not.")
    if len({tuple(row[name] for name in columns if name in _TEXT) for row in rows}) < len(rows):
        raise UpdateError("what it sent are no results: a row stands there twice.")
    return tuple(rows)


def _fits(name: str, value: object, allowed: Mapping[str, set[str]]) -> bool:
    if name in allowed:
        return isinstance(value, str) and value in allowed[name]
    if name == "finding":
        # A spreadsheet would run a name that begins like a formula, and a terminal obeys control characters.
        return isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isprintable() and value[0].isalnum()
    if value is None:
        return True
    if name in _COUNTS:
        return type(value) is int and 0 <= value < 2**53
    return type(value) is float and -1 <= value <= 1
