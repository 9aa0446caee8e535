"""Labels that are neither present nor absent: uncertain ones, and findings on which a source is silent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import polars as pl

from polyhead.errors import SourceError

__all__ = [
    "UNCERTAIN",
    "Policy",
    "apply_policies",
    "complete_no_finding",
    "listed_labels",
    "policy_value",
    "read_labels",
]

Policy = Literal["blank", "negative", "positive"]

UNCERTAIN = -1
"""How an adapter writes an uncertain label until `apply_policies` settles it; null is "not mentioned"."""

_VALUES = {text: value for value in (1, 0, UNCERTAIN) for text in (str(value), f"{value}.0")}


def policy_value(policy: Policy) -> int | None:
    """Return the label that a policy gives: None (blank), 0 or 1."""
    return {"blank": None, "negative": 0, "positive": 1}[policy]


def read_labels(frame: pl.DataFrame, findings: Sequence[str], path: Path) -> pl.DataFrame:
    """Turn labels of text, ``1``, ``0``, ``-1``, the same with ``.0``, or null, into Int8.

    Raises
    ------
    SourceError
        A label is anything else; row ``i`` (from 0) of the table is line ``i + 2`` of `path`.
    """
    for finding in findings:
        strange = frame[finding].is_not_null() & ~frame[finding].is_in(list(_VALUES))
        if strange.any():
            line = int(strange.arg_max() or 0)
            raise SourceError(
                f"{path}, line {line + 2}, column {finding!r}: {frame[finding][line]!r} "
                f"({strange.sum()} such). Allowed: 1, 0, -1 (uncertain) or blank."
            )
    return frame.with_columns(pl.col(findings).replace_strict(_VALUES, default=None, return_dtype=pl.Int8))


def listed_labels(lists: pl.Expr, findings: Sequence[str], *, complete: pl.Expr | None = None) -> list[pl.Expr]:
    """Return a column of Int8 for each finding: 1 where the list of a row holds it, else 0.

    Where `complete` is false, a finding that is not listed is null: the list does not claim to name everything.
    """
    held = {finding: lists.list.contains(finding) for finding in findings}
    known = pl.lit(True) if complete is None else complete
    return [pl.when(known | one).then(one.cast(pl.Int8)).alias(finding) for finding, one in held.items()]


def apply_policies(
    frame: pl.DataFrame, findings: Sequence[str], *, uncertain: Policy, not_mentioned: Policy
) -> pl.DataFrame:
    """Settle labels of 1, 0, -1 (uncertain) and null (not mentioned) into 1, 0 and null (not annotated), as Int8."""
    silent, unsure = (pl.lit(policy_value(policy), pl.Int8) for policy in (not_mentioned, uncertain))
    return frame.with_columns(
        pl.when(pl.col(name).is_null())
        .then(silent)
        .when(pl.col(name) == UNCERTAIN)
        .then(unsure)
        .otherwise(pl.col(name))
        .cast(pl.Int8)
        .alias(name)
        for name in findings
    )


def complete_no_finding(
    frame: pl.DataFrame, findings: Sequence[str], *, name: str = "No Finding", apart: Sequence[str] = ()
) -> pl.DataFrame:
    """Fill the blanks of a "No Finding" column in from what it is defined by, before policies are applied.

    A labeller that writes 1 where a report names nothing, and blank otherwise, leaves a finding of one class. Where
    another finding is present it is 0; else, where one is uncertain, it is uncertain; else it stays blank.

    Parameters
    ----------
    frame
        Labels of 1, 0, -1 and null.
    findings
        All finding columns.
    name
        The column to complete.
    apart
        Findings that "No Finding" does not deny, such as support devices.
    """
    others = [pl.col(one) for one in findings if one not in (name, *apart)]
    denied = (
        pl.when(pl.any_horizontal(other == 1 for other in others))
        .then(0)
        .when(pl.any_horizontal(other == UNCERTAIN for other in others))
        .then(UNCERTAIN)
    )
    return frame.with_columns(pl.col(name).fill_null(denied.cast(pl.Int8)))
