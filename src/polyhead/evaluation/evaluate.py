"""Predictions in, ``metrics.csv`` and ``comparisons.csv`` out.

``metrics.csv``, one row for each method, seed, site, finding and metric:

* ``value``, ``low``, ``high``: the metric on the test set and its 95 % interval over patients; blank where undefined.
* ``auroc``; ``threshold`` (Youden's, chosen on the validation split; no interval); ``sensitivity`` and ``specificity``
  on the test set at that threshold, which is held fixed in the replicates.
* ``finding`` "mean" is the macro mean of the AUROC over the findings that have both classes.
* ``seed`` "all" is the mean over the seeds, replicate by replicate. Its interval speaks of other test patients, given
  these trained models; how much training itself varies is seen in the single seeds. A threshold belongs to one model,
  so it has no such row.
* ``positives`` and ``negatives`` count annotated images, ``patients`` their patients: of the test set, for
  ``threshold`` of the validation split. A finding with one class only keeps its counts, and has no value.
* ``replicates_used``: in how many replicates the metric was defined; the others drew one class only and are left out.
  0 for a threshold.

``comparisons.csv``, one row for each pair of methods, site and finding that both predict: the mean AUROC over the
seeds of ``method`` minus that of ``reference``, both on the same replicates. ``p`` is two-sided and paired; ``p_holm``
is corrected for the findings of that pair and site. "mean" is over the findings that both predict; it is a question of
its own, not one of the family, so its ``p_holm`` is its ``p``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import polars as pl

from polyhead.errors import UsageError
from polyhead.evaluation.bootstrap import draw_weights
from polyhead.evaluation.cases import annotated_patients
from polyhead.evaluation.collect import Model, check_models, read_files, read_run
from polyhead.evaluation.measure import Results, mean_over_seeds, measure_model
from polyhead.evaluation.result_tables import (
    COMPARISONS,
    METRICS,
    Row,
    comparison_rows,
    make_table,
    metric_rows,
    write_table,
)
from polyhead.seeds import derive_seed

__all__ = ["ALL_SEEDS", "Evaluation", "evaluate_files", "evaluate_models", "evaluate_run", "measure_site"]

ALL_SEEDS = "all"


@dataclass(frozen=True)
class Evaluation:
    """Everything measured.

    Attributes
    ----------
    metrics, comparisons
        With the columns of `METRICS` and `COMPARISONS`; a number that is not defined is null.
    """

    metrics: pl.DataFrame
    comparisons: pl.DataFrame


def evaluate_run(run: Path, replicates: int = 1000, methods: Sequence[str] | None = None) -> Evaluation:
    """Evaluate the predictions of a run, and write ``RUN/metrics.csv`` and ``RUN/comparisons.csv``.

    Parameters
    ----------
    run
        The run directory, with ``predictions/METHOD/seed-N/SITE/{val,test}.parquet``.
    replicates
        Of the bootstrap, at least 1; with fewer than 1,000 the intervals are rough.
    methods
        Which, in order: each is compared with every one before it that was tested at the site. By default all: local
        and conventional first, then the others in alphabetical order.

    Raises
    ------
    RunError
        If predictions are missing.
    PredictionsError
        If they cannot be trusted, or methods were not tested on the same images.
    """
    return _write(evaluate_models(read_run(run, methods), replicates), run)


def evaluate_files(paths: Sequence[Path], out: Path, replicates: int = 1000) -> Evaluation:
    """Evaluate files of predictions on one test set, and write ``metrics.csv`` and ``comparisons.csv`` to `out`.

    Each file is a method, called by the file's name without its ending, of seed 0 and site "-"; each is compared with
    every one before it. There are no validation predictions, hence no thresholds.

    Parameters
    ----------
    paths
        Parquet or CSV, with the columns of `polyhead.predictions.COLUMNS`.
    out
        A folder; made if need be.
    replicates
        As for `evaluate_run`.
    """
    return _write(evaluate_models([read_files(paths)], replicates), out)


def evaluate_models(sites: Iterable[Sequence[Model]], replicates: int) -> Evaluation:
    """Evaluate models, given site by site, in order of method, then seed; writes nothing."""
    if replicates < 1:
        raise UsageError(f"replicates: found {replicates}. Allowed: 1 or more; 1000 is usual.")
    metrics: list[Row] = []
    comparisons: list[Row] = []
    for models in sites:
        check_models(models)
        site, methods = models[0].site, measure_site(models, replicates)
        for method, seeds in methods.items():
            for seed, results in seeds.items():
                metrics += metric_rows(method, seed, site, results)
        comparisons += comparison_rows({method: seeds[ALL_SEEDS] for method, seeds in methods.items()}, site)
    return Evaluation(make_table(metrics, METRICS), make_table(comparisons, COMPARISONS))


def measure_site(models: Sequence[Model], replicates: int) -> dict[str, dict[str, Results]]:
    """Measure models on a site, in order of method, all on the same replicates.

    Returns
    -------
    dict
        ``{method: {seed as text, or ALL_SEEDS: results}}``.
    """
    patients = annotated_patients([model.test for model in models])
    weights = draw_weights(len(patients), replicates, derive_seed("bootstrap", models[0].site))
    measured: dict[str, dict[str, Results]] = {}
    for method, of_method in groupby(models, key=lambda model: model.method):
        seeds = {str(model.seed): measure_model(model.test, model.val, patients, weights) for model in of_method}
        measured[method] = seeds | {ALL_SEEDS: mean_over_seeds(list(seeds.values()))}
    return measured


def _write(evaluation: Evaluation, folder: Path) -> Evaluation:
    write_table(evaluation.metrics, folder / "metrics.csv")
    write_table(evaluation.comparisons, folder / "comparisons.csv")
    return evaluation
