"""Laws that hold whatever the data.

A law is a function of a sample (labels, scores, patients), drawn by hypothesis with many ties, rare classes and
patients of all sizes. Metrics are listed with the laws that they obey, so that a new metric is one more line. The laws
of the whole evaluation follow below.

    order         the order of the images does not matter
    names         only which images share a patient matters, not the patients' numbers
    monotone      only the order of the scores matters, not their values
    labels        with positive and negative exchanged, the metric is that of the negated scores
    scores        with the scores negated, what was above is below
    doubling      every patient twice is the same as every patient once with twice the weight
    dropping      an image of weight 0 might as well not be there
"""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from sklearn.metrics import roc_auc_score

from polyhead.evaluation import evaluate_files, evaluate_run, youden_threshold
from polyhead.evaluation.bootstrap import patient_weights
from polyhead.evaluation.metrics import weighted_auroc, weighted_rates
from polyhead.predictions import read_predictions, write_predictions

THRESHOLD = 0.0


def _auroc(labels, scores, weights, patients):
    return weighted_auroc(labels, scores, weights, patients)


def _sensitivity(labels, scores, weights, patients):
    return weighted_rates(labels, scores > THRESHOLD, weights, patients)[0]


def _specificity(labels, scores, weights, patients):
    return weighted_rates(labels, scores <= THRESHOLD, weights, patients)[1]


@st.composite
def samples(draw):
    images = draw(st.integers(1, 40))
    patients = np.array(draw(st.lists(st.integers(0, 9), min_size=images, max_size=images)))
    labels = np.array(draw(st.lists(st.booleans(), min_size=images, max_size=images)))
    # Few distinct values: most samples have ties within and between the classes.
    scores = np.array(draw(st.lists(st.integers(-4, 4), min_size=images, max_size=images))) / 4
    return labels, scores, patients, patient_weights(10, 20, draw(st.integers(0, 1000)))


def law_order(metric, labels, scores, patients, weights):
    order = np.random.default_rng(0).permutation(len(labels))
    return metric(labels, scores, weights, patients), metric(labels[order], scores[order], weights, patients[order])


def law_names(metric, labels, scores, patients, weights):
    return metric(labels, scores, weights, patients), metric(labels, scores, weights[::-1], 9 - patients)


def law_monotone(metric, labels, scores, patients, weights):
    return metric(labels, scores, weights, patients), metric(labels, np.sinh(3 * scores), weights, patients)


def law_labels(metric, labels, scores, patients, weights):
    return metric(labels, scores, weights, patients), metric(~labels, -scores, weights, patients)


def law_scores(metric, labels, scores, patients, weights):
    return metric(labels, scores, weights, patients), 1 - metric(labels, -scores, weights, patients)


def law_doubling(metric, labels, scores, patients, weights):
    twice = [np.concatenate([column, column]) for column in (labels, scores)]
    others = np.concatenate([patients, patients + 10])
    return metric(labels, scores, 2 * weights, patients), metric(*twice, np.concatenate([weights, weights]), others)


def law_dropping(metric, labels, scores, patients, weights):
    weights = weights * (np.arange(10) != 0)[:, None]
    kept = patients != 0
    return metric(labels, scores, weights, patients), metric(labels[kept], scores[kept], weights, patients[kept])


ALWAYS = (law_order, law_names, law_monotone, law_doubling, law_dropping)
LAWS = {
    _auroc: (*ALWAYS, law_labels, law_scores),
    _sensitivity: ALWAYS,
    _specificity: ALWAYS,
}


@pytest.mark.parametrize(("metric", "law"), [(metric, law) for metric, laws in LAWS.items() for law in laws])
@given(sample=samples())
def test_law(metric, law, sample):
    labels, scores, patients, weights = sample
    one, other = law(metric, labels, scores, patients, weights)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


@given(sample=samples())
def test_equals_scikit_learn_or_is_undefined(sample):
    labels, scores, patients, weights = sample
    ours = weighted_auroc(labels, scores, weights, patients)
    for replicate in range(weights.shape[1]):
        weight = weights[patients, replicate]
        if len(np.unique(labels[weight > 0])) < 2:
            assert np.isnan(ours[replicate])
        else:
            assert abs(ours[replicate] - roc_auc_score(labels, scores, sample_weight=weight)) < 1e-12


@given(sample=samples())
def test_the_threshold_moves_with_the_scores_and_not_with_their_order(sample):
    labels, scores, _, _ = sample
    order = np.random.default_rng(1).permutation(len(labels))
    threshold = youden_threshold(labels, scores)
    np.testing.assert_array_equal(youden_threshold(labels[order], scores[order]), threshold)
    np.testing.assert_array_equal(youden_threshold(labels, 2 * scores + 1), 2 * threshold + 1)


# --- Laws of the whole evaluation ---------------------------------------------------------------------------------


def _change_all(run, change):
    for path in (run / "predictions").rglob("*.parquet"):
        write_predictions(change(read_predictions(path)), path)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.sample(fraction=1, shuffle=True, seed=5),
        lambda table: table.with_columns(pl.concat_str(pl.lit("site/"), "image").alias("image")),
        lambda table: table.with_columns(pl.concat_str(pl.lit("id"), "patient_id").alias("patient_id")),
        lambda table: pl.concat([table, table.with_columns(image=pl.lit("b") + pl.col("image"), label=pl.lit(None))]),
    ],
    ids=[
        "rows in another order",
        "images renamed",
        "patients renamed, in the same order",
        "images without labels added",
    ],
)
def test_nothing_changes_with(run, change):
    before = evaluate_run(run, 40)
    _change_all(run, lambda table: change(table).cast({"label": pl.Int8}))
    after = evaluate_run(run, 40)
    assert_frame_equal(before.metrics, after.metrics, check_exact=True)
    assert_frame_equal(before.comparisons, after.comparisons, check_exact=True)


def test_a_monotone_transform_changes_thresholds_alone(run):
    before = evaluate_run(run, 40)
    _change_all(run, lambda table: table.with_columns(pl.col("score").exp()))
    after = evaluate_run(run, 40)
    rest = pl.col("metric") != "threshold"
    assert_frame_equal(before.metrics.filter(rest), after.metrics.filter(rest), check_exact=True)
    assert_frame_equal(before.comparisons, after.comparisons, check_exact=True)
    thresholds = [table.filter(~rest)["value"].to_numpy() for table in (before.metrics, after.metrics)]
    np.testing.assert_allclose(np.exp(thresholds[0]), thresholds[1], rtol=1e-12)


def test_running_again_gives_the_same_bytes(run):
    files = [run / "metrics.csv", run / "comparisons.csv"]
    evaluate_run(run, 40)
    before = [file.read_bytes() for file in files]
    evaluate_run(run, 40)
    assert [file.read_bytes() for file in files] == before


def test_exchanging_two_methods_changes_signs_alone(run):
    # By another name: local comes first in whatever order methods are named.
    (run / "predictions/local").rename(run / "predictions/alone")
    forth, back = (
        evaluate_run(run, 99, ["alone", "ffl"]).comparisons,
        evaluate_run(run, 99, ["ffl", "alone"]).comparisons,
    )
    for one, other, sign in (
        ("difference", "difference", -1),
        ("low", "high", -1),
        ("p", "p", 1),
        ("p_holm", "p_holm", 1),
    ):
        np.testing.assert_allclose(forth[one], sign * back[other], rtol=0, atol=1e-12)


def test_seeds_of_identical_predictions_equal_one_seed(run):
    for path in (run / "predictions").rglob("seed-0/*/*.parquet"):
        write_predictions(read_predictions(path), path.parents[2] / "seed-1" / path.parent.name / path.name)
    metrics = evaluate_run(run, 60).metrics.filter(pl.col("metric") != "threshold")
    one, both = (metrics.filter(pl.col("seed") == seed).drop("seed") for seed in ("0", "all"))
    assert_frame_equal(one, both, rel_tol=0, abs_tol=1e-12)


def test_another_method_or_finding_beside_it_changes_no_interval(run, tmp_path):
    path = run / "predictions/ffl/seed-0/north/test.parquet"
    alone = evaluate_files([path], tmp_path, 40).metrics
    fewer = tmp_path / "fewer.parquet"
    write_predictions(read_predictions(path).filter(pl.col("finding") != "Nodule"), fewer)
    beside = evaluate_files([path, fewer], tmp_path, 40).metrics
    assert_frame_equal(beside.filter(pl.col("method") == "test"), alone, check_exact=True)
    single = pl.col("finding").is_in(["Effusion", "Cardiomegaly"])
    less = beside.filter(pl.col("method") == "fewer", single).drop("method")
    assert_frame_equal(less, alone.filter(single).drop("method"), check_exact=True)


def test_a_baseline_is_what_others_are_compared_with_whatever_the_order(run):
    named = evaluate_run(run, 99, ["ffl", "local"]).comparisons
    assert named.equals(evaluate_run(run, 99, ["local", "ffl"]).comparisons)
    assert named["reference"].unique().to_list() == ["local"]
