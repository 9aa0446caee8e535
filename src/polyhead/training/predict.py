"""From images to the table of predictions."""

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from polyhead.training.dataset import SplitData, image_batch, read_ahead
from polyhead.training.model import SiteModel

__all__ = ["predict_split", "predictions_table"]

_BATCH = 64


def predict_split(model: SiteModel, data: SplitData) -> NDArray[np.float64]:
    """Return probabilities, shape ``(images, findings)``, without augmentation.

    In float64: in float32 every logit above 17 becomes the same 1, and their order would be lost.
    """
    device = model.head.weight.device
    model.eval()
    batches = (np.arange(first, min(first + _BATCH, len(data))) for first in range(0, len(data), _BATCH))
    scores = [np.zeros((0, len(model.findings)))]
    with torch.inference_mode():
        for _, pixels in read_ahead(data, batches):
            scores.append(torch.sigmoid(model(image_batch(pixels, device)).cpu().double()).numpy())
    return np.concatenate(scores)


def predictions_table(data: SplitData, findings: tuple[str, ...], scores: NDArray[np.float64]) -> pl.DataFrame:
    """Return predictions in the columns of `polyhead.predictions`: all images of a finding, then of the next."""
    parts = [
        pl.DataFrame(
            {
                "image": data.images,
                "patient_id": data.patients,
                "finding": [finding] * len(data),
                "label": pl.Series(data.labels[:, column], nan_to_null=True).cast(pl.Int8),
                "score": scores[:, column],
            },
            schema_overrides={"image": pl.String, "patient_id": pl.String, "finding": pl.String},
        )
        for column, finding in enumerate(findings)
    ]
    return pl.concat(parts)
