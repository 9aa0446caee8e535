"""The whole way from files to the two tables, each number found again by a shorter way."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from sklearn.metrics import roc_auc_score

from polyhead.errors import PredictionsError, UsageError
from polyhead.evaluation import COMPARISONS, METRICS, evaluate_files, evaluate_run, youden_threshold
from polyhead.evaluation.bootstrap import patient_weights
from polyhead.predictions import read_predictions, write_predictions
from polyhead.seeds import derive_seed
from tests.evaluation.conftest import METHODS, flipped, rewrite, tables_of_test


def _row(table, **wanted):
    found = table.filter(pl.all_horizontal(pl.col(name) == value for name, value in wanted.items()))
    assert len(found) == 1, (wanted, found)
    return found.row(0, named=True)


def _one_class(table):
    nodule = pl.col("finding") == "Nodule"
    return table.with_columns(label=pl.when(nodule).then(0).otherwise("label"))


def test_the_files_are_the_tables_with_the_promised_columns(run):
    evaluation = evaluate_run(run, 50, METHODS)
    contract = [
        "method",
        "seed",
        "site",
        "finding",
        "metric",
        "value",
        "low",
        "high",
        "positives",
        "negatives",
        "patients",
    ]
    assert list(METRICS)[:11] == contract
    contract = ["method", "reference", "site", "finding", "metric", "difference", "low", "high", "p", "p_holm"]
    assert list(COMPARISONS)[:10] == contract
    assert_frame_equal(pl.read_csv(run / "metrics.csv", schema=METRICS), evaluation.metrics)
    assert_frame_equal(pl.read_csv(run / "comparisons.csv", schema=COMPARISONS), evaluation.comparisons)
    assert sorted(path.name for path in run.iterdir()) == ["comparisons.csv", "metrics.csv", "predictions"]


def test_every_model_and_metric_has_its_row(run):
    metrics = evaluate_run(run, 20, METHODS).metrics
    of_seed = 3 * 4 + 1  # findings x (auroc, threshold, sensitivity, specificity), and the mean AUROC
    of_all = 3 * 3 + 1  # without thresholds
    assert len(metrics) == 2 * 2 * (2 * of_seed + of_all)
    assert metrics["method"].unique(maintain_order=True).to_list() == METHODS
    assert set(metrics["seed"]) == {"0", "1", "all"}


def test_values_and_intervals_equal_a_plain_loop_over_patients(run):
    metrics = evaluate_run(run, 60, METHODS).metrics
    table = read_predictions(run / "predictions/ffl/seed-1/south/test.parquet")
    nodule = table.filter(pl.col("finding") == "Nodule")
    patients = sorted(table["patient_id"].unique())
    weights = patient_weights(len(patients), 60, derive_seed("bootstrap", "south"))
    label, score = nodule["label"].to_numpy(), nodule["score"].to_numpy()
    weight = weights[[patients.index(patient) for patient in nodule["patient_id"]]]
    replicates = [roc_auc_score(label, score, sample_weight=weight[:, k]) for k in range(60)]
    row = _row(metrics, method="ffl", seed="1", site="south", finding="Nodule", metric="auroc")
    assert row["value"] == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    assert [row["low"], row["high"]] == pytest.approx(list(np.quantile(replicates, [0.025, 0.975])), abs=1e-12)
    assert (row["positives"], row["negatives"], row["patients"]) == (label.sum(), (1 - label).sum(), len(patients))
    assert row["replicates_used"] == 60


def test_mean_and_all_are_plain_averages_of_the_values(run):
    metrics = evaluate_run(run, 20, METHODS).metrics.filter(pl.col("metric") == "auroc", pl.col("site") == "north")
    singles = metrics.filter(pl.col("seed") != "all", pl.col("finding") != "mean", pl.col("method") == "ffl")
    mean = _row(metrics, method="ffl", seed="all", finding="mean")
    assert mean["value"] == pytest.approx(singles["value"].mean(), abs=1e-12)
    assert mean["positives"] == singles.filter(pl.col("seed") == "0")["positives"].sum()
    assert mean["patients"] == 60


def test_sensitivity_and_specificity_use_the_validation_threshold(run):
    metrics = evaluate_run(run, 20, METHODS).metrics
    folder = run / "predictions/local/seed-0/north"
    val, test = (
        read_predictions(folder / f"{split}.parquet").filter(pl.col("finding") == "Effusion")
        for split in ("val", "test")
    )
    threshold = youden_threshold(val["label"].to_numpy(), val["score"].to_numpy())
    called = test["score"].to_numpy() >= threshold
    present = test["label"].to_numpy() == 1
    which = {"method": "local", "seed": "0", "site": "north", "finding": "Effusion"}
    row = _row(metrics, **which, metric="threshold")
    assert (row["value"], row["low"], row["high"]) == (threshold, None, None)
    assert row["positives"] == val["label"].sum()
    sensitivity, specificity = (_row(metrics, **which, metric=name) for name in ("sensitivity", "specificity"))
    assert sensitivity["value"] == pytest.approx(called[present].mean(), abs=1e-12)
    assert specificity["value"] == pytest.approx((~called[~present]).mean(), abs=1e-12)
    assert sensitivity["low"] < sensitivity["value"] < sensitivity["high"]


def test_thresholds_never_see_the_test_set(run):
    def thresholds():
        return evaluate_run(run, 5, METHODS).metrics.filter(pl.col("metric") == "threshold")

    clean = thresholds()
    for path in tables_of_test(run):
        rewrite(path, flipped)
    assert_frame_equal(thresholds(), clean, check_exact=True)
    for path in tables_of_test(run):
        rewrite(path.with_name("val.parquet"), flipped)
    assert (thresholds()["value"] != clean["value"]).sum() > len(clean) / 2


def test_comparisons_are_of_the_seed_means_on_the_same_replicates(run):
    evaluation = evaluate_run(run, 200, METHODS)
    comparisons = evaluation.comparisons
    assert set(zip(comparisons["method"], comparisons["reference"], strict=True)) == {("ffl", "local")}
    assert comparisons.filter(pl.col("site") == "north")["finding"].to_list() == [
        "Cardiomegaly",
        "Effusion",
        "Nodule",
        "mean",
    ]
    for site in ("north", "south"):
        for finding in ("Nodule", "mean"):
            which = {"site": site, "finding": finding, "metric": "auroc"}
            ours, theirs = (_row(evaluation.metrics, method=m, seed="all", **which)["value"] for m in ("ffl", "local"))
            row = _row(comparisons, **which)
            assert row["difference"] == pytest.approx(ours - theirs, abs=1e-12)
            assert row["low"] < row["difference"] < row["high"]
            assert 0 < row["p"] <= row["p_holm"] <= 1


def test_each_method_is_compared_with_every_one_before_it(run):
    (run / "predictions/local").rename(run / "predictions/third")
    for seed in (0, 1):
        for site in ("north", "south"):
            for split in ("val", "test"):
                path = f"predictions/{{}}/seed-{seed}/{site}/{split}.parquet"
                write_predictions(read_predictions(run / path.format("third")), run / path.format("local"))
    comparisons = evaluate_run(run, 30, ["local", "third", "ffl"]).comparisons
    pairs = list(dict.fromkeys(zip(comparisons["method"], comparisons["reference"], strict=True)))
    assert pairs == [("third", "local"), ("ffl", "local"), ("ffl", "third")]
    same = comparisons.filter(pl.col("method") == "third")
    assert set(same["difference"]) == set(same["low"]) == set(same["high"]) == {0.0}
    assert set(same["p"]) == set(same["p_holm"]) == {1.0}


def test_the_mean_is_outside_the_family_of_holm(run):
    comparisons = evaluate_run(run, 200, METHODS).comparisons
    mean = comparisons.filter(pl.col("finding") == "mean")
    assert mean["p"].to_list() == mean["p_holm"].to_list()
    family = comparisons.filter(pl.col("finding") != "mean", pl.col("site") == "south")
    assert family["p_holm"].min() == pytest.approx(min(1, 3 * family["p"].min()))


def test_one_class_is_blank_with_its_counts(run):
    for path in tables_of_test(run):
        rewrite(path, _one_class)
    evaluation = evaluate_run(run, 50, METHODS)
    measured = evaluation.metrics.filter(pl.col("finding") == "Nodule", pl.col("metric") != "threshold")
    assert measured.select("value", "low", "high").null_count().row(0) == (len(measured),) * 3
    assert set(measured["positives"]) == {0}
    assert set(measured["negatives"]) == {180, 120}
    assert set(measured["replicates_used"]) == {0}
    compared = evaluation.comparisons.filter(pl.col("finding") == "Nodule")
    assert compared.select("difference", "low", "high", "p", "p_holm").null_count().row(0) == (len(compared),) * 5
    assert "NaN" not in (run / "metrics.csv").read_text() + (run / "comparisons.csv").read_text()
    # The mean is that of the two others, in full.
    mean = _row(evaluation.metrics, method="ffl", seed="0", site="north", finding="mean")
    two = evaluation.metrics.filter(
        pl.col("method") == "ffl", pl.col("seed") == "0", pl.col("site") == "north", pl.col("metric") == "auroc"
    ).filter(pl.col("finding").is_in(["Cardiomegaly", "Effusion"]))
    assert mean["value"] == pytest.approx(two["value"].mean(), abs=1e-12)
    assert mean["replicates_used"] == 50


def test_one_class_in_validation_has_no_threshold_but_an_auroc(run):
    for path in tables_of_test(run):
        rewrite(path.with_name("val.parquet"), _one_class)
    metrics = evaluate_run(run, 20, METHODS).metrics.filter(pl.col("finding") == "Nodule")
    assert metrics.filter(pl.col("metric") == "auroc")["value"].null_count() == 0
    without = metrics.filter(pl.col("metric") != "auroc")
    assert without["value"].null_count() == len(without)


def test_replicates_with_one_class_are_left_out_and_counted(run):
    def rare(table):
        return table.with_columns(
            label=pl.when(pl.col("finding") == "Nodule").then(pl.col("image") == "0000.png").otherwise("label")
        )

    for path in tables_of_test(run):
        rewrite(path, rare)
    evaluation = evaluate_run(run, 400, METHODS)
    # One patient of 60 has it: a replicate misses it with the chance (59 / 60) ** 60 = 36 %.
    used = _row(evaluation.metrics, method="ffl", seed="all", site="north", finding="Nodule", metric="auroc")
    assert 220 < used["replicates_used"] < 290
    mean = _row(evaluation.metrics, method="ffl", seed="all", site="north", finding="mean")
    assert mean["replicates_used"] == used["replicates_used"]
    assert _row(evaluation.comparisons, site="north", finding="mean")["replicates_used"] == used["replicates_used"]


def test_a_finding_never_annotated_is_blank_with_counts_of_0(run):
    for path in tables_of_test(run):
        rewrite(path, lambda table: table.with_columns(label=pl.lit(None)))
    evaluation = evaluate_run(run, 20, METHODS)
    assert evaluation.metrics.filter(pl.col("metric") == "auroc")["value"].null_count() == 2 * 2 * 3 * 4
    assert set(evaluation.metrics.filter(pl.col("metric") == "auroc")["patients"]) == {0}
    assert evaluation.comparisons["p"].null_count() == len(evaluation.comparisons) == 8


def test_a_method_that_knows_fewer_findings_is_compared_on_those(run):
    for path in tables_of_test(run):
        if path.parts[-4] == "local":
            rewrite(path, lambda table: table.filter(pl.col("finding") != "Nodule"))
    evaluation = evaluate_run(run, 30, METHODS)
    north = evaluation.comparisons.filter(pl.col("site") == "north")
    assert north["finding"].to_list() == ["Cardiomegaly", "Effusion", "mean"]
    singles = north.filter(pl.col("finding") != "mean")
    assert _row(north, finding="mean")["difference"] == pytest.approx(singles["difference"].mean(), abs=1e-12)


def test_no_replicates_is_wrong_use(run):
    with pytest.raises(UsageError, match="replicates: found 0"):
        evaluate_run(run, 0)


def test_a_failure_leaves_the_old_tables(run):
    evaluate_run(run, 5, METHODS)
    before = (run / "metrics.csv").read_bytes(), (run / "comparisons.csv").read_bytes()
    rewrite(run / "predictions/ffl/seed-1/south/test.parquet", flipped)
    with pytest.raises(PredictionsError):
        evaluate_run(run, 5, METHODS)
    assert ((run / "metrics.csv").read_bytes(), (run / "comparisons.csv").read_bytes()) == before


def test_files_are_methods(run, tmp_path):
    files = [tmp_path / "ours.csv", tmp_path / "theirs.parquet"]
    for file, method in zip(files, ("ffl", "local"), strict=True):
        table = read_predictions(run / f"predictions/{method}/seed-0/north/test.parquet")
        table.write_csv(file) if file.suffix == ".csv" else table.write_parquet(file)
    evaluation = evaluate_files(files, tmp_path / "new" / "out", 30)
    assert set(evaluation.metrics["metric"]) == {"auroc"}
    assert set(evaluation.metrics["site"]) == {"-"}
    assert set(evaluation.metrics["seed"]) == {"0", "all"}
    assert set(evaluation.comparisons["method"]) == {"theirs"}
    assert set(evaluation.comparisons["reference"]) == {"ours"}
    assert_frame_equal(pl.read_csv(tmp_path / "new/out/metrics.csv", schema=METRICS), evaluation.metrics)


def test_one_file_alone_has_metrics_and_no_comparison(run, tmp_path):
    evaluation = evaluate_files([run / "predictions/ffl/seed-0/north/test.parquet"], tmp_path, 20)
    assert len(evaluation.metrics) == 2 * 4
    assert evaluation.comparisons.is_empty()
    assert (tmp_path / "comparisons.csv").read_text().startswith("method,reference,site,finding,metric,difference")


def test_neither_torch_nor_scikit_learn_is_imported():
    code = "import sys, polyhead.evaluation; print([m for m in ('torch', 'sklearn', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
