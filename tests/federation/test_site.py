"""A site that begins late warms its head on the backbone that the others trained; then it is like any other."""

from dataclasses import replace

import pytest
import torch

from polyhead.federation.private_state import PrivateState
from polyhead.federation.sharing import NOTHING, Sharing
from polyhead.federation.site import Plan, site_round
from polyhead.federation.start import build_models, part_model
from polyhead.federation.update import SiteUpdate
from polyhead.training.local import Stretch, train_locally
from polyhead.training.model import SiteModel, load_state
from tests.conftest import FFL, TINY, make_site

CPU = torch.device("cpu")
FED_BN = Sharing(backbone=True, batch_norm=False, head=False)
CONVENTIONAL = Sharing(backbone=True, batch_norm=True, head=True)
SITE = make_site("a", ["Edema", "Mass"], 16)


def begin(plan: Plan) -> tuple[SiteModel, dict[str, torch.Tensor], PrivateState]:
    """A site's model, what it begins with, and a backbone that others trained."""
    model = build_models([SITE], TINY, plan.sharing, plan.seed, CPU)["a"]
    shared, own = part_model(model, plan.sharing)
    return model, {name: one * 1.5 if one.is_floating_point() else one + 4 for name, one in shared.items()}, own


def rounds_of(plan: Plan, round_: int, rounds_done: int = 0) -> tuple[SiteUpdate, PrivateState]:
    model, shared, own = begin(plan)
    update, private = site_round(SITE, model, plan, round_, shared, replace(own, rounds_done=rounds_done))
    return replace(update, state={name: one.clone() for name, one in update.state.items()}), private


def by_hand(plan: Plan, round_: int, *, warm: bool) -> tuple[float, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the loss, the whole state and the optimizer's after the head's steps, if any, and then the round's."""
    model, shared, own = begin(plan)
    load_state(model, {**shared, **own.model})
    steps = plan.federation.local_steps
    if warm:
        head = Stretch(0, steps, steps, (plan.seed, "a", "warm-up"), part="head")
        train_locally(model, SITE.train, plan.training, head, {})
        backbone = {name: one for name, one in model.state_dict().items() if name in shared}
        assert all(torch.equal(backbone[name], one) for name, one in shared.items())
    stretch = Stretch(round_ * steps, steps, plan.federation.rounds * steps, (plan.seed, "a"))
    loss, optimizer = train_locally(model, SITE.train, plan.training, stretch, {})
    return loss, dict(model.state_dict()), optimizer


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("sharing", [FFL, FED_BN])
def test_its_first_update_is_that_of_the_heads_steps_and_then_a_round(plan: Plan, sharing: Sharing) -> None:
    plan = replace(plan, sharing=sharing)
    update, own = rounds_of(plan, 2)
    loss, state, optimizer = by_hand(plan, 2, warm=True)
    assert update.loss == loss
    assert same({**update.state, **own.model}, state)
    assert same(own.optimizer, optimizer)
    assert own.rounds_done == 3


@pytest.mark.parametrize(
    ("sharing", "round_", "rounds_done"), [(FFL, 0, 0), (FFL, 2, 1), (CONVENTIONAL, 2, 0), (NOTHING, 2, 0)]
)
def test_nobody_else_warms_a_head(plan: Plan, sharing: Sharing, round_: int, rounds_done: int) -> None:
    plan = replace(plan, sharing=sharing)
    update, own = rounds_of(plan, round_, rounds_done)
    loss, state, _ = by_hand(plan, round_, warm=False)
    assert update.loss == loss
    assert same({**update.state, **own.model}, state)


def test_a_warm_head_is_another_than_a_cold_one(plan: Plan) -> None:
    assert rounds_of(plan, 2)[0].loss != rounds_of(plan, 2, rounds_done=1)[0].loss


def test_each_step_of_it_can_be_stopped(plan: Plan) -> None:
    model, shared, own = begin(plan)
    steps: list[int] = []
    site_round(SITE, model, plan, 2, shared, own, lambda: steps.append(1))
    assert len(steps) == 2 * plan.federation.local_steps
