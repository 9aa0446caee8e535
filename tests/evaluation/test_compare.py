import numpy as np
import polars as pl
import pytest

from polyhead.errors import PredictionsError
from polyhead.evaluation.compare import check_same_test_set, holm, paired_comparison


def test_a_method_against_itself_differs_by_0_with_p_1():
    draws = np.random.default_rng(0).random(1001)
    compared = paired_comparison(draws, draws)
    assert (compared.difference.value, compared.difference.low, compared.difference.high) == (0, 0, 0)
    assert compared.p == 1


def test_the_difference_is_method_minus_reference_draw_by_draw():
    reference = np.random.default_rng(1).random(100)
    compared = paired_comparison(reference + 0.25, reference)
    assert compared.difference.value == pytest.approx(0.25)
    # Paired: the spread of each method is large, that of the difference is nothing.
    assert compared.difference.high - compared.difference.low < 1e-12
    assert compared.p == 2 / 100


def test_undefined_draws_are_left_out_of_the_difference():
    compared = paired_comparison(np.array([0.6, 0.7, np.nan, 0.8]), np.array([0.5, 0.6, np.nan, 0.7]))
    assert compared.difference.used == 2
    assert compared.p == 2 / 3


def test_one_class_has_no_difference_and_no_p():
    compared = paired_comparison(np.full(50, np.nan), np.full(50, np.nan))
    assert np.isnan([compared.difference.value, compared.difference.low, compared.difference.high, compared.p]).all()


def test_different_numbers_of_replicates_are_refused():
    with pytest.raises(ValueError, match="draws of the method"):
        paired_comparison(np.zeros(3), np.zeros(4))


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([], []),
        ([0.02], [0.02]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 0.04 may not come out below 0.03's 0.06
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.01, float("nan"), 0.02], [0.02, float("nan"), 0.02]),  # an undefined p is no member of the family
        ([0.04, 0.01, 0.01], [0.04, 0.03, 0.03]),
    ],
)
def test_holm_by_hand(p_values, expected):
    np.testing.assert_allclose(holm(p_values), expected, rtol=0, atol=1e-15)


def test_rows_in_another_order_and_blank_labels_are_the_same_test_set(predict):
    first, second = predict(1), predict(2)
    shuffled = second.sample(fraction=1, shuffle=True, seed=3)
    blank = first.head(1).with_columns(label=pl.lit(None, pl.Int8), image=pl.lit("9999.png"))
    check_same_test_set(pl.concat([first, blank]), shuffled, ("first", "second"))


def test_a_method_may_know_fewer_findings(predict):
    check_same_test_set(predict(1), predict(2, findings=("Nodule",)), ("first", "second"))


def _changed(table, **columns):
    odd = (pl.col("image") == "0004.png") & (pl.col("finding") == "Effusion")
    return table.with_columns(
        pl.when(odd).then(pl.lit(new)).otherwise(name).alias(name) for name, new in columns.items()
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: _changed(table, patient_id="p999"), "patient_id 'p001' and 'p999'"),
        (
            lambda table: table.with_columns(label=(1 - pl.col("label")).cast(pl.Int8)),
            "image '0000.png'.*label . and .",
        ),
        (lambda table: table.filter(pl.col("image") != "0004.png"), "'0004.png', finding 'Cardiomegaly': .*first only"),
        (lambda table: _changed(table, image="x.png"), "'0004.png', finding 'Effusion': annotated in the first only"),
    ],
)
def test_another_test_set_is_refused_with_what_differs(predict, change, words):
    with pytest.raises(PredictionsError, match=f"^a and b were not made for the same test set: .*{words}"):
        check_same_test_set(predict(1), change(predict(2)), ("a", "b"))


def test_an_image_too_many_is_found_from_either_side(predict):
    fewer = predict(1).filter(pl.col("image") != "0004.png")
    with pytest.raises(PredictionsError, match=r"'0004\.png'.*annotated in the second only"):
        check_same_test_set(fewer, predict(2), ("a", "b"))


def test_no_finding_in_common_is_refused_with_both_lists(predict):
    one, two = predict(1, findings=("Nodule",)), predict(2, findings=("Effusion", "Cardiomegaly"))
    with pytest.raises(PredictionsError, match="a and b have no finding in common: Nodule; and Cardiomegaly, Effusion"):
        check_same_test_set(one, two, ("a", "b"))
