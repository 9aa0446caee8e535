"""The state before the first round: one broadcast backbone, and heads made at the sites."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from polyhead.config import Model
from polyhead.federation.sharing import Sharing, shared_names
from polyhead.federation.site import PrivateState, Site
from polyhead.federation.snapshot import Snapshot
from polyhead.seeds import derive_seed
from polyhead.training.backbone import build_backbone, feature_count
from polyhead.training.model import SiteModel, build_head, model_state
from polyhead.training.weights import load_weights

__all__ = ["build_models", "check_model", "initial_state"]


def check_model(settings: Model) -> None:
    """Build the study's backbone once and load its weights, so that a mistake shows before any work is done."""
    _backbone(settings, seed=0)


def build_models(
    sites: Sequence[Site], settings: Model, sharing: Sharing, seed: int, device: torch.device
) -> dict[str, SiteModel]:
    """Make a model for each site, all with the same backbone object, which takes turns.

    A private head is drawn for its site, a shared one is the same for all; both are drawn finding by finding.
    """
    backbone = _backbone(settings, seed)
    backbone.to(device)
    # The stubs of PyTorch lack this keyword.
    backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = feature_count(backbone)
    models = {}
    for site in sites:
        owner = () if sharing.head else (site.name,)
        head = build_head(features, site.canonical, seed, *owner).to(device)
        models[site.name] = SiteModel(backbone, head, site.findings)
    return models


def initial_state(models: Mapping[str, SiteModel], sharing: Sharing) -> Snapshot:
    """Part each fresh model into what is shared, the same at all sites, and what is private."""
    shared: dict[str, torch.Tensor] = {}
    private = {}
    for name, model in sorted(models.items()):
        state = model_state(model)
        shared = {entry: state.pop(entry) for entry in shared_names(model, sharing)}
        private[name] = PrivateState(state)
    return Snapshot(0, shared, private)


def _backbone(settings: Model, seed: int) -> nn.Module:
    backbone = build_backbone(settings, derive_seed("backbone", seed))
    if settings.weights:
        load_weights(backbone, settings.weights)
    return backbone
