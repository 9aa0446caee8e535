"""Predictions to metrics, intervals and paired tests; never sees PyTorch, a model or a site."""

from polyhead.evaluation.collect import check_complete
from polyhead.evaluation.cross_site import CROSS_SITE, evaluate_cross_site
from polyhead.evaluation.evaluate import ALL_SEEDS, Evaluation, evaluate_files, evaluate_run
from polyhead.evaluation.measure import MEAN
from polyhead.evaluation.metrics import auroc, weighted_auroc
from polyhead.evaluation.result_tables import COMPARISONS, METRICS
from polyhead.evaluation.thresholds import youden_threshold

__all__ = [
    "ALL_SEEDS",
    "COMPARISONS",
    "CROSS_SITE",
    "MEAN",
    "METRICS",
    "Evaluation",
    "auroc",
    "check_complete",
    "evaluate_cross_site",
    "evaluate_files",
    "evaluate_run",
    "weighted_auroc",
    "youden_threshold",
]
