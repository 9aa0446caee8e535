"""Rows of several sites' heads on the one backbone that all of them trained."""

from collections.abc import Mapping

import torch
from torch import nn

from polyhead.training.model import SiteModel

__all__ = ["unite_heads"]


def unite_heads(models: Mapping[str, SiteModel], rows: Mapping[str, tuple[str, str]]) -> SiteModel:
    """Return a model whose logits are those of some sites' heads.

    Parameters
    ----------
    models
        Of the sites, at least of those in `rows`; the state of their backbone must be the same for all.
    rows
        What to call each logit, in order, and whose it is: ``{name: (site, finding as the site spells it)}``; at least
        one.

    Returns
    -------
    SiteModel
        With the backbone of the first site, not a copy of it, and with copies of the heads' rows, bit for bit. Its
        logits may differ from the sites' own in the last bits, because a matrix product sums in an order that may
        depend on the number of its columns.
    """
    heads = [(models[site].head, models[site].findings.index(finding)) for site, finding in rows.values()]
    # Without values at first: drawing some would move PyTorch's global generator.
    head = nn.Linear(heads[0][0].in_features, len(heads), device="meta").to_empty(device=heads[0][0].weight.device)
    with torch.no_grad():
        head.weight.copy_(torch.stack([one.weight[row] for one, row in heads]))
        head.bias.copy_(torch.stack([one.bias[row] for one, row in heads]))
    site, _ = next(iter(rows.values()))
    return SiteModel(models[site].backbone, head, tuple(rows))
