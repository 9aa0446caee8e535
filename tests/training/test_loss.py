"""Blank labels, rare findings."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyhead.training.loss import masked_bce, positive_weights

BLANK = math.nan


def gradient(logits: list[list[float]], labels: list[list[float]], weights: list[float]) -> torch.Tensor:
    leaf = torch.tensor(logits, requires_grad=True)
    masked_bce(leaf, torch.tensor(labels), torch.tensor(weights)).backward()
    assert leaf.grad is not None
    return leaf.grad


def test_loss_by_hand() -> None:
    # One positive with logit 0 and weight 3, one negative with logit 0: (3 ln 2 + ln 2) / 2.
    loss = masked_bce(torch.zeros(2, 1), torch.tensor([[1.0], [0.0]]), torch.tensor([3.0]))
    assert loss.item() == pytest.approx(2 * math.log(2))


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_a_blank_label_changes_no_gradient(annotated: float, blank: float) -> None:
    with_blank = gradient([[annotated, blank]], [[1.0, BLANK]], [2.0, 5.0])
    alone = gradient([[annotated]], [[1.0]], [2.0])
    assert with_blank[0, 1] == 0
    assert with_blank[0, 0] == alone[0, 0]


def test_a_batch_without_annotations_has_no_loss() -> None:
    assert gradient([[1.0]], [[BLANK]], [1.0]).item() == 0


def test_positive_weights_by_hand() -> None:
    labels = np.array([[1, 0, 1, BLANK], [0, 0, 1, BLANK], [0, BLANK, 1, BLANK], [BLANK, 0, 1, BLANK]], np.float32)
    assert positive_weights(labels).tolist() == [2.0, 1.0, 1.0, 1.0]
