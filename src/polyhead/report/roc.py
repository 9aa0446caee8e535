"""ROC curves from the predictions, averaged over the seeds."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.metrics import roc_curve

from polyhead.errors import RunError
from polyhead.predictions import read_predictions
from polyhead.report.load import RunTables
from polyhead.report.plots import Curve

__all__ = ["read_annotated", "roc_curves"]

# Dense where curves are steep: near a specificity of 1.
_FALSE_POSITIVE_RATES = np.linspace(0, 1, 101) ** 1.5


def roc_curves(run: RunTables, site: str) -> dict[str, list[Curve]]:
    """Return, for each finding of a site, the curves of the methods that predict it.

    A curve is the mean over the seeds of the sensitivities at fixed specificities. A finding with one class only has
    no curve.

    Raises
    ------
    RunError
        The predictions of an evaluated method and seed are missing.
    """
    curves: dict[str, list[Curve]] = {finding: [] for finding in run.findings[site]}
    for method in run.methods:
        tables = [
            read_annotated(run.folder, method, seed, site) for seed in run.seeds if _evaluated(run, method, seed, site)
        ]
        for finding, drawn in curves.items():
            rates = [rate for table in tables if (rate := _sensitivities(table, finding)) is not None]
            if rates:
                drawn.append(Curve(method, [0.0, *_FALSE_POSITIVE_RATES], [0.0, *np.mean(rates, axis=0)]))
    return curves


def _evaluated(run: RunTables, method: str, seed: str, site: str) -> bool:
    return any(run.metric(method, seed, site, finding, "auroc") for finding in run.findings[site])


def read_annotated(folder: Path, method: str, seed: str, site: str) -> pl.DataFrame:
    """Read the predictions for a site's annotated test images.

    Raises
    ------
    RunError
        They are missing.
    """
    path = folder / "predictions" / method / f"seed-{seed}" / site / "test.parquet"
    if not path.is_file():
        raise RunError(f"{path}: missing. Make it: polyhead run STUDY.toml --out {folder}")
    return read_predictions(path).filter(pl.col("label").is_not_null())


def _sensitivities(table: pl.DataFrame, finding: str) -> npt.NDArray[np.float64] | None:
    rows = table.filter(pl.col("finding") == finding)
    if rows["label"].n_unique() < 2:
        return None
    false_positives, true_positives, _ = roc_curve(rows["label"].to_numpy(), rows["score"].to_numpy())
    return np.asarray(np.interp(_FALSE_POSITIVE_RATES, false_positives, true_positives), np.float64)
