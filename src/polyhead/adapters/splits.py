"""Patients dealt to splits by a hash of their id: no order of rows and no other patient changes where one goes."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import polars as pl

from polyhead.errors import SourceError
from polyhead.manifest import SPLITS
from polyhead.seeds import derive_seed

__all__ = ["SHARES", "carve_validation", "say_shares", "say_validation", "split_by_patient"]

SHARES: Mapping[str, float] = MappingProxyType({"train": 0.7, "val": 0.1, "test": 0.2})
"""Of the patients, by split, where a data set has no split at all."""


def split_by_patient(patients: pl.Series, shares: Mapping[str, float], seed: int) -> pl.Series:
    """Deal patients to splits.

    Parameters
    ----------
    patients
        A patient id as text for each row, none null.
    shares
        Share of the patients for each of ``train``, ``val`` and ``test``; they add up to 1.
    seed
        Another seed deals otherwise.

    Returns
    -------
    polars.Series
        ``split``, one for each row: ``train``, ``val`` or ``test``.

    Raises
    ------
    SourceError
        The shares are not those of the three splits, negative, or do not add up to 1.
    """
    if set(shares) != set(SPLITS) or min(shares.values()) < 0 or not math.isclose(sum(shares.values()), 1):
        raise SourceError(f"shares: found {dict(shares)}; train, val and test are needed, and add up to 1.")
    place = _places(patients, "split", seed)
    in_train = place < shares["train"]
    before_test = place < shares["train"] + shares["val"]
    splits = pl.when(in_train).then(pl.lit("train")).when(before_test).then(pl.lit("val")).otherwise(pl.lit("test"))
    return pl.select(splits.alias("split")).to_series()


def carve_validation(frame: pl.DataFrame, share: float, seed: int) -> pl.DataFrame:
    """Turn part of the training patients into the validation set.

    Parameters
    ----------
    frame
        With ``patient_id`` and ``split``; rows that are not ``train`` stay as they are.
    share
        Of the training patients, above 0 and below 1.
    seed
        Another seed takes others; a larger share takes the same and more.

    Raises
    ------
    SourceError
        The share is out of range.
    """
    if not 0 < share < 1:
        raise SourceError(f"validation: found {share}; allowed is a share above 0 and below 1.")
    carved = (frame["split"] == "train") & (_places(frame["patient_id"], "validation", seed) < share)
    return frame.with_columns(pl.when(carved).then(pl.lit("val")).otherwise(pl.col("split")).alias("split"))


def say_validation(share: float, seed: int) -> str:
    """Return `carve_validation` as a choice on record."""
    return f"{share:.3g} of the training patients, by hash with seed {seed}"


def say_shares(shares: Mapping[str, float], seed: int) -> str:
    """Return `split_by_patient` as a choice on record."""
    parts = ", ".join(f"{name} {shares[name]:.3g}" for name in SPLITS)
    return f"{parts} of the patients, by hash with seed {seed}"


def _places(patients: pl.Series, purpose: str, seed: int) -> pl.Series:
    """Return a number in [0, 1) for each row, the same for all rows of a patient."""
    names = patients.unique()
    places = pl.Series([derive_seed(purpose, seed, name) / 2**63 for name in names], dtype=pl.Float64)
    return patients.replace_strict(names, places, return_dtype=pl.Float64)
