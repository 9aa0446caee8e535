"""How good a model is on a site's own validation images, by which the site chooses its best state."""

import math

from polyhead.evaluation import auroc
from polyhead.federation.site import Site
from polyhead.training.model import SiteModel
from polyhead.training.predict import predict_split

__all__ = ["validation_auroc"]


def validation_auroc(model: SiteModel, site: Site) -> float | None:
    """Return the mean AUROC, 0 to 1, over a site's findings on its validation images; None if none has both classes."""
    scores, labels = predict_split(model, site.val), site.val.labels
    found = []
    for column in range(labels.shape[1]):
        annotated = labels[:, column] == labels[:, column]
        found.append(auroc(labels[annotated, column].astype(bool), scores[annotated, column]))
    known = [value for value in found if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else None
