"""What training leaves for a site: its model, and its predictions on validation and test images."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from polyhead.config import StudyConfig
from polyhead.evaluation import youden_threshold
from polyhead.federation.site import Site
from polyhead.predictions import write_predictions
from polyhead.sites import recipe_of
from polyhead.training.dataset import SplitData
from polyhead.training.model import SiteModel
from polyhead.training.model_file import model_files, save_model
from polyhead.training.predict import predict_split, predictions_table

__all__ = ["output_files", "write_outputs"]


def output_files(models_to: Path, predictions_to: Path) -> list[Path]:
    """Return the files that `write_outputs` writes."""
    return [*model_files(models_to), predictions_to / "val.parquet", predictions_to / "test.parquet"]


def write_outputs(
    site: Site, model: SiteModel, study: StudyConfig, about: Mapping[str, Any], models_to: Path, predictions_to: Path
) -> None:
    """Predict a site's validation and test images, choose thresholds on validation, and save the model last.

    Of a head for the findings of all sites, the model keeps all; predictions are of those that the site annotates.

    Parameters
    ----------
    about
        What ``model.json`` should say of the training: method, seed, site, rounds.
    models_to, predictions_to
        Folders, made if need be.

    Raises
    ------
    DiskError
        If the disk is full.
    """
    val = _predictions(site, model, site.val)
    write_predictions(val, predictions_to / "val.parquet")
    write_predictions(_predictions(site, model, site.test), predictions_to / "test.parquet")
    thresholds = {finding: _threshold(val.filter(pl.col("finding") == finding)) for finding in site.own}
    save_model(model, study.model, recipe_of(study), {**about, "thresholds": thresholds}, models_to)


def _predictions(site: Site, model: SiteModel, data: SplitData) -> pl.DataFrame:
    table = predictions_table(data, site.findings, predict_split(model, data))
    return table.filter(pl.col("finding").is_in(site.own)) if site.blank else table


def _threshold(predictions: pl.DataFrame) -> float | None:
    annotated = predictions.drop_nulls("label")
    threshold = youden_threshold(annotated["label"].to_numpy(), annotated["score"].to_numpy())
    return None if math.isnan(threshold) else threshold
