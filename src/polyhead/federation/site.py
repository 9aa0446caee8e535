"""One site's part of a round."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from polyhead.config import Federation, Training
from polyhead.federation.aggregate import SiteUpdate
from polyhead.training.dataset import SplitData
from polyhead.training.local import Stretch, train_locally
from polyhead.training.model import SiteModel, copy_state, load_state

__all__ = ["Plan", "PrivateState", "Site", "finetune", "site_round"]


@dataclass(frozen=True)
class Site:
    """A hospital's data.

    Attributes
    ----------
    findings
        The findings that are trained, in its own spelling, in the alphabetical order of their canonical names, so that
        the order in a file changes nothing.
    canonical
        Their canonical names, in the same order.
    train, val, test
        Its images, with a label column for each finding.
    """

    name: str
    findings: tuple[str, ...]
    canonical: tuple[str, ...]
    train: SplitData
    val: SplitData
    test: SplitData

    @property
    def can_train(self) -> bool:
        """Whether it takes part in training: with fewer than two images there is nothing to learn from."""
        return len(self.train) >= 2


@dataclass(frozen=True)
class PrivateState:
    """What a site keeps for itself between rounds.

    Attributes
    ----------
    model
        The entries of its model that are not shared: the head, and private BatchNorm layers.
    optimizer
        Its optimizer's state; empty before the first round.
    """

    model: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What all sites agreed on."""

    seed: int
    federation: Federation
    training: Training


def site_round(
    site: Site,
    model: SiteModel,
    plan: Plan,
    round_: int,
    shared: Mapping[str, torch.Tensor],
    private: PrivateState,
) -> tuple[SiteUpdate, PrivateState]:
    """Take part in one round: load what is shared and what is private, train, part the two again.

    Parameters
    ----------
    model
        Where the training happens. Its weights are overwritten, so sites may take turns with one backbone.
    round_
        Number of the round, from 0.
    shared
        The shared entries as the server sent them.
    private
        From the round before. Its optimizer state is used up; to do a round again, load a snapshot.

    Returns
    -------
    SiteUpdate
        Everything that leaves the site. On a CPU its tensors are the model's own, not copies: average or send it before
        the model is used again.
    PrivateState
        Everything that does not.
    """
    load_state(model, {**shared, **private.model})
    steps = plan.federation.local_steps
    loss, optimizer = train_locally(
        model,
        site.train,
        plan.training,
        Stretch(round_ * steps, steps, plan.federation.rounds * steps, (plan.seed, site.name)),
        private.optimizer if plan.training.optimizer_state == "keep" else {},
    )
    state = model.state_dict()
    update = SiteUpdate(site.name, round_, len(site.train), loss, {name: state.pop(name).cpu() for name in shared})
    return update, PrivateState(copy_state(state), optimizer if plan.training.optimizer_state == "keep" else {})


def finetune(site: Site, model: SiteModel, plan: Plan) -> float:
    """Train on alone after the last round, with a fresh optimizer and schedule; return the mean loss.

    Model selection has no part in it: the number of steps is the study's.
    """
    steps = plan.federation.finetune_steps
    head_only = plan.federation.finetune == "head"
    stretch = Stretch(0, steps, steps, (plan.seed, site.name, "finetune"), head_only)
    return train_locally(model, site.train, plan.training, stretch, {})[0]
