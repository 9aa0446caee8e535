import numpy as np
import pytest
from sklearn.metrics import roc_curve

from polyhead.evaluation import youden_threshold


def _youden(labels, scores, threshold):
    called = scores >= threshold
    return called[labels].mean() + (~called[~labels]).mean() - 1


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], 0.3),
        ([0, 1], [0.5, 0.5], 0.5),  # all tied: everything is called positive
        ([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], 0.2),  # 0.2 and 0.4 are equally good: the one that misses fewer
        ([1, 0], [0.1, 0.2], 0.1),  # worse than chance: nothing beats calling everything positive
        ([1, 1, 0, 0, 1], [0.9, 0.5, 0.5, 0.1, 0.5], 0.5),
    ],
)
def test_by_hand(labels, scores, expected):
    assert youden_threshold(np.array(labels), np.array(scores)) == expected


@pytest.mark.parametrize("labels", [[1, 1], [0, 0], []])
def test_one_class_has_no_threshold(labels):
    assert np.isnan(youden_threshold(np.array(labels), np.zeros(len(labels))))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("decimals", [1, 15])
def test_no_other_threshold_is_better(seed, decimals):
    random = np.random.default_rng(seed)
    labels = random.random(150) < 0.2
    scores = np.round(random.normal(size=150) + labels, decimals)
    false_alarms, hits, _ = roc_curve(labels, scores)
    threshold = youden_threshold(labels, scores)
    assert _youden(labels, scores, threshold) == pytest.approx(np.max(hits - false_alarms), abs=1e-12)
    assert threshold in scores
