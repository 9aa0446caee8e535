"""From images to the table of predictions."""

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from polyhead.training.dataset import SplitData, image_batch
from polyhead.training.model import SiteModel

__all__ = ["predict_split", "predictions_table"]

_BATCH = 64


def predict_split(model: SiteModel, data: SplitData) -> NDArray[np.float32]:
    """Return probabilities, shape ``(images, findings)``, without augmentation."""
    device = model.head.weight.device
    model.eval()
    scores = [np.zeros((0, len(model.findings)), np.float32)]
    with torch.inference_mode():
        for first in range(0, len(data), _BATCH):
            indices = np.arange(first, min(first + _BATCH, len(data)))
            scores.append(torch.sigmoid(model(image_batch(data, indices, device))).cpu().numpy())
    return np.concatenate(scores)


def predictions_table(data: SplitData, findings: tuple[str, ...], scores: NDArray[np.float32]) -> pl.DataFrame:
    """Return predictions in the columns of `polyhead.predictions`: all images of a finding, then of the next."""
    parts = [
        pl.DataFrame(
            {
                "image": data.images,
                "patient_id": data.patients,
                "finding": [finding] * len(data),
                "label": pl.Series(data.labels[:, column], nan_to_null=True).cast(pl.Int8),
                "score": scores[:, column].astype(np.float64),
            },
            schema_overrides={"image": pl.String, "patient_id": pl.String, "finding": pl.String},
        )
        for column, finding in enumerate(findings)
    ]
    return pl.concat(parts)
