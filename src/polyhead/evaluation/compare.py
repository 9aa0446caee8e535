"""Two methods on one test set: is one better, or were the patients kind to it?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polyhead.errors import PredictionsError
from polyhead.evaluation.bootstrap import Estimate, estimate, paired_p

__all__ = ["Comparison", "check_same_test_set", "holm", "paired_comparison"]


@dataclass(frozen=True)
class Comparison:
    """A difference between two methods, with its interval, and the paired two-sided p-value (NaN where undefined)."""

    difference: Estimate
    p: float


def paired_comparison(method: NDArray[np.float64], reference: NDArray[np.float64]) -> Comparison:
    """Compare a method with a reference; a positive difference means that the method is better.

    Parameters
    ----------
    method, reference
        Draws of one metric, shape (1 + replicates,), from the same weights (see `polyhead.evaluation.bootstrap`).
    """
    if method.shape != reference.shape:
        raise ValueError(f"{method.shape} draws of the method, but {reference.shape} of the reference")
    differences = method - reference
    return Comparison(estimate(differences), paired_p(differences[1:]))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct a family of p-values so that the chance of any false finding stays below alpha (Holm, 1979).

    The k-th smallest of m is multiplied by m - k + 1; none may come out smaller than one before it, or above 1.

    Parameters
    ----------
    p_values
        In any order; NaN (no test was possible) stays NaN and does not count towards m.

    Returns
    -------
    list of float
        In the order of `p_values`.
    """
    p = np.asarray(p_values, np.float64)
    corrected = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    ascending = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(tested), 0, -1)
    corrected[ascending] = np.minimum(1.0, np.maximum.accumulate(p[ascending] * factors))
    return [float(value) for value in corrected]


def check_same_test_set(first: pl.DataFrame, second: pl.DataFrame, names: tuple[str, str]) -> None:
    """Refuse two tables of predictions that were not made for the same images, patients and labels.

    Only findings that both have, and images that are annotated, are looked at: a method may know fewer findings.

    Parameters
    ----------
    first, second
        With the columns of `polyhead.predictions.COLUMNS`, rows in any order.
    names
        What to call the two in the message.

    Raises
    ------
    PredictionsError
        If they have no finding in common, or naming the first image that differs, and how.
    """
    shared = set(first["finding"].unique()) & set(second["finding"].unique())
    if not shared:
        known = [", ".join(sorted(table["finding"].unique())) or "none" for table in (first, second)]
        raise PredictionsError(
            f"{names[0]} and {names[1]} have no finding in common: {known[0]}; and {known[1]}. "
            "Give the findings the same names in both."
        )
    one, two = _annotated(first, shared), _annotated(second, shared)
    if not one.equals(two):
        raise PredictionsError(
            f"{names[0]} and {names[1]} were not made for the same test set: {_first_difference(one, two)}. "
            "Predict the same images with both, and give the labels to both from one table."
        )


_KEY = ["finding", "image"]


def _annotated(table: pl.DataFrame, findings: set[str]) -> pl.DataFrame:
    """Return finding, image, patient and label of the annotated rows, in alphabetical order."""
    rows = table.lazy().filter(pl.col("finding").is_in(list(findings)), pl.col("label").is_not_null())
    return rows.select(*_KEY, "patient_id", "label").sort(_KEY).collect()


def _first_difference(one: pl.DataFrame, two: pl.DataFrame) -> str:
    missing = ": annotated in the first only"
    odd = one.join(two, on=one.columns, how="anti")
    if odd.is_empty():
        odd, two, missing = two.join(one, on=one.columns, how="anti"), one, ": annotated in the second only"
    row = odd.row(0, named=True)
    found = f"image {row['image']!r}, finding {row['finding']!r}"
    other = odd.head(1).join(two, on=_KEY)
    if other.is_empty():
        return found + missing
    changed = [column for column in ("patient_id", "label") if row[column] != other[column + "_right"][0]]
    return found + "".join(f", {column} {row[column]!r} and {other[column + '_right'][0]!r}" for column in changed)
