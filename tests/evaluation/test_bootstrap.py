"""Replicates, intervals and p-values; at the end their promises, kept over thousands of simulated test sets."""

import numpy as np
import pytest
from scipy import stats

from polyhead.evaluation.bootstrap import draw_weights, estimate, paired_p, patient_weights, percentile_interval
from polyhead.evaluation.metrics import weighted_auroc


def test_each_replicate_draws_as_many_patients_as_there_are():
    weights = patient_weights(37, 200, seed=0)
    assert weights.shape == (37, 200)
    assert (weights.sum(axis=0) == 37).all()
    assert weights.min() == 0


def test_every_patient_is_as_likely_as_any_other():
    # Each count is binomial(n, 1/n): mean 1, variance 1 - 1/n; negatively correlated between patients.
    weights = patient_weights(20, 20_000, seed=1).astype(float)
    assert np.abs(weights.mean(axis=1) - 1).max() < 0.03
    assert np.abs(weights.var(axis=1) - 0.95).max() < 0.05
    assert np.corrcoef(weights[0], weights[1])[0, 1] == pytest.approx(-1 / 19, abs=0.03)


def test_replicates_depend_on_the_seed_alone_and_more_continue_fewer():
    np.testing.assert_array_equal(patient_weights(30, 40, seed=2), patient_weights(30, 100, seed=2)[:, :40])
    assert (patient_weights(30, 40, seed=2) != patient_weights(30, 40, seed=3)).any()


def test_no_patients_and_no_replicates():
    assert patient_weights(0, 5, seed=0).shape == (0, 5)
    assert patient_weights(5, 0, seed=0).shape == (5, 0)


def test_the_first_draw_is_the_data():
    weights = draw_weights(10, 30, seed=4)
    assert (weights[:, 0] == 1).all()
    np.testing.assert_array_equal(weights[:, 1:], patient_weights(10, 30, seed=4))


def test_images_of_a_patient_move_together():
    # 30 patients with 4 identical images each must vary like 30 images, not like 120.
    random = np.random.default_rng(5)
    labels, scores = np.arange(30) % 2 == 0, random.normal(size=30)
    weights = patient_weights(30, 300, seed=6)
    once = weighted_auroc(labels, scores, weights)
    four_times = weighted_auroc(np.repeat(labels, 4), np.repeat(scores, 4), weights, np.repeat(np.arange(30), 4))
    np.testing.assert_array_equal(once, four_times)


def test_the_interval_leaves_undefined_replicates_out_and_counts_them():
    found = estimate(np.array([0.5, np.nan, *np.linspace(0, 1, 1001), np.nan]))
    assert (found.value, found.used) == (0.5, 1001)
    assert (found.low, found.high) == pytest.approx((0.025, 0.975))


def test_nothing_defined_is_nan_not_a_number():
    assert np.isnan(percentile_interval(np.full(10, np.nan))).all()
    assert np.isnan(paired_p(np.full(10, np.nan)))
    assert estimate(np.array([np.nan])).used == 0


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.0] * 99, 1.0),
        ([1.0] * 99, 2 / 100),  # the smallest there is with 99 replicates: never 0
        ([-1.0] * 99, 2 / 100),
        ([-1.0] + [1.0] * 98, 4 / 100),
        ([-1.0] + [1.0] * 98 + [np.nan] * 50, 4 / 100),
        ([-1.0] * 50 + [1.0] * 49, 1.0),
        ([0.0] * 10 + [1.0] * 89, 22 / 100),
    ],
)
def test_p_by_hand(differences, expected):
    assert paired_p(np.array(differences)) == pytest.approx(expected, abs=1e-15)


def test_p_does_not_depend_on_which_method_comes_first():
    differences = np.random.default_rng(8).normal(0.7, 1, size=999)
    assert paired_p(differences) == paired_p(-differences)


# --- Promises over many simulated test sets -----------------------------------------------------------------------
#
# A patient has the finding or not, and IMAGES images whose scores share most of their variation. Positive and negative
# images then always belong to different patients, so the true AUROC is that of two normal distributions.

PATIENTS, IMAGES, EFFECT, SHARED, OWN = 200, 3, 1.2, 1.0, 0.5
TRUTH = stats.norm.cdf(EFFECT / np.sqrt(2 * (SHARED**2 + OWN**2)))


def _simulated(random, methods=1):
    """Labels (images,), scores (methods, images) of equal skill, and the patient's number (images,)."""
    patients = np.repeat(np.arange(PATIENTS), IMAGES)
    labels = (random.random(PATIENTS) < 0.4)[patients]
    shared = SHARED * random.normal(size=(methods, PATIENTS))[:, patients]
    return labels, EFFECT * labels + shared + OWN * random.normal(size=(methods, len(patients))), patients


def _coverage(sets, resample_images):
    random = np.random.default_rng(11)
    covered = 0
    for number in range(sets):
        labels, (scores,), patients = _simulated(random)
        rows = np.arange(len(labels)) if resample_images else patients
        weights = patient_weights(rows.max() + 1, 1000, seed=number)
        low, high = percentile_interval(weighted_auroc(labels, scores, weights, rows))
        covered += low <= TRUTH <= high
    return covered / sets


@pytest.mark.slow
def test_intervals_cover_the_truth():
    # 1,500 sets: the standard error of a coverage of 95 % is 0.6 points.
    assert 0.93 <= _coverage(1500, resample_images=False) <= 0.97


@pytest.mark.slow
def test_resampling_images_instead_of_patients_would_be_found_out():
    assert _coverage(300, resample_images=True) < 0.88


@pytest.mark.slow
def test_p_values_of_equally_good_methods_are_uniform():
    random = np.random.default_rng(12)
    p_values = []
    for number in range(1000):
        labels, (first, second), patients = _simulated(random, methods=2)
        weights = patient_weights(PATIENTS, 499, seed=number)
        p_values.append(
            paired_p(
                weighted_auroc(labels, first, weights, patients) - weighted_auroc(labels, second, weights, patients)
            )
        )
    p = np.array(p_values)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert 0.03 <= np.mean(p < 0.05) <= 0.07
