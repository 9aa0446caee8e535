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


def read_labels(frame: pl.DataFrame, findings: Sequence[str], path: Path, *, decided: bool = False) -> pl.DataFrame:
    """Turn labels of text, ``1``, ``0``, ``-1``, the same with ``.0``, or null, into Int8.

    With `decided`, 1 and 0 only are labels: the source knows neither uncertain ones nor silence.

    Raises
    ------
    SourceError
        A label is anything else; row ``i`` (from 0) of the table is line ``i + 2`` of `path`.
    """
    known = [text for text, value in _VALUES.items() if value != UNCERTAIN or not decided]
    allowed = "1 or 0" if decided else "1, 0, -1 (uncertain) or blank"
    for finding in findings:
        strange = ~frame[finding].is_in(known).fill_null(not decided)
        if strange.any():
            line = int(strange.arg_max() or 0)
            raise SourceError(
                f"{path}, line {line + 2}, column {finding!r}: {frame[finding][line]!r} "
                f"({strange.sum()} such). Allowed: {allowed}."
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
    return frame.with_columns(_settled(name, uncertain, not_mentioned).alias(name) for name in findings)


def complete_no_finding(
    frame: pl.DataFrame,
    findings: Sequence[str],
    *,
    uncertain: Policy,
    not_mentioned: Policy,
    name: str = "No Finding",
    apart: Sequence[str] = (),
) -> pl.DataFrame:
    """Apply the policies, and give a "No Finding" that is not stated what it is defined by.

    A labeller that writes 1 where a report names nothing, and blank otherwise, leaves a finding of one class. Where
    another finding became 1 it is 0; else, where an uncertain one became blank, it is blank; else its policy holds. A
    stated 1 or 0 stays.

    Parameters
    ----------
    frame
        Labels of 1, 0, -1 and null.
    findings
        All finding columns.
    uncertain, not_mentioned
        As `apply_policies` takes them.
    name
        The column to complete.
    apart
        Findings that "No Finding" does not deny, such as support devices.

    Returns
    -------
    polars.DataFrame
        Labels of 1, 0 and null, as Int8.
    """
    others = {one: _settled(one, uncertain, not_mentioned) for one in findings if one not in (name, *apart)}
    denied = pl.any_horizontal(label == 1 for label in others.values()).fill_null(False)
    unsure = pl.any_horizontal((pl.col(one) == UNCERTAIN) & label.is_null() for one, label in others.items())
    said = _settled(name, uncertain, not_mentioned)
    completed = (
        pl.when(pl.col(name) != UNCERTAIN)
        .then(said)
        .when(denied)
        .then(pl.lit(0, pl.Int8))
        .when(~unsure.fill_null(False))
        .then(said)
    )
    settled = {one: _settled(one, uncertain, not_mentioned) for one in findings}
    return frame.with_columns(label.alias(one) for one, label in {**settled, name: completed}.items())


def _settled(name: str, uncertain: Policy, not_mentioned: Policy) -> pl.Expr:
    silent, unsure = (pl.lit(policy_value(policy), pl.Int8) for policy in (not_mentioned, uncertain))
    label = pl.col(name)
    return pl.when(label.is_null()).then(silent).when(label == UNCERTAIN).then(unsure).otherwise(label).cast(pl.Int8)
