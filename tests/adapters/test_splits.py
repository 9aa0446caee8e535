"""Where a patient goes depends on the patient and the seed, and on nothing else."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.adapters.splits import carve_validation, say_shares, say_validation, split_by_patient
from polyhead.errors import SourceError

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
PATIENTS = st.lists(st.text(max_size=6), min_size=1, max_size=40)


def dealt(patients: list[str], seed: int = 0) -> dict[str, str]:
    series = pl.Series("patient_id", patients, dtype=pl.String)
    return dict(zip(patients, split_by_patient(series, SHARES, seed), strict=True))


def carved(patients: list[str], share: float = 0.3, seed: int = 0) -> dict[str, str]:
    frame = pl.DataFrame({"patient_id": patients, "split": ["train"] * len(patients)})
    return dict(carve_validation(frame, share, seed).select("patient_id", "split").iter_rows())


def in_validation(splits: dict[str, str]) -> set[str]:
    return {patient for patient, split in splits.items() if split == "val"}


@given(PATIENTS, st.integers(0, 5))
def test_a_patient_is_in_one_split_whatever_rows_surround_it(patients: list[str], seed: int) -> None:
    together = dealt([*patients, *reversed(patients)], seed)
    assert together == {patient: dealt([patient], seed)[patient] for patient in patients}
    series = split_by_patient(pl.Series([*patients, *patients]), SHARES, seed)
    assert series[: len(patients)].to_list() == series[len(patients) :].to_list()


@given(PATIENTS, st.integers(0, 5))
def test_carving_knows_no_row_order_and_no_other_patient(patients: list[str], seed: int) -> None:
    assert carved(patients, seed=seed) == carved(sorted(patients), seed=seed)
    assert carved([*patients, "one more"], seed=seed).items() >= carved(patients, seed=seed).items()


@given(PATIENTS, st.floats(0.01, 0.49), st.floats(0.5, 0.99))
def test_a_larger_share_takes_the_same_patients_and_more(patients: list[str], small: float, large: float) -> None:
    few, many = (
        {name for name, split in carved(patients, share).items() if split == "val"} for share in (small, large)
    )
    assert few <= many


def test_where_patients_go_never_changes_between_releases() -> None:
    assert (
        " ".join(dealt([f"p{number}" for number in range(8)], 3).values())
        == "train train test train train test train train"
    )
    assert in_validation(carved([f"p{number}" for number in range(12)], seed=3)) == {"p5", "p6", "p8", "p10", "p11"}


def test_shares_are_met_for_many_patients_and_differ_with_the_seed() -> None:
    patients = [f"patient {number}" for number in range(20_000)]
    splits = list(dealt(patients).values())
    for name, share in SHARES.items():
        # Four standard errors of a share of 20,000.
        assert splits.count(name) / 20_000 == pytest.approx(share, abs=0.013)
    assert list(dealt(patients, 1).values()) != splits
    assert list(carved(patients, 0.1).values()).count("val") / 20_000 == pytest.approx(0.1, abs=0.009)


def test_carving_touches_training_rows_only() -> None:
    frame = pl.DataFrame({"patient_id": list("abcdefgh"), "split": ["test"] * 8})
    assert carve_validation(frame, 0.99, 0)["split"].to_list() == ["test"] * 8


def test_carving_and_dealing_are_not_the_same_draw() -> None:
    """Otherwise a set that is dealt and then carved would have its patients taken from one end of the same line."""
    patients = [f"patient {number}" for number in range(2000)]
    train = [name for name, split in dealt(patients).items() if split == "train"]
    share = list(carved(train, 0.5).values()).count("val") / len(train)
    assert share == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("shares", [{"train": 1.0}, SHARES | {"val": 0.2}, {"train": 1.2, "val": -0.3, "test": 0.1}])
def test_shares_that_are_none_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(SourceError, match="add up to 1"):
        split_by_patient(pl.Series(["a"]), shares, 0)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_validation_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(SourceError, match="above 0 and below 1"):
        carved(["a"], share)


def test_choices_name_share_and_seed() -> None:
    assert say_validation(0.15, 7) == "0.15 of the training patients, by hash with seed 7"
    assert say_shares(SHARES, 7) == "train 0.7, val 0.1, test 0.2 of the patients, by hash with seed 7"
