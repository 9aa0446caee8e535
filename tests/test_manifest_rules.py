"""Rules of a manifest's table, each with a table that breaks it and one that just does not."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.manifest_rules import SPLITS, table_problems, usable_rows
from polyhead.problems import Problem


def table(*rows: tuple[str | None, ...]) -> pl.DataFrame:
    """A sound table of three rows, and more."""
    sound = [("a.png", "1", "train", "1"), ("b.png", "2", "val", "0"), ("c.png", "3", "test", None)]
    return pl.DataFrame([*sound, *rows], ["image", "patient_id", "split", "Edema"], orient="row")


def problems(*rows: tuple[str | None, ...]) -> list[Problem]:
    return list(table_problems(table(*rows)))


def test_a_sound_table_has_no_problem() -> None:
    assert problems(("d.png", "1", "train", "1.0")) == []


@pytest.mark.parametrize(
    ("row", "kind", "said"),
    [
        (("d.png", "1", "train", "2"), "label", "line 5, column 'Edema': '2'"),
        ((None, "1", "train", "1"), "blank", "line 5, column 'image': blank"),
        (("d.png", None, "train", "1"), "blank", "line 5, column 'patient_id': blank"),
        (("d.png", "1", None, "1"), "blank", "line 5, column 'split': blank"),
        (("d.png", "1", "Train", "1"), "split", "line 5, column 'split': 'Train'"),
        (("../d.png", "4", "train", "1"), "path", "line 5, column 'image': '../d.png' leads out"),
        (("a.png", "1", "train", "1"), "row-twice", "line 5, column 'image': 'a.png' stands on an earlier line"),
        (
            ("d.png", "1", "test", "1"),
            "patient-in-two-splits",
            "1 patients are in more than one split, first 1 (test+train)",
        ),
    ],
)
def test_each_rule_finds_its_row_and_nothing_else(row: tuple[str | None, ...], kind: str, said: str) -> None:
    (problem,) = problems(row)
    assert (problem.severity, problem.kind, problem.count) == ("error", kind, 1)
    assert said in problem.text


def test_patients_in_two_splits_are_counted_and_the_first_ones_named_in_the_order_of_their_lines() -> None:
    rows = [(f"{patient}-{split}.png", patient, split, "1") for patient in ("z", "y", "x", "w") for split in SPLITS[:2]]
    (problem,) = problems(*rows)
    assert problem.count == 4
    assert "first z (train+val), y (train+val), x (train+val). Keep" in problem.text


def test_a_split_that_is_none_tears_no_patient() -> None:
    assert [problem.kind for problem in problems(("d.png", "1", "valid", "1"))] == ["split"]


def test_a_patient_cannot_write_to_the_terminal() -> None:
    (problem,) = problems(("d.png", "\x1b[2J", "train", "1"), ("e.png", "\x1b[2J", "test", "1"))
    assert problem.text.isprintable()


def test_of_very_many_lines_a_thousand_are_named_and_all_are_counted() -> None:
    found = problems(*((f"{index}.png", "1", "train", "x") for index in range(1234)))
    assert len(found) == 1001
    assert sum(problem.count for problem in found) == 1234
    assert "234 lines more, the last is 1238" in found[-1].text


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["d.png", "e.png", "/x.png", "a.png", None]),
            st.sampled_from(["1", "9", None]),
            st.sampled_from(["train", "valid", None]),
            st.sampled_from(["1", "0", "2", None]),
        ),
        max_size=5,
    )
)
def test_what_is_usable_has_no_problem_but_labels_and_torn_patients(rows: list[tuple[str | None, ...]]) -> None:
    left = usable_rows(table(*rows))
    assert {problem.kind for problem in table_problems(left)} <= {"label", "patient-in-two-splits"}


def test_a_patient_is_no_finding() -> None:
    (problem,) = table_problems(table().with_columns(pl.lit("1").alias("3")))
    assert problem.text == (
        "line 1: column '3' is the id of a patient, so it cannot be a finding. Give each patient a row."
    )


def test_more_findings_than_anyone_has_are_refused_at_once() -> None:
    (problem,) = table_problems(table().with_columns(pl.lit("1").alias(f"Finding {n}") for n in range(1001)))
    assert "finding columns; at most 1,000 are read" in problem.text
