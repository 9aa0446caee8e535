"""The state before the first round: one broadcast backbone, and heads made at the sites."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from polyhead.config import Model
from polyhead.federation.private_state import PrivateState, save_private
from polyhead.federation.server_rule import ServerRule, first_moments
from polyhead.federation.sharing import Sharing, shared_names
from polyhead.federation.site import Site
from polyhead.federation.snapshot import Snapshot, Store, remove_snapshots
from polyhead.seeds import derive_seed
from polyhead.training.backbone import build_backbone, feature_count
from polyhead.training.model import SiteModel, build_head, model_state
from polyhead.training.weights import load_weights

__all__ = ["build_models", "check_model", "initial_shared", "initial_state", "part_model", "server_model"]


def check_model(settings: Model) -> None:
    """Build the study's backbone once and load its weights, so that a mistake shows before any work is done."""
    _backbone(settings, seed=0)


def build_models(
    sites: Sequence[Site], settings: Model, sharing: Sharing, seed: int, device: torch.device
) -> dict[str, SiteModel]:
    """Make a model for each site, all with the same backbone object, which takes turns.

    A private head is drawn for its site; one that is shared, or not trained, is the same for all. Both are drawn
    finding by finding.
    """
    backbone = _backbone(settings, seed)
    backbone.to(device)
    # The stubs of PyTorch lack this keyword.
    backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = feature_count(backbone)
    models = {}
    for site in sites:
        owner = () if sharing.head or sharing.fixed_head else (site.name,)
        head = build_head(features, site.canonical, seed, *owner).to(device)
        models[site.name] = SiteModel(backbone, head, site.findings)
    return models


def initial_state(
    models: Mapping[str, SiteModel], sharing: Sharing, store: Store, rule: ServerRule | None = None
) -> Snapshot:
    """Part each fresh model into what is shared, the same at all sites, and what is private, which goes to disk.

    The store is emptied first. With a rule of the server, what it keeps begins here.
    """
    remove_snapshots(store)
    shared: dict[str, torch.Tensor] = {}
    moments: dict[str, torch.Tensor] = {}
    private = {}
    for name, model in sorted(models.items()):
        shared, own = part_model(model, sharing)
        private[name] = save_private(store.folder, name, 0, own)
        moments = moments or first_moments(rule, model, shared)
    return Snapshot(0, shared, private, moments=moments)


def server_model(settings: Model, seed: int, findings: Sequence[str]) -> SiteModel:
    """Return the model whose shared part all sites start from, as a server makes it that has no site.

    Parameters
    ----------
    findings
        Canonical names of those that a shared head has; of a private head any will do.
    """
    backbone = _backbone(settings, seed)
    return SiteModel(backbone, build_head(feature_count(backbone), findings, seed), findings)


def initial_shared(settings: Model, sharing: Sharing, seed: int, findings: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return what all sites start from; see `server_model`."""
    return part_model(server_model(settings, seed, findings), sharing)[0]


def part_model(model: SiteModel, sharing: Sharing) -> tuple[dict[str, torch.Tensor], PrivateState]:
    """Part a fresh model's state into copies of what is shared and of what is private."""
    state = model_state(model)
    shared = {entry: state.pop(entry) for entry in sorted(shared_names(model, sharing))}
    return shared, PrivateState(state)


def _backbone(settings: Model, seed: int) -> nn.Module:
    backbone = build_backbone(settings, derive_seed("backbone", seed))
    if settings.weights:
        load_weights(backbone, settings.weights)
    return backbone
