"""Binary cross-entropy where blank labels do not count and rare findings weigh more."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

__all__ = ["masked_bce", "positive_weights"]


def masked_bce(logits: torch.Tensor, labels: torch.Tensor, pos_weight: torch.Tensor) -> torch.Tensor:
    """Return the mean loss over the annotated labels.

    Parameters
    ----------
    logits, labels
        Shape ``(n, findings)``. Labels are 1, 0 or NaN; a NaN (blank) adds nothing to the loss or to any gradient.
    pos_weight
        Shape ``(findings,)``; the factor on the loss of a positive label.

    Returns
    -------
    torch.Tensor
        A scalar; 0 if no label of the batch is annotated.
    """
    annotated = ~labels.isnan()
    loss = binary_cross_entropy_with_logits(logits, labels.nan_to_num(0.0), pos_weight=pos_weight, reduction="none")
    return (loss * annotated).sum() / annotated.sum().clamp(min=1)


def positive_weights(labels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return negatives / positives of each finding, so that both classes weigh the same in total.

    Parameters
    ----------
    labels
        Training labels, shape ``(images, findings)``: 1, 0 or NaN (not annotated, counted as neither).

    Returns
    -------
    numpy.ndarray
        Shape ``(findings,)``; 1 for a finding without a positive, where the weight applies to nothing, and for one
        without a negative, which a weight of 0 would silence.
    """
    positives = (labels == 1).sum(axis=0)
    negatives = (labels == 0).sum(axis=0)
    both = (positives > 0) & (negatives > 0)
    return np.where(both, negatives / np.maximum(positives, 1), 1.0).astype(np.float32)
