"""What every adapter takes and gives: options in, a manifest's columns and the choices behind them out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from polyhead.adapters.labels import Policy

__all__ = ["Imported", "Options"]


@dataclass(frozen=True)
class Options:
    """What a person may choose when a data set is imported; `import_site` refuses what an adapter does not read.

    Attributes
    ----------
    uncertain
        What becomes of a label that its source calls uncertain: blank, 0 (``negative``) or 1 (``positive``).
    not_mentioned
        What becomes of a finding on which its source is silent.
    views
        ``frontal``: AP and PA only; ``all``: lateral and other views too.
    seed
        Enters the hash that deals patients to splits.
    validation
        Share of the training patients that become the validation set, where the data set has none of its own.
    min_positives
        PadChest: a finding becomes a column if so many training images show it.
    labels
        PadChest: ``all`` reports, or those that a ``physician`` labelled.
    allow_missing
        Leave images out that are not on disk, however many; otherwise more than 1 % are an error.
    """

    uncertain: Policy = "blank"
    not_mentioned: Policy = "blank"
    views: Literal["frontal", "all"] = "frontal"
    seed: int = 0
    validation: float = 0.1
    min_positives: int = 50
    labels: Literal["all", "physician"] = "all"
    allow_missing: bool = False


@dataclass(frozen=True)
class Imported:
    """A data set as a manifest's columns, not yet written.

    Attributes
    ----------
    frame
        The reserved columns of `polyhead.manifest` as text, then each finding as Int8: 1, 0 or null (not annotated).
        ``image`` is relative to `images`.
    images
        The folder that images are relative to.
    choices
        Every choice behind the labels and splits, by name; ``site.toml`` keeps them and every report repeats them.
    notes
        For the person who imports: what was left out or altered, with counts.
    """

    frame: pl.DataFrame
    images: Path
    choices: Mapping[str, str]
    notes: tuple[str, ...] = ()
