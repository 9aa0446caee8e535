"""One site's part of a round."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch

from polyhead.config import Federation, Privacy, Training
from polyhead.errors import UpdateError
from polyhead.federation.private_state import PrivateState
from polyhead.federation.secret_draw import data_hash, draw_key
from polyhead.federation.server_rule import ServerRule
from polyhead.federation.sharing import NOTHING, Sharing, shared_names
from polyhead.federation.transfer import narrowed
from polyhead.federation.update import SiteUpdate
from polyhead.printable import printable
from polyhead.training.dataset import SplitData
from polyhead.training.local import Stretch, train_locally
from polyhead.training.model import SiteModel, copy_state, load_state
from polyhead.training.private_gradient import Mechanism
from polyhead.training.proximal import Pull

__all__ = ["Plan", "Site", "finetune", "round_key", "site_round"]


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
    secret
        32 bytes, of which noise is drawn; it never leaves the site and is not shown.
    blank
        Those of `findings` that it does not annotate, so that their labels are blank: of a head that all sites share.
    """

    name: str
    findings: tuple[str, ...]
    canonical: tuple[str, ...]
    train: SplitData
    val: SplitData
    test: SplitData
    secret: bytes = field(default=b"", repr=False)
    blank: tuple[str, ...] = ()

    @property
    def own(self) -> tuple[str, ...]:
        """The findings that it annotates, in the order of `findings`."""
        return tuple(finding for finding in self.findings if finding not in self.blank)

    @cached_property
    def train_hash(self) -> str:
        """A hash of its training data; to compute it all of them are read, once."""
        return data_hash(self.train)

    @property
    def can_train(self) -> bool:
        """Whether it takes part in training: with fewer than two images there is nothing to learn from."""
        return len(self.train) >= 2


@dataclass(frozen=True)
class Plan:
    """What all sites agreed on.

    Attributes
    ----------
    proximal
        Strength of the pull that keeps what is shared near where a round began; 0 for none.
    rule
        What the server makes of a round's mean; None: the next state.
    """

    seed: int
    federation: Federation
    training: Training
    sharing: Sharing
    privacy: Privacy = field(default=Privacy())
    proximal: float = 0.0
    rule: ServerRule | None = None

    @property
    def has_noise(self) -> bool:
        """Whether sites train with noise: the study asks for it, and something of the model leaves them."""
        return self.privacy.noise > 0 and self.sharing != NOTHING


def site_round(
    site: Site,
    model: SiteModel,
    plan: Plan,
    round_: int,
    shared: Mapping[str, torch.Tensor],
    private: PrivateState,
    on_step: Callable[[], None] | None = None,
) -> tuple[SiteUpdate, PrivateState]:
    """Take part in one round: load what is shared and what is private, train, part the two again.

    A site that begins late warms its private head first; see `_begins_late`.

    Parameters
    ----------
    model
        Where the training happens. Its weights are overwritten, so sites may take turns with one backbone.
    round_
        Number of the round, from 0.
    shared
        The shared entries as the server sent them.
    private
        From the round before. Its optimizer state is used up; to do a round again, load it again.
    on_step
        Called after each optimizer step.

    Returns
    -------
    SiteUpdate
        Everything that leaves the site, as it travels. On a CPU its tensors may be the model's own, not copies: average
        or send it before the model is used again.
    PrivateState
        Everything that does not.

    Raises
    ------
    UpdateError
        If the server asks for anything but what this site's own study shares, such as the head; or a weight has grown
        beyond what can travel.
    """
    _refuse_strangers(shared, shared_names(model, plan.sharing))
    mechanism = None
    if plan.has_noise:
        key = round_key(site, plan, round_, shared, private)
        mechanism = Mechanism(plan.privacy.noise, plan.privacy.clip, key)
    load_state(model, {**shared, **private.model})
    if _begins_late(plan, round_, private):
        _warm_up(site, model, plan, on_step)
    loss, optimizer = train_locally(
        model,
        site.train,
        plan.training,
        _stretch_of(site, plan, round_),
        private.optimizer if plan.training.optimizer_state == "keep" else {},
        on_step,
        mechanism,
        Pull(plan.proximal, frozenset(shared)) if plan.proximal else None,
    )
    state = model.state_dict()
    sent = narrowed({name: state.pop(name).cpu() for name in shared}, plan.federation.transfer)
    # Without noise in them, loss and number of images would tell of a patient, under every method of the study.
    examples, said = (1, None) if plan.privacy.noise else (len(site.train), loss)
    rows = site.train.annotated if plan.sharing.rows else None
    update = SiteUpdate(site.name, round_, examples, said, sent, rows)
    kept = optimizer if plan.training.optimizer_state == "keep" else {}
    return update, PrivateState(copy_state(state), kept, round_ + 1)


def _stretch_of(site: Site, plan: Plan, round_: int) -> Stretch:
    steps = plan.federation.local_steps
    chance = plan.seed, site.name
    part: Literal["backbone", "all"] = "backbone" if plan.sharing.fixed_head else "all"
    return Stretch(round_ * steps, steps, plan.federation.rounds * steps, chance, part)


def _begins_late(plan: Plan, round_: int, private: PrivateState) -> bool:
    """Tell whether a site's private head is still the one it begins with, on a backbone that others have trained.

    Its first gradients would pull the backbone towards a head of random numbers. A shared head is trained as far as the
    backbone, a fixed one is the one that the others' backbone was trained for, and where nothing is shared nobody is
    late. In a study with noise nobody is warmed: the head would carry the data, without noise, into all that is sent
    later.
    """
    return (
        not plan.has_noise
        and round_ > 0
        and private.rounds_done == 0
        and plan.sharing.backbone
        and not plan.sharing.head
        and not plan.sharing.fixed_head
    )


def _warm_up(site: Site, model: SiteModel, plan: Plan, on_step: Callable[[], None] | None) -> None:
    """Train the head alone for a round's number of steps, with an optimizer, schedule and chance of its own."""
    steps = plan.federation.local_steps
    stretch = Stretch(0, steps, steps, (plan.seed, site.name, "warm-up"), "head")
    train_locally(model, site.train, plan.training, stretch, {}, on_step)


def round_key(site: Site, plan: Plan, round_: int, shared: Mapping[str, torch.Tensor], private: PrivateState) -> bytes:
    """Return the key of all chance in a round with noise: another one if anything differs that the answer depends on.

    Raises
    ------
    ValueError
        If the site has no secret.
    """
    about = plan, round_, site.name, site.findings, site.canonical, site.train_hash
    own = private.optimizer if plan.training.optimizer_state == "keep" else {}
    return draw_key(site.secret, about, {"shared": shared, "model": private.model, "optimizer": own})


def _refuse_strangers(asked: Mapping[str, torch.Tensor], allowed: frozenset[str]) -> None:
    for name in sorted(set(asked) ^ allowed):
        what = "is missing in what the server sent" if name in allowed else "is not shared in this study and stays here"
        raise UpdateError(f"{printable(name)[:100]} {what}. Site and server must run the same study.")


def finetune(site: Site, model: SiteModel, plan: Plan, on_step: Callable[[], None] | None = None) -> float:
    """Train on alone after the last round, with a fresh optimizer and schedule; return the mean loss.

    Model selection has no part in it: the number of steps is the study's.
    """
    steps = plan.federation.finetune_steps
    part: Literal["head", "all"] = "head" if plan.federation.finetune == "head" else "all"
    stretch = Stretch(0, steps, steps, (plan.seed, site.name, "finetune"), part)
    return train_locally(model, site.train, plan.training, stretch, {}, on_step)[0]
