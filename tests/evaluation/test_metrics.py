"""The reference is scikit-learn, replicate by replicate."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from polyhead.errors import PredictionsError
from polyhead.evaluation import metrics
from polyhead.evaluation.bootstrap import patient_weights
from polyhead.evaluation.metrics import auroc, weighted_auroc, weighted_rates


def _sample(seed, images, decimals, prevalence=0.3):
    random = np.random.default_rng(seed)
    labels = random.random(images) < prevalence
    scores = np.round(random.normal(size=images) + labels, decimals)
    return labels, scores, random.integers(0, max(1, images // 4), size=images)


@pytest.mark.parametrize("decimals", [0, 1, 15], ids=["many ties", "some ties", "no ties"])
@pytest.mark.parametrize("prevalence", [0.02, 0.3, 0.95])
def test_every_replicate_equals_scikit_learn(decimals, prevalence):
    labels, scores, patients = _sample(0, 400, decimals, prevalence)
    weights = patient_weights(100, 50, seed=1)
    ours = weighted_auroc(labels, scores, weights, patients)
    for replicate in range(50):
        weight = weights[patients, replicate]
        if len(np.unique(labels[weight > 0])) == 1:
            assert np.isnan(ours[replicate])
        else:
            assert abs(ours[replicate] - roc_auc_score(labels, scores, sample_weight=weight)) < 1e-12


def test_a_large_sample_equals_scikit_learn():
    labels, scores, patients = _sample(3, 20_000, 2, 0.05)
    weights = patient_weights(5_000, 3, seed=2)
    theirs = [roc_auc_score(labels, scores, sample_weight=weights[patients, k]) for k in range(3)]
    np.testing.assert_allclose(weighted_auroc(labels, scores, weights, patients), theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([0, 1], [0.1, 0.2], 1.0),
        ([0, 1], [0.2, 0.1], 0.0),
        ([0, 1], [0.1, 0.1], 0.5),
        ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 0.75),
        ([1, 0, 0], [0.5, 0.5, 0.1], 0.75),
    ],
)
def test_auroc_by_hand(labels, scores, expected):
    assert auroc(np.array(labels), np.array(scores)) == expected


def test_weights_by_hand():
    # The second patient drawn twice: of the 2 x 2 pairs, its own two are won and the other two are tied.
    weights = np.array([[2], [2], [0]])
    assert weighted_auroc(np.array([1, 0, 0, 1]), np.array([3.0, 3, 9, 4]), weights, np.array([0, 1, 2, 1]))[0] == 0.75


@pytest.mark.parametrize("labels", [[1, 1], [0, 0], []], ids=["all positive", "all negative", "nothing"])
def test_one_class_has_no_auroc_and_no_rates(labels):
    labels, weights = np.array(labels, dtype=bool), np.ones((2, 5), np.int16)
    rows = np.arange(len(labels))
    assert np.isnan(weighted_auroc(labels, np.zeros(len(labels)), weights, rows)).tolist() == [True] * 5
    for rate in weighted_rates(labels, labels, weights, rows):
        assert np.isnan(rate).tolist() == [True] * 5


def test_a_replicate_with_one_class_is_nan_and_the_others_are_not():
    weights = np.array([[1, 0, 2], [1, 2, 0]])
    result = weighted_auroc(np.array([0, 1]), np.array([0.1, 0.2]), weights)
    np.testing.assert_array_equal(result, [1.0, np.nan, np.nan])
    np.testing.assert_array_equal(
        weighted_rates(np.array([0, 1]), np.array([True, True]), weights),
        [[1.0, np.nan, np.nan], [0.0, np.nan, np.nan]],
    )


@pytest.mark.parametrize("replicates", [0, 1, metrics._BLOCK - 1, metrics._BLOCK, metrics._BLOCK + 1])
def test_blocks_hide_nothing(replicates):
    labels, scores, patients = _sample(5, 80, 1)
    weights = patient_weights(20, 2 * metrics._BLOCK, seed=3)
    whole = weighted_auroc(labels, scores, weights, patients)
    np.testing.assert_array_equal(weighted_auroc(labels, scores, weights[:, :replicates], patients), whole[:replicates])


def test_rates_equal_counting():
    labels, scores, patients = _sample(6, 200, 2)
    weights = patient_weights(50, 40, seed=4)
    sensitivity, specificity = weighted_rates(labels, scores >= 0.5, weights, patients)
    for replicate in range(40):
        images = np.repeat(np.arange(200), weights[patients, replicate])
        drawn, called = labels[images], scores[images] >= 0.5
        assert abs(sensitivity[replicate] - called[drawn].mean()) < 1e-12
        assert abs(specificity[replicate] - (~called[~drawn]).mean()) < 1e-12


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_no_number_is_refused_with_its_row(bad):
    with pytest.raises(PredictionsError, match=r"score, row 3: (nan|inf)\. Allowed: finite numbers"):
        auroc(np.array([0, 1, 1]), np.array([0.1, 0.2, bad]))


def test_a_label_that_is_neither_1_nor_0_is_refused_with_its_row():
    with pytest.raises(PredictionsError, match=r"label, row 2: .*-1.*Allowed: 1 and 0"):
        auroc(np.array([0, -1, 1]), np.array([0.1, 0.2, 0.3]))


@pytest.mark.parametrize("weights", [np.array([[-1], [1]]), np.array([[0.5], [1]]), np.array([1, 1])])
def test_weights_that_count_nothing_are_refused(weights):
    with pytest.raises(ValueError, match="whole numbers"):
        weighted_auroc(np.array([0, 1]), np.array([0.1, 0.2]), weights)


def test_lengths_must_fit():
    with pytest.raises(ValueError, match="labels, but"):
        auroc(np.array([0, 1]), np.array([0.1, 0.2, 0.3]))
    with pytest.raises(ValueError, match="rows of weights"):
        weighted_auroc(np.array([0, 1]), np.array([0.1, 0.2]), np.ones((3, 1), int))
