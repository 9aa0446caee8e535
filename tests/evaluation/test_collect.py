"""Which predictions belong together, and what is refused before anything is measured."""

import shutil

import polars as pl
import pytest

from polyhead.errors import PredictionsError, RunError
from polyhead.evaluation import evaluate_files, evaluate_run
from polyhead.predictions import read_predictions
from tests.evaluation.conftest import METHODS, flipped, rewrite, tables_of_test


def test_by_default_the_baselines_come_first(run):
    for method in ("conventional", "central"):
        shutil.copytree(run / "predictions/ffl", run / "predictions" / method)
    metrics = evaluate_run(run, 5).metrics
    assert metrics["method"].unique(maintain_order=True).to_list() == ["local", "conventional", "central", "ffl"]


@pytest.mark.parametrize(
    ("methods", "words"), [(["local", "surgical"], "no predictions of surgical; found: local, ffl"), ([], "any method")]
)
def test_a_method_without_predictions_is_refused(run, methods, words):
    with pytest.raises(RunError, match=words):
        evaluate_run(run, 5, methods)


def test_an_empty_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="no predictions of any method; found: none"):
        evaluate_run(tmp_path, 5)


def test_a_missing_seed_or_file_is_refused(run):
    (run / "predictions/ffl/seed-1/north/val.parquet").unlink()
    with pytest.raises(PredictionsError, match=r"seed-1/north/val\.parquet"):
        evaluate_run(run, 5, METHODS)
    (run / "predictions/ffl/seed-1/north/test.parquet").unlink()
    (run / "predictions/ffl/seed-1/north").rmdir()
    with pytest.raises(RunError, match=r"site north: local has the seeds \[0, 1\], but ffl has \[0\]"):
        evaluate_run(run, 5, METHODS)


def test_a_folder_that_is_no_seed_is_refused_and_hidden_ones_are_not_seen(run):
    (run / "predictions/ffl/.seed-2/north").mkdir(parents=True)
    evaluate_run(run, 5, METHODS)
    (run / "predictions/ffl/old/north").mkdir(parents=True)
    with pytest.raises(RunError, match="ffl/old: not a seed's folder"):
        evaluate_run(run, 5, METHODS)


def test_seeds_sort_as_numbers(run):
    for method in METHODS:
        (run / f"predictions/{method}/seed-1").rename(run / f"predictions/{method}/seed-10")
        (run / f"predictions/{method}/seed-0").rename(run / f"predictions/{method}/seed-9")
    metrics = evaluate_run(run, 5, METHODS).metrics
    assert metrics["seed"].unique(maintain_order=True).to_list() == ["9", "10", "all"]


def test_another_test_set_is_refused(run):
    rewrite(run / "predictions/ffl/seed-1/south/test.parquet", flipped)
    with pytest.raises(
        PredictionsError, match=r"ffl/seed-0/south and .*ffl/seed-1/south were not made for the same test"
    ):
        evaluate_run(run, 5, METHODS)
    rewrite(run / "predictions/ffl/seed-0/south/test.parquet", flipped)
    with pytest.raises(
        PredictionsError, match=r"local/seed-0/south and .*ffl/seed-0/south were not made for the same test"
    ):
        evaluate_run(run, 5, METHODS)


def test_seeds_with_different_findings_are_refused(run):
    path = run / "predictions/ffl/seed-1/south/test.parquet"
    rewrite(path, lambda table: table.filter(pl.col("finding") != "Effusion"))
    with pytest.raises(PredictionsError, match="only one of them predicts 'Effusion'"):
        evaluate_run(run, 5, METHODS)


def test_an_image_of_two_patients_is_refused(run):
    def shared(table):
        odd = (pl.col("image") == "0000.png") & (pl.col("finding") == "Nodule")
        return table.with_columns(patient_id=pl.when(odd).then(pl.lit("p044")).otherwise("patient_id"))

    rewrite(run / "predictions/ffl/seed-0/north/test.parquet", shared)
    with pytest.raises(PredictionsError, match=r"image '0000\.png' belongs to the patients 'p000', 'p044'"):
        evaluate_run(run, 5, METHODS)


def test_a_finding_called_mean_is_refused(run):
    for path in tables_of_test(run):
        rewrite(path, lambda table: table.with_columns(finding=pl.col("finding").replace("Nodule", "mean")))
    with pytest.raises(PredictionsError, match="a finding is called 'mean'"):
        evaluate_run(run, 5, METHODS)


def test_a_score_that_is_nan_is_refused_with_its_row(run):
    path = run / "predictions/ffl/seed-0/north/test.parquet"
    table = read_predictions(path)
    table.with_columns(score=pl.when(pl.int_range(pl.len()) == 4).then(float("nan")).otherwise("score")).write_parquet(
        path
    )
    with pytest.raises(PredictionsError, match=r"ffl/seed-0/north/test\.parquet, row 5, column 'score': nan"):
        evaluate_run(run, 5, METHODS)


def test_files_of_one_name_and_no_file_are_refused(tmp_path):
    with pytest.raises(PredictionsError, match="2 files are called 'a'"):
        evaluate_files([tmp_path / "a.csv", tmp_path / "a.parquet"], tmp_path)
    with pytest.raises(PredictionsError, match="no file was given"):
        evaluate_files([], tmp_path)
