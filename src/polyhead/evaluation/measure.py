"""The metrics of one model, in the data and in every replicate; and their means over findings and over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polyhead.evaluation.cases import NO_CASES, Cases, annotated_patients, cases_by_finding
from polyhead.evaluation.metrics import weighted_auroc, weighted_rates
from polyhead.evaluation.thresholds import youden_threshold

__all__ = [
    "MEAN",
    "Measured",
    "Results",
    "mean_over_findings",
    "mean_over_seeds",
    "measure",
    "measure_model",
]

Weights = NDArray[np.int16]

# The finding under which the average over the findings is reported.
MEAN = "mean"


@dataclass(frozen=True)
class Measured:
    """A metric of one finding.

    Attributes
    ----------
    draws
        Shape (1 + replicates,): measured on the data, then on each replicate; NaN where undefined. Shape (1,) for a
        threshold, which is no property of the test set and has no replicates.
    positives, negatives
        Numbers of annotated images.
    patients
        Shape (patients,): the numbers of the patients with an annotated image, each once.
    """

    draws: NDArray[np.float64]
    positives: int
    negatives: int
    patients: NDArray[np.integer[Any]]


# {finding or MEAN: {metric: what was measured}}, of one model or of several seeds together.
Results = dict[str, dict[str, Measured]]


def measure_model(test: pl.DataFrame, val: pl.DataFrame | None, patients: Sequence[str], weights: Weights) -> Results:
    """Return every metric of every finding that a model predicts.

    Parameters
    ----------
    test, val
        Predictions, with the columns of `polyhead.predictions.COLUMNS`; `val` as for `measure`.
    patients
        At least all patients with an annotated image in `test`.
    weights
        Shape (patients, 1 + replicates), of `polyhead.evaluation.bootstrap.draw_weights`.
    """
    cases = cases_by_finding(test, patients)
    if val is None:
        return {finding: measure(of_finding, None, weights) for finding, of_finding in cases.items()}
    val_cases = cases_by_finding(val, annotated_patients([val]))
    return {finding: measure(cases[finding], val_cases.get(finding, NO_CASES), weights) for finding in cases}


def measure(test: Cases, val: Cases | None, weights: Weights) -> dict[str, Measured]:
    """Return the metrics of one finding by name.

    Parameters
    ----------
    test
        What the metrics are measured on.
    val
        What the threshold is chosen on, and nothing else; without it there are no ``threshold``, ``sensitivity`` and
        ``specificity``.
    weights
        Shape (patients, 1 + replicates), of `polyhead.evaluation.bootstrap.draw_weights`.
    """
    result = {"auroc": _counted(weighted_auroc(test.labels, test.scores, weights, test.rows), test)}
    if val is None:
        return result
    threshold = youden_threshold(val.labels, val.scores)
    sensitivity, specificity = weighted_rates(test.labels, test.scores >= threshold, weights, test.rows)
    if np.isnan(threshold):
        sensitivity, specificity = np.full_like(sensitivity, np.nan), np.full_like(specificity, np.nan)
    return result | {
        "threshold": _counted(np.array([threshold]), val),
        "sensitivity": _counted(sensitivity, test),
        "specificity": _counted(specificity, test),
    }


def mean_over_seeds(seeds: Sequence[Results]) -> Results:
    """Return the mean of every metric over models that predict the same findings of the same images, draw by draw.

    Thresholds are left out: each belongs to the scores of one model.
    """
    return {
        finding: {
            metric: replace(measured, draws=np.mean([seed[finding][metric].draws for seed in seeds], axis=0))
            for metric, measured in metrics.items()
            if metric != "threshold"
        }
        for finding, metrics in seeds[0].items()
    }


def mean_over_findings(results: Results) -> Measured:
    """Return the macro mean of the AUROC over the findings that have both classes, draw by draw.

    A replicate that drew one class only of any of these findings is left out: every replicate must estimate the mean
    of the same findings. Were the others averaged alone, the coming and going of a rare finding would pass for
    uncertainty about the mean. So a finding with a handful of positive patients costs replicates of the mean.

    Positives and negatives are summed over these findings; a patient annotated for several counts once. Undefined,
    with counts of 0, if no finding has both classes.
    """
    findings = [metrics["auroc"] for metrics in results.values()]
    both = [finding for finding in findings if not np.isnan(finding.draws[0])]
    if not both:
        undefined = np.full_like(findings[0].draws, np.nan) if findings else np.full(1, np.nan)
        return Measured(undefined, 0, 0, np.empty(0, np.int64))
    return Measured(
        np.mean([finding.draws for finding in both], axis=0),
        sum(finding.positives for finding in both),
        sum(finding.negatives for finding in both),
        np.unique(np.concatenate([finding.patients for finding in both])),
    )


def _counted(draws: NDArray[np.float64], cases: Cases) -> Measured:
    positives = int(cases.labels.sum())
    return Measured(draws, positives, len(cases.labels) - positives, np.unique(cases.rows))
