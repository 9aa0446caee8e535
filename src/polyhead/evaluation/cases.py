"""A table of predictions as arrays, finding by finding; blank labels end here."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

__all__ = ["NO_CASES", "Cases", "annotated_patients", "cases_by_finding"]


@dataclass(frozen=True)
class Cases:
    """The annotated images of one finding, as arrays of shape (images,).

    Attributes
    ----------
    labels, scores
        True where the finding is present; the model's score.
    rows
        The patient's number: a row of the weights.
    """

    labels: NDArray[np.bool_]
    scores: NDArray[np.float64]
    rows: NDArray[np.uint32]


NO_CASES = Cases(np.empty(0, np.bool_), np.empty(0), np.empty(0, np.uint32))


def annotated_patients(tables: Sequence[pl.DataFrame]) -> list[str]:
    """Return the patients with an annotated image, each once, in alphabetical order: row order decides nothing."""
    names = [table.filter(pl.col("label").is_not_null())["patient_id"].unique() for table in tables]
    return pl.concat(names).unique().sort().to_list()


def cases_by_finding(table: pl.DataFrame, patients: Sequence[str]) -> dict[str, Cases]:
    """Split predictions by finding, in alphabetical order; blank labels are left out.

    Parameters
    ----------
    table
        With the columns of `polyhead.predictions.COLUMNS`.
    patients
        At least all patients with an annotated image, each once. A patient's number is its place in this list.
    """
    row = pl.col("patient_id").cast(pl.Enum(patients)).to_physical()
    annotated = table.filter(pl.col("label").is_not_null()).select("finding", "label", "score", row=row)
    parts = {str(name): part for (name,), part in annotated.partition_by("finding", as_dict=True).items()}
    return {name: _cases(parts[name]) if name in parts else NO_CASES for name in table["finding"].unique().sort()}


def _cases(part: pl.DataFrame) -> Cases:
    return Cases((part["label"] == 1).to_numpy(), part["score"].to_numpy(), part["row"].to_numpy())
