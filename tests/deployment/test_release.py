"""Whatever a site measured: no small count leaves, no other column, and nothing of a finding that is withheld."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.deployment.release import (
    Policy,
    Release,
    filter_tables,
    of_few_patients,
    policy_words,
    read_policy,
    read_release,
    withheld,
)
from polyhead.errors import StudyError, UpdateError
from polyhead.evaluation import COMPARISONS, METRICS

METHODS, SEEDS, FINDINGS = ("local", "ffl"), (0, 1), ("Edema", "Mass", "Nodule", "mean")
COUNTS = ("positives", "negatives", "patients")
number = st.one_of(st.none(), st.floats(0, 1))
count = st.integers(0, 60)


@st.composite
def tables(draw: st.DrawFn) -> tuple[pl.DataFrame, pl.DataFrame]:
    metrics, comparisons = [], []
    for finding in draw(st.sets(st.sampled_from(FINDINGS))):
        for method in METHODS:
            for metric in ("auroc", "threshold", "sensitivity"):
                row = ("all", "a", finding, metric, *(draw(number) for _ in range(3)))
                metrics.append((method, *row, *(draw(count) for _ in range(3)), 1000))
        comparisons.append(("ffl", "local", "a", finding, "auroc", *(draw(number) for _ in range(5)), 1000))
    return pl.DataFrame(metrics, METRICS, orient="row"), pl.DataFrame(comparisons, COMPARISONS, orient="row")


def counts_of(metrics: pl.DataFrame, finding: str) -> list[int]:
    return [n for row in metrics.filter(finding=finding, metric="auroc").select(COUNTS).rows() for n in row]


@given(tables(), st.integers(1, 30))
def test_no_count_below_the_least_and_no_other_column_leaves(
    both: tuple[pl.DataFrame, pl.DataFrame], least: int
) -> None:
    released = filter_tables(*both, Policy(least=least))
    for row in released.metrics:
        assert row.keys() == {"method", "seed", "finding", "value", "low", "high", *COUNTS}
        told = [row[name] for name in COUNTS if row[name] is not None]
        assert all(n >= least and n % least == 0 for n in told)
        assert row["finding"] == "mean" or len(told) == 3
    for row in released.comparisons:
        assert row.keys() == {"method", "reference", "finding", "difference", "low", "high", "p", "p_holm"}


@given(tables(), st.integers(1, 30))
def test_nothing_of_a_rare_finding_leaves(both: tuple[pl.DataFrame, pl.DataFrame], least: int) -> None:
    released = filter_tables(*both, Policy(least=least))
    hidden = {name for name in FINDINGS[:-1] if any(n < least for n in counts_of(both[0], name))}
    assert hidden == withheld(both[0], Policy(least=least))
    named = {row["finding"] for row in (*released.metrics, *released.comparisons)}
    assert not named & hidden
    if hidden:
        # Both would tell of it: the one by a subtraction, the other by how often it was multiplied.
        assert "mean" not in named
        assert not [row for row in released.comparisons if row["p_holm"] is not None]


@given(tables(), st.integers(1, 30))
def test_what_is_released_passes_at_both_ends(both: tuple[pl.DataFrame, pl.DataFrame], least: int) -> None:
    released = filter_tables(*both, Policy(least=least))
    assert read_release(body_of(released), METHODS, SEEDS) == released


@given(tables())
def test_exact_values_stay(both: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    released = filter_tables(*both, Policy(least=1))
    for row in (*released.metrics, *released.comparisons):
        assert all(value == round(value, 4) for value in row.values() if isinstance(value, float))


@given(tables())
def test_nothing_is_nothing(both: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    assert filter_tables(*both, Policy("nothing")) == Release()


images = st.lists(st.tuples(st.sampled_from("pqrst"), st.sampled_from(FINDINGS[:2]), st.sampled_from([None, 0, 1])))


def predictions(rows: list[tuple[str, str, int | None]]) -> pl.DataFrame:
    """Predictions on images, each of a patient, for a finding, with its label."""
    whole = [(f"{n}.png", *row, 0.5) for n, row in enumerate(rows)]
    kinds = {"image": pl.String, "patient_id": pl.String, "finding": pl.String, "label": pl.Int8, "score": pl.Float64}
    return pl.DataFrame(whole, kinds, orient="row")


@given(images, st.integers(1, 3))
def test_a_finding_leaves_if_enough_patients_have_it_and_enough_others_lack_it(
    rows: list[tuple[str, str, int | None]], least: int
) -> None:
    hidden = of_few_patients([predictions(rows)], Policy(least=least))
    for finding in {finding for _, finding, _ in rows}:
        of_it = [(patient, label) for patient, name, label in rows if name == finding]
        have = {patient for patient, label in of_it if label == 1}
        lack = {patient for patient, label in of_it if label == 0} - have
        assert (finding in hidden) == (min(len(have), len(lack)) < least)


def test_many_images_of_one_patient_are_few() -> None:
    rows = [("one", "Mass", 1) for _ in range(12)] + [(f"p{n}", "Mass", 0) for n in range(40)]
    assert of_few_patients([predictions(rows)], Policy(least=10)) == {"Mass"}
    many = [(f"q{n}", "Mass", 1) for n in range(10)]
    assert of_few_patients([predictions(rows + many)], Policy(least=10)) == set()
    # Of one of its methods' models is enough.
    assert of_few_patients([predictions(rows + many), predictions(rows)], Policy(least=10)) == {"Mass"}
    turned = [(patient, finding, 1 - label) for patient, finding, label in rows]
    assert of_few_patients([predictions(turned)], Policy(least=10)) == {"Mass"}


def body_of(release: Release) -> dict[str, Any]:
    return {"metrics": list(release.metrics), "comparisons": list(release.comparisons)}


METRIC = dict.fromkeys(("value", "low", "high"), 0.5) | dict.fromkeys(COUNTS, 10)
GOOD = {"method": "ffl", "seed": "all", "finding": "Edema", **METRIC}


@pytest.mark.parametrize(
    "change",
    [
        {"patient_id": "p1"},
        {"method": "central"},
        {"seed": "7"},
        {"seed": 0},
        {"finding": "=HYPERLINK(1)"},
        {"finding": "a\nb"},
        {"finding": "x" * 201},
        {"finding": ""},
        {"value": 1},
        {"value": float("nan")},
        {"value": 1.5},
        {"value": "0.5"},
        {"positives": True},
        {"positives": -1},
        {"positives": 9.5},
    ],
)
def test_what_is_no_result_is_refused(change: dict[str, object]) -> None:
    read_release({"metrics": [GOOD], "comparisons": []}, METHODS, SEEDS)
    with pytest.raises(UpdateError, match="are no results"):
        read_release({"metrics": [GOOD | change], "comparisons": []}, METHODS, SEEDS)


@pytest.mark.parametrize(
    "rows", [None, {}, "x", [1], [{}], [GOOD, GOOD], [{k: v for k, v in GOOD.items() if k != "p"}] * 2]
)
def test_what_are_no_rows_is_refused(rows: object) -> None:
    with pytest.raises(UpdateError):
        read_release({"metrics": rows, "comparisons": []}, METHODS, SEEDS)


def test_a_policy_is_read_and_said(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text('manifest = "m.csv"\n')
    assert read_policy(file) == Policy("auroc", 10)
    assert "multiples of 10" in policy_words(read_policy(file))
    file.write_text('[release]\nmetrics = "nothing"\n')
    assert policy_words(read_policy(file)) == "No result leaves this house."


@pytest.mark.parametrize(
    "text",
    [
        "release = 1",
        "[release]\nleast = 0",
        "[release]\nleast = true",
        '[release]\nmetrics = "all"',
        "[release]\nmost = 3",
    ],
)
def test_what_is_no_policy_is_refused_with_what_is(text: str, tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(text)
    with pytest.raises(StudyError, match="release"):
        read_policy(tmp_path / "site.toml")
