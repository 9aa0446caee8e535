"""What a site's labels and splits allow: nothing here reads an image."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import polars as pl

from polyhead.manifest import SPLITS, Manifest, label_counts
from polyhead.problems import Problem, Severity

__all__ = ["FEW", "balance", "label_problems"]

FEW = 10
"""Fewer labels of a class, or test patients, are too few to learn or to measure much."""

_USE = {
    "train": "Hardly anything can be learned from it.",
    "val": "The threshold will be a matter of chance.",
    "test": "Its intervals will be very wide.",
}
_ONE_CLASS = {
    "train": "Nothing can be learned from it.",
    "val": "No threshold can be chosen.",
    "test": "Its metrics will be NA.",
}


def balance(manifest: Manifest) -> pl.DataFrame:
    """Return `polyhead.manifest.label_counts` with ``pos_weight``, as in `polyhead.check.result.SiteCheck`."""
    positives, negatives = pl.col("positives"), pl.col("negatives")
    weighed = (pl.col("split") == "train") & (positives > 0) & (negatives > 0)
    return label_counts(manifest).with_columns(pl.when(weighed).then(negatives / positives).alias("pos_weight"))


def label_problems(manifest: Manifest, counts: pl.DataFrame, known_empty: Sequence[str] = ()) -> Iterator[Problem]:
    """Yield what cannot be learned or measured from a site's labels.

    Parameters
    ----------
    counts
        From `balance`.
    known_empty
        Splits that have been reported as empty already.
    """
    for split in SPLITS:
        if split not in known_empty:
            yield from _split_size(split, manifest.split(split))
    for row in counts.filter(pl.col("images") > 0).iter_rows(named=True):
        yield from _classes(row["split"], row["finding"], row["positives"], row["negatives"])
    yield from _related_columns(manifest)


def _split_size(split: str, part: pl.DataFrame) -> Iterator[Problem]:
    if split == "train" and part.height < 2:
        text = f"train: {part.height} images. The site takes no part in training and contributes nothing."
        yield Problem("warning", "no-training", text)
    elif not part.height:
        yield Problem("error", "empty-split", f"{split}: no image is left. Validation and test both need some.")
    elif split == "test" and (patients := part["patient_id"].n_unique()) < FEW:
        text = f"test: {patients} patients. Intervals resample patients; these will be very wide."
        yield Problem("warning", "few-patients", text)


def _classes(split: str, finding: str, positives: int, negatives: int) -> Iterator[Problem]:
    """Yield one problem, or none, of a finding in a split."""
    where = f"{split}, finding {finding!r}: "
    if positives + negatives == 0:
        masked = " The finding is masked." if split == "train" else f" {_ONE_CLASS[split]}"
        yield Problem("warning", "never-annotated", f"{where}no image is annotated.{masked}")
    elif positives == 0 or negatives == 0:
        only = "positive" if positives else "negative"
        yield Problem("warning", "one-class", f"{where}every annotated image is {only}. {_ONE_CLASS[split]}")
    elif min(positives, negatives) < FEW:
        rarer = f"positive in {positives}" if positives <= negatives else f"negative in {negatives}"
        severity: Severity = "note" if split == "val" else "warning"
        yield Problem(severity, "few-labels", f"{where}{rarer} of {positives + negatives} images. {_USE[split]}")


def _related_columns(manifest: Manifest) -> Iterator[Problem]:
    """Yield pairs of columns of which one says no more than the other."""
    labels = {finding: manifest.frame[finding] for finding in manifest.findings}
    varied = {finding: values for finding, values in labels.items() if values.n_unique() - values.has_nulls() == 2}
    for (finding, values), (other, others) in combinations(varied.items(), 2):
        if values.equals(others):
            text = f"findings {finding!r} and {other!r}: the same labels in every row. Is one a copy by mistake?"
            yield Problem("warning", "same-labels", text)
        elif values.equals((1 - others).cast(pl.Int8)):
            text = f"findings {finding!r} and {other!r}: opposite labels in every row. They count twice in a mean."
            yield Problem("note", "opposite-labels", text)
