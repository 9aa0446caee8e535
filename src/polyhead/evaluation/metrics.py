"""The area under the ROC curve and rates at a threshold, for many weightings of the same images at once.

A bootstrap replicate is a column of whole-number weights, one a patient: how often the patient was drawn. Sorting is
the dear part of an AUROC, and no weighting changes the order of the scores; so they are sorted once, and what is left
for a replicate is adding weights up. Sums are whole numbers, hence exact, whatever the order of the rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyhead.errors import PredictionsError

__all__ = ["auroc", "weighted_auroc", "weighted_rates"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]

# Replicates at a time: few enough for the images' weights to stay in the processor's cache.
_BLOCK = 16


def auroc(labels: BoolArray | IntArray, scores: FloatArray) -> float:
    """Return the AUROC of `scores`, shape (images,), for `labels`, 1 or 0; NaN where there is one class only."""
    return float(weighted_auroc(labels, scores, np.ones((len(labels), 1), np.int8))[0])


def weighted_auroc(
    labels: BoolArray | IntArray, scores: FloatArray, weights: IntArray, rows: IntArray | None = None
) -> FloatArray:
    """Return the AUROC of the same images under each of many weightings.

    The AUROC is the chance that a positive image scores higher than a negative one, where a tie counts one half (as
    with midranks). Equals ``sklearn.metrics.roc_auc_score(labels, scores, sample_weight=weights[rows, k])``.

    Parameters
    ----------
    labels
        Shape (images,), 1 or 0.
    scores
        Shape (images,), finite.
    weights
        Shape (patients, replicates), whole numbers of at least 0.
    rows
        Shape (images,): the row of `weights` that an image takes its weight from, so that the images of a patient
        move together. By default image i takes row i.

    Returns
    -------
    numpy.ndarray
        Shape (replicates,), in [0, 1]; NaN where the images with a weight have one class only.

    Raises
    ------
    PredictionsError
        If a score is not finite, naming its row, or if a label is neither 1 nor 0.
    """
    positive, rows = _checked_labels(labels, weights, rows)
    ranking = _rank(positive, _checked_scores(scores, positive), rows)
    if ranking is None:
        return np.full(weights.shape[1], np.nan)
    return np.concatenate([np.empty(0)] + [_auroc_of_block(ranking, block) for block in _blocks(weights)])


def weighted_rates(
    labels: BoolArray | IntArray, called: BoolArray, weights: IntArray, rows: IntArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return sensitivity and specificity of a decision under each of many weightings.

    Parameters
    ----------
    labels, weights, rows
        As for `weighted_auroc`.
    called
        Shape (images,): True where the image is called positive.

    Returns
    -------
    tuple
        Sensitivity and specificity, each of shape (replicates,) and in [0, 1]; both NaN where the images with a
        weight have one class only, so that a replicate counts for all metrics of a finding or for none.
    """
    positive, rows = _checked_labels(labels, weights, rows)
    # Counted by patient first: the replicates then cost one small matrix product.
    groups = (positive, positive & called, ~positive, ~positive & ~called)
    by_patient = np.stack([np.bincount(rows, group, minlength=len(weights)) for group in groups])
    counts = np.concatenate([np.empty((4, 0))] + [by_patient @ block for block in _blocks(weights)], axis=1)
    counts[:, (counts[0] == 0) | (counts[2] == 0)] = np.nan
    return counts[1] / counts[0], counts[3] / counts[2]


@dataclass(frozen=True)
class _Ranking:
    """How positives and negatives interleave when sorted by score.

    Neighbouring positives that beat and tie with the same negatives form one level; neighbouring negatives that no
    positive tells apart form one segment. Only these matter: with few positives there are few of either.
    """

    positive_rows: IntArray  # (positives,) rows of the weights, in order of score
    level_starts: IntArray  # (levels,) where each level begins among the positives
    negative_rows: IntArray  # (negatives,)
    segment_starts: IntArray  # (segments,) where each segment begins among the negatives
    segments_below: IntArray  # (levels,) number of segments that score lower than the level
    segments_upto: IntArray  # (levels,) number of segments that score lower or the same


def _rank(positive: BoolArray, scores: FloatArray, rows: IntArray) -> _Ranking | None:
    """Sort once; None where there is one class only."""
    if positive.all() or not positive.any():
        return None
    order = np.argsort(scores)
    positives, negatives = order[positive[order]], order[~positive[order]]
    below = np.searchsorted(scores[negatives], scores[positives], side="left")
    upto = np.searchsorted(scores[negatives], scores[positives], side="right")
    new_level = (np.diff(below, prepend=-1) > 0) | (np.diff(upto, prepend=-1) > 0)
    below, upto = below[new_level], upto[new_level]
    cuts = np.unique(np.concatenate([[0], below, upto, [len(negatives)]]))
    return _Ranking(
        positive_rows=rows[positives],
        level_starts=np.flatnonzero(new_level),
        negative_rows=rows[negatives],
        segment_starts=cuts[:-1],
        segments_below=np.searchsorted(cuts, below),
        segments_upto=np.searchsorted(cuts, upto),
    )


def _auroc_of_block(ranking: _Ranking, weights: IntArray) -> FloatArray:
    levels = _sum_runs(weights, ranking.positive_rows, ranking.level_starts)
    segments = _sum_runs(weights, ranking.negative_rows, ranking.segment_starts)
    below = np.zeros((len(segments) + 1, weights.shape[1]), np.int64)
    np.cumsum(segments, axis=0, out=below[1:])
    # A pair won counts two here and a pair tied counts one, which keeps the sums whole.
    beaten_or_tied = np.take(below, ranking.segments_below, axis=0) + np.take(below, ranking.segments_upto, axis=0)
    won = np.sum(levels * beaten_or_tied, axis=0)
    pairs = levels.sum(axis=0) * below[-1]
    aurocs: FloatArray = np.full(pairs.shape, np.nan)
    np.divide(won, 2 * pairs, out=aurocs, where=pairs > 0)
    return aurocs


def _sum_runs(weights: IntArray, rows: IntArray, starts: IntArray) -> NDArray[np.int64]:
    """Add up runs of `rows`, each beginning at one of `starts`; shape (starts, replicates)."""
    # np.take copies whole rows at once, and is several times faster here than indexing with an array.
    sums: NDArray[np.int64] = np.add.reduceat(np.take(weights, rows, axis=0), starts, axis=0, dtype=np.int64)
    return sums


def _blocks(weights: IntArray) -> Iterator[IntArray]:
    """Yield a few replicates at a time, so that memory does not grow with their number."""
    for first in range(0, weights.shape[1], _BLOCK):
        yield np.ascontiguousarray(weights[:, first : first + _BLOCK])


def _checked_labels(
    labels: BoolArray | IntArray, weights: IntArray, rows: IntArray | None
) -> tuple[BoolArray, IntArray]:
    positive = np.asarray(labels) == 1
    wrong = ~positive & (np.asarray(labels) != 0)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise PredictionsError(f"label, row {row + 1}: {labels[row]!r}. Allowed: 1 and 0; leave blank labels out.")
    if weights.ndim != 2 or not np.issubdtype(weights.dtype, np.integer) or weights.min(initial=0) < 0:
        raise ValueError("weights must be whole numbers of at least 0, with the shape (patients, replicates)")
    rows = np.arange(len(weights)) if rows is None else rows
    if rows.shape != positive.shape:
        raise ValueError(f"{positive.shape} labels, but {rows.shape} rows of weights")
    return positive, rows


def _checked_scores(scores: FloatArray, positive: BoolArray) -> FloatArray:
    if scores.shape != positive.shape:
        raise ValueError(f"{positive.shape} labels, but {scores.shape} scores")
    wrong = ~np.isfinite(scores)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise PredictionsError(f"score, row {row + 1}: {scores[row]}. Allowed: finite numbers.")
    return scores
