"""Heads on other sites' test images: what is counted, what is NA, and what is not believed."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from polyhead.errors import PolyheadError, PredictionsError, RunError
from polyhead.evaluation import CROSS_SITE, evaluate_cross_site
from polyhead.predictions import write_predictions

IMAGES = 40


def table(columns: dict[str, list[int | None]], seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    parts = [
        pl.DataFrame(
            {
                "image": [f"{i}.png" for i in range(IMAGES)],
                "patient_id": [f"p{i // 2}" for i in range(IMAGES)],
                "finding": name,
                "label": pl.Series(labels, dtype=pl.Int8),
                "score": rng.random(IMAGES).round(2),
            }
        )
        for name, labels in columns.items()
    ]
    return pl.concat(parts)


def labels_of(seed: int) -> list[int | None]:
    return [int(one) for one in np.random.default_rng(seed).integers(0, 2, IMAGES)]


EDEMA, MASS = labels_of(1), labels_of(2)
BLANK: list[int | None] = [None] * IMAGES
NEGATIVE: list[int | None] = [0] * 30 + [None] * 10


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Heads of north and south; south and east have test images. South trained edema, east nothing of either."""
    for seed in (0, 1):
        columns = {"Edema (north)": EDEMA, "Mass (north)": BLANK, "oedema (south)": EDEMA}
        write(tmp_path, seed, "south", table(columns, seed))
        write(
            tmp_path,
            seed,
            "east",
            table({"Edema (north)": NEGATIVE, "Mass (north)": MASS, "oedema (south)": NEGATIVE}, 9),
        )
        for site, own in {"south": {"oedema": EDEMA, "Nodule": MASS}, "east": {"Nodule": MASS}}.items():
            folder = tmp_path / f"predictions/ffl/seed-{seed}/{site}"
            write_predictions(table(own, 10 + seed), folder / "test.parquet")
    return tmp_path


def write(run: Path, seed: int, site: str, predictions: pl.DataFrame) -> None:
    write_predictions(predictions, run / f"union/ffl/seed-{seed}/predictions/{site}/test.parquet")


def evaluate(run: Path) -> pl.DataFrame:
    found = evaluate_cross_site(run, 200, ["local", "ffl"], {})
    assert found is not None
    assert found.equals(pl.read_csv(run / "cross_site.csv", schema=CROSS_SITE))
    return found


def test_a_row_for_each_head_and_other_site_that_annotates(run: Path) -> None:
    found = evaluate(run)
    assert found.select("seed", "head_site", "data_site", "finding").rows() == [
        (seed, *rest)
        for site, cells in {
            "east": [("north", "east", "Edema"), ("south", "east", "Edema"), ("north", "east", "Mass")],
            # Not its own head, nor what it has no label of.
            "south": [("north", "south", "Edema")],
        }.items()
        for seed in ("0", "1", "all")
        for rest in cells
    ]
    assert set(found["method"]) == {"ffl"}


def test_auroc_and_own_are_scikit_learns_and_the_difference_is_theirs(run: Path) -> None:
    rows = evaluate(run).filter(pl.col("data_site") == "south").to_dicts()
    values = []
    for seed, row in zip((0, 1), rows, strict=False):
        theirs = table({"Edema (north)": EDEMA}, seed)["score"]
        own = table({"oedema": EDEMA}, 10 + seed)["score"]
        values.append((roc_auc_score(EDEMA, theirs), roc_auc_score(EDEMA, own)))
        assert (row["auroc"], row["own"]) == pytest.approx(values[-1], abs=1e-12)
        assert row["difference"] == pytest.approx(values[-1][0] - values[-1][1], abs=1e-12)
        assert row["low"] < row["auroc"] < row["high"]
        assert row["difference_low"] < row["difference"] < row["difference_high"]
        assert (row["positives"], row["negatives"], row["patients"]) == (EDEMA.count(1), EDEMA.count(0), 20)
    assert rows[2]["auroc"] == pytest.approx(np.mean(values, axis=0)[0], abs=1e-12)
    assert rows[2]["own"] == pytest.approx(np.mean(values, axis=0)[1], abs=1e-12)


def test_against_itself_a_head_gains_and_loses_nothing(run: Path) -> None:
    """In every replicate: both are measured on the same patients."""
    for seed in (0, 1):
        own = table({"oedema": EDEMA, "Nodule": MASS}, seed)
        write_predictions(own, run / f"predictions/ffl/seed-{seed}/south/test.parquet")
    for row in evaluate(run).filter(pl.col("data_site") == "south").to_dicts():
        assert row["auroc"] == row["own"]
        assert (row["difference"], row["difference_low"], row["difference_high"]) == (0, 0, 0)


def test_of_one_class_there_is_no_number_but_counts(run: Path) -> None:
    rows = evaluate(run).filter(pl.col("data_site") == "east", pl.col("finding") == "Edema").to_dicts()
    assert len(rows) == 6
    for row in rows:
        assert (row["positives"], row["negatives"], row["patients"], row["replicates_used"]) == (0, 30, 15, 0)
        assert all(row[name] is None for name in ("auroc", "low", "high", "own", "difference"))


def test_a_site_that_did_not_train_the_finding_has_no_own(run: Path) -> None:
    rows = evaluate(run).filter(pl.col("finding") == "Mass").to_dicts()
    assert [row["auroc"] is not None for row in rows] == [True] * 3
    assert {row[name] for row in rows for name in ("own", "difference", "difference_low", "difference_high")} == {None}


@pytest.mark.parametrize(("aliases", "finding"), [({}, "Normal"), ({"Normal": "No Finding"}, "No Finding")])
def test_the_studys_aliases_decide_which_head_is_its_own(aliases: dict[str, str], finding: str, run: Path) -> None:
    for seed in (0, 1):
        write(run, seed, "east", table({"Normal (north)": MASS}, seed))
        write_predictions(table({"No Finding": MASS}, 7), run / f"predictions/ffl/seed-{seed}/east/test.parquet")
    found = evaluate_cross_site(run, 200, ["ffl"], aliases)
    assert found is not None
    rows = found.filter(pl.col("data_site") == "east").to_dicts()
    assert {(row["finding"], row["own"] is not None) for row in rows} == {(finding, bool(aliases))}


def test_no_order_of_rows_changes_a_number(run: Path) -> None:
    before = evaluate(run)
    for file in run.rglob("test.parquet"):
        pl.read_parquet(file).sample(fraction=1, shuffle=True, seed=3).write_parquet(file)
    assert evaluate(run).equals(before)


def test_where_nothing_was_released_there_is_no_table(tmp_path: Path) -> None:
    assert evaluate_cross_site(tmp_path, 200, ["ffl"], {}) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["seed-1", "seed-1/predictions/east"])
def test_what_is_not_there_yet_is_asked_for(missing: str, run: Path) -> None:
    shutil.rmtree(run / "union/ffl" / missing)
    with pytest.raises(RunError, match=rf"union/ffl/{missing}.*Finish the run"):
        evaluate(run)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"Edema": EDEMA}, r"'Edema' names no site\. Allowed: a finding and its site, as 'Edema \(harbour\)'"),
        ({"Edema (north)": MASS}, "were not made for the same test set: image"),
    ],
)
def test_what_cannot_be_trusted_is_named(columns: dict[str, list[int | None]], message: str, run: Path) -> None:
    for seed in (0, 1):
        write(run, seed, "south", table(columns, seed))
    with pytest.raises(PredictionsError, match=message) as problem:
        evaluate(run)
    assert "union/ffl/seed-0/predictions/south/test.parquet" in str(problem.value)
    assert isinstance(problem.value, PolyheadError)
