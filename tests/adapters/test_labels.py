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


FRAME = labels(
    **{
        "No Finding": [None, None, None, None, None, 1, 0, None],
        "Edema": [1, -1, 0, None, 1, 1, None, -1],
        "Mass": [-1, 0, 0, None, None, None, None, 1],
        "Support Devices": [None, -1, 1, 1, 0, 1, None, -1],
    }
)


@pytest.mark.parametrize(
    ("uncertain", "not_mentioned", "expected"),
    [
        ("blank", "blank", [0, None, None, None, 0, 1, 0, 0]),
        ("blank", "negative", [0, None, 0, 0, 0, 1, 0, 0]),
        ("blank", "positive", [0, None, 1, 0, 0, 1, 0, 0]),
        ("negative", "blank", [0, None, None, None, 0, 1, 0, 0]),
        ("negative", "positive", [0, 1, 1, 0, 0, 1, 0, 0]),
        ("positive", "blank", [0, 0, None, None, 0, 1, 0, 0]),
        ("positive", "positive", [0, 0, 1, 0, 0, 1, 0, 0]),
    ],
)
def test_a_blank_no_finding_is_what_the_settled_findings_leave_of_it(
    uncertain: Policy, not_mentioned: Policy, expected: list[int | None]
) -> None:
    policies = {"uncertain": uncertain, "not_mentioned": not_mentioned}
    completed = complete_no_finding(FRAME, FRAME.columns, apart=["Support Devices"], **policies)
    assert completed["No Finding"].to_list() == expected
    assert completed.drop("No Finding").equals(
        apply_policies(FRAME, FRAME.columns, **policies).drop("No Finding"), null_equal=True
    )
    assert set(completed.dtypes) == {pl.Int8}


@given(
    st.lists(st.tuples(*[st.sampled_from([1, 0, -1, None])] * 3), min_size=1),
    st.sampled_from([None, -1]),
    st.sampled_from(POLICIES),
    st.sampled_from(POLICIES),
)
def test_nothing_is_found_and_present_at_once(
    rows: list[tuple[int | None, ...]], stated: int | None, uncertain: Policy, not_mentioned: Policy
) -> None:
    frame = labels(**{name: [row[place] for row in rows] for place, name in enumerate(["a", "b", "c"])})
    frame = frame.with_columns(pl.lit(stated, pl.Int8).alias("No Finding"))
    policies = {"uncertain": uncertain, "not_mentioned": not_mentioned}
    completed = complete_no_finding(frame, frame.columns, **policies)
    shown = completed.filter(pl.any_horizontal(pl.col("a", "b", "c") == 1))
    assert shown["No Finding"].to_list() == [0] * shown.height


def test_labels_are_read_in_the_spellings_that_are_published() -> None:
    frame = pl.DataFrame({"a": ["1", "0.0", "-1.0", None, "-1", "1.0", "0"]})
    assert read_labels(frame, ["a"], Path("t.csv"))["a"].to_list() == [1, 0, -1, None, -1, 1, 0]


@pytest.mark.parametrize("value", ["2", "0.5", "-2.0", "yes", "nan", "01"])
def test_any_other_label_is_named_with_its_line(value: str) -> None:
    frame = pl.DataFrame({"a": ["1", None, value, value]})
    with pytest.raises(SourceError, match=rf"t\.csv, line 4, column 'a': '{value}' \(2 such\)"):
        read_labels(frame, ["a"], Path("t.csv"))


@pytest.mark.parametrize("value", ["-1", "-1.0", None])
def test_where_labels_are_decided_uncertain_and_blank_ones_are_none(value: str | None) -> None:
    frame = pl.DataFrame({"a": ["1", "0.0", value]})
    with pytest.raises(SourceError, match=rf"line 4, column 'a': {value!r} \(1 such\)\. Allowed: 1 or 0\."):
        read_labels(frame, ["a"], Path("t.csv"), decided=True)
    assert read_labels(frame.head(2), ["a"], Path("t.csv"), decided=True)["a"].to_list() == [1, 0]


def test_what_a_list_does_not_name_is_0_or_blank_if_the_list_is_not_complete() -> None:
    frame = pl.DataFrame({"list": [["a"], ["b", "a"], ["b"], []], "complete": [True, True, False, False]})
    told = frame.select(listed_labels(pl.col("list"), ["a", "b"], complete=pl.col("complete")))
    assert told["a"].to_list() == [1, 1, None, None]
    assert told["b"].to_list() == [0, 1, 1, None]
    assert frame.select(listed_labels(pl.col("list"), ["a"]))["a"].to_list() == [1, 1, 0, 0]
