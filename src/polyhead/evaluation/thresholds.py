"""The threshold that turns a score into a decision: chosen on validation data, then applied to the test data."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["youden_threshold"]


def youden_threshold(labels: NDArray[Any], scores: NDArray[np.float64]) -> float:
    """Return the score at which sensitivity + specificity - 1 is largest (Youden, Cancer 3:32, 1950).

    An image is called positive if its score is at least the threshold. Only scores that occur are tried. Of several
    equally good ones the lowest is taken: it misses the fewest positives.

    Parameters
    ----------
    labels
        Shape (images,), 1 or 0, of the *validation* images. Chosen on the test images, a threshold would flatter
        the sensitivity and specificity measured there.
    scores
        Shape (images,), finite.

    Returns
    -------
    float
        One of `scores`; NaN where there is one class only, for then no threshold is better than another.
    """
    positive = np.asarray(labels) == 1
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if positives == 0 or negatives == 0:
        return float("nan")
    candidates = np.unique(scores)
    hits = positives - np.searchsorted(np.sort(scores[positive]), candidates)
    false_alarms = negatives - np.searchsorted(np.sort(scores[~positive]), candidates)
    # Youden's index times positives times negatives: whole numbers, so that equal is equal.
    return float(candidates[np.argmax(hits * negatives - false_alarms * positives)])
