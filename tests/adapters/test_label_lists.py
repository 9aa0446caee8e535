"""Python's lists as text, read without Python."""

import ast
from collections import Counter

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from polyhead.adapters.label_lists import frequent_labels, one_spelling, parse_label_lists

PLAIN = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), max_size=12)
LISTS = st.lists(st.lists(st.sampled_from(["a", "A", "b", "B b", "b b", "c"]), max_size=4), min_size=1, max_size=30)


def parse(text: str | None) -> list[str] | None:
    return parse_label_lists(pl.Series("labels", [text], dtype=pl.String)).to_list()[0]


def cleaned(labels: list[str]) -> list[str]:
    single = (" ".join(label.split()) for label in labels)
    return list(dict.fromkeys(label for label in single if label not in ("", "nan", "None")))


@given(st.lists(PLAIN, max_size=5))
@example(["it's", 'say "a"'])
@example(["'", '"'])
@example(["a\u00a0b", "nan"])
def test_a_printed_list_is_read_back_unless_it_needs_escapes(labels: list[str]) -> None:
    text = repr(labels)
    assert parse(text) == (None if "\\" in text else cleaned(labels))


@given(st.text(max_size=40))
@example("['a\x00', 'b\x85']")
def test_any_text_is_a_list_of_parts_of_it_or_null(text: str) -> None:
    read = parse(text)
    assert read is None or all(label in " ".join(text.split()) for label in read)


@given(st.text(alphabet="[]'\", ac\\", max_size=24))
def test_what_is_read_as_a_list_is_what_python_means_by_it(text: str) -> None:
    read = parse(text)
    assert read is None or read == cleaned(ast.literal_eval(text.strip()))


@pytest.mark.parametrize(
    "text",
    [
        "['a' 'b']",
        "['a',",
        "['a]",
        "a",
        "['a'], ['b']",
        "[a]",
        "['a', 1]",
        "__import__('os')",
        "['a\\'b']",
        "[,]",
        "['a',,]",
    ],
)
def test_what_is_no_list_of_labels_is_null(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("[]", []),
        ("[nan]", []),
        ("[None, 'a']", ["a"]),
        ("['', ' Pleural  effusion', 'x', 'x', ]", ["Pleural effusion", "x"]),
        (" [ 'a' ,\n'b' ] ", ["a", "b"]),
        ("['kyphosis\nsevere']", ["kyphosis severe"]),
        (None, None),
    ],
)
def test_what_is_one_is_cleaned(text: str | None, labels: list[str] | None) -> None:
    assert parse(text) == labels


@given(LISTS)
def test_spellings_that_differ_in_case_become_the_usual_one(lists: list[list[str]]) -> None:
    rows = [list(dict.fromkeys(labels)) for labels in lists]
    counts = Counter(label for labels in rows for label in labels)
    usual = {
        label: min((-counts[other], other) for other in counts if other.lower() == label.lower())[1] for label in counts
    }
    expected = [list(dict.fromkeys(usual[label] for label in labels)) for labels in rows]
    assert one_spelling(pl.Series("labels", rows, dtype=pl.List(pl.String))).to_list() == expected


def test_frequent_labels_can_name_a_finding() -> None:
    rows = [["b", "split", "=1+1", "mean", "Age"], ["b", "a", "split", "=1+1", "mean", "Age"], None, ["a"], ["c"]]
    lists = pl.Series("labels", rows, dtype=pl.List(pl.String))
    assert frequent_labels(lists, 2) == ("a", "b")
    assert frequent_labels(lists, 3) == ()
