"""Uncertain and silent labels become what the policy says, and nothing else changes."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.adapters.labels import (
    Policy,
    apply_policies,
    complete_no_finding,
    listed_labels,
    policy_value,
    read_labels,
)
from polyhead.errors import SourceError

POLICIES: list[Policy] = ["blank", "negative", "positive"]
VALUES = {"blank": None, "negative": 0, "positive": 1}


def labels(**columns: list[int | None]) -> pl.DataFrame:
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Int8))


@given(
    st.lists(st.sampled_from([1, 0, -1, None]), min_size=1, max_size=20),
    st.sampled_from(POLICIES),
    st.sampled_from(POLICIES),
)
def test_each_label_follows_its_policy(values: list[int | None], uncertain: Policy, not_mentioned: Policy) -> None:
    settled = apply_policies(labels(a=values, b=values), ["a"], uncertain=uncertain, not_mentioned=not_mentioned)
    meaning = {1: 1, 0: 0, -1: VALUES[uncertain], None: VALUES[not_mentioned]}
    assert settled["a"].to_list() == [meaning[value] for value in values]
    assert settled["a"].dtype == pl.Int8
    assert settled["b"].to_list() == values


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_is_a_label(policy: Policy) -> None:
    assert policy_value(policy) == VALUES[policy]


def test_no_finding_is_denied_by_a_finding_doubted_by_an_uncertain_one_and_else_left() -> None:
    frame = labels(
        **{
            "No Finding": [None, None, None, None, None, 1, 0],
            "Edema": [1, -1, 0, None, 1, 1, None],
            "Mass": [-1, None, 0, None, None, None, None],
            "Support Devices": [None, None, 1, 1, 0, 1, None],
        }
    )
    completed = complete_no_finding(frame, frame.columns, apart=["Support Devices"])
    assert completed["No Finding"].to_list() == [0, -1, None, None, 0, 1, 0]
    assert completed.drop("No Finding").equals(frame.drop("No Finding"))


def test_labels_are_read_in_the_spellings_that_are_published() -> None:
    frame = pl.DataFrame({"a": ["1", "0.0", "-1.0", None, "-1", "1.0", "0"]})
    assert read_labels(frame, ["a"], Path("t.csv"))["a"].to_list() == [1, 0, -1, None, -1, 1, 0]


@pytest.mark.parametrize("value", ["2", "0.5", "-2.0", "yes", "nan", "01"])
def test_any_other_label_is_named_with_its_line(value: str) -> None:
    frame = pl.DataFrame({"a": ["1", None, value, value]})
    with pytest.raises(SourceError, match=rf"t\.csv, line 4, column 'a': '{value}' \(2 such\)"):
        read_labels(frame, ["a"], Path("t.csv"))


def test_what_a_list_does_not_name_is_0_or_blank_if_the_list_is_not_complete() -> None:
    frame = pl.DataFrame({"list": [["a"], ["b", "a"], ["b"], []], "complete": [True, True, False, False]})
    told = frame.select(listed_labels(pl.col("list"), ["a", "b"], complete=pl.col("complete")))
    assert told["a"].to_list() == [1, 1, None, None]
    assert told["b"].to_list() == [0, 1, 1, None]
    assert frame.select(listed_labels(pl.col("list"), ["a"]))["a"].to_list() == [1, 1, 0, 0]
