"""What sets each method apart in its rounds, on sites that train in milliseconds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from polyhead.config import Federation, Model, Privacy, Training
from polyhead.federation import site as site_module
from polyhead.federation.methods import METHODS, plan_for
from polyhead.federation.private_state import PrivateState, load_private
from polyhead.federation.simulate import Watch, simulate
from polyhead.federation.site import Plan, Site, finetune, site_round
from polyhead.federation.snapshot import Store
from polyhead.federation.start import build_models, initial_state, part_model
from polyhead.federation.transfer import narrowed
from polyhead.training.local import train_locally
from polyhead.training.model import SiteModel, model_state
from polyhead.training.proximal import Pull
from tests.conftest import TINY, make_site

CPU = torch.device("cpu")
TRAINING = Training(batch_size=8, device="cpu")
GROUPS = Model(backbone="resnet10", width=0.0625, image_size=32, norm="group")


def sites() -> list[Site]:
    return [make_site("a", ["Edema", "Mass"], 16, 1), make_site("b", ["Edema"], 12, 2), make_site("c", ["Mass"], 12, 3)]


def plan_of(method: str, privacy: Privacy | None = None, **settings: Any) -> Plan:
    federation = Federation(**{"rounds": 3, "local_steps": 2, "finetune": "head", "finetune_steps": 2, **settings})
    return plan_for(METHODS[method], 7, federation, TRAINING, privacy or Privacy())


End = tuple[dict[str, torch.Tensor], dict[str, PrivateState], dict[str, SiteModel]]


def run(folder: Path, plan: Plan, network: Model = TINY) -> End:
    models = build_models(sites(), network, plan.sharing, plan.seed, CPU)
    store = Store(folder, "key")
    start = initial_state(models, plan.sharing, store, plan.rule)
    end = simulate(sites(), models, plan, start, store, Watch(lambda rows, repeated: None))
    return dict(end.shared), {site: load_private(folder, site, file) for site, file in end.private.items()}, models


def same(one: End, other: End) -> bool:
    pairs = [(one[0], other[0])]
    for site in one[1]:
        pairs += [(one[1][site].model, other[1][site].model), (one[1][site].optimizer, other[1][site].optimizer)]
    return all(a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs)


def test_fedprox_without_a_pull_is_ffl_bit_for_bit_and_with_one_is_not(tmp_path: Path) -> None:
    ffl = run(tmp_path / "ffl", plan_of("ffl"))
    assert same(ffl, run(tmp_path / "zero", plan_of("fedprox", proximal=0.0)))
    assert not same(ffl, run(tmp_path / "pulled", plan_of("fedprox", proximal=0.1)))
    # Nor is there a pull in a round of one step, for which the method is refused.
    one = run(tmp_path / "one", plan_of("ffl", local_steps=1))
    assert same(one, run(tmp_path / "one pulled", plan_of("fedprox", local_steps=1, proximal=1e3)))


@pytest.mark.parametrize("batch_norm", ["shared", "private"])
def test_fedprox_pulls_all_that_is_shared_to_what_the_site_received_and_nothing_else(
    batch_norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, plan = sites()[0], plan_of("fedprox", batch_norm=batch_norm, proximal=0.25, transfer="half")
    model = build_models([site], TINY, plan.sharing, plan.seed, CPU)["a"]
    shared, own = part_model(model, plan.sharing)
    sent = narrowed({name: one * 1.5 if one.is_floating_point() else one for name, one in shared.items()}, "half")
    seen: list[tuple[Pull | None, bool]] = []

    def noted(trained: SiteModel, *about: Any) -> Any:
        state = trained.state_dict()
        pull = about[6] if len(about) > 6 else None
        seen.append((pull, all(torch.equal(state[name], one.to(state[name].dtype)) for name, one in sent.items())))
        return train_locally(trained, *about)

    monkeypatch.setattr(site_module, "train_locally", noted)
    site_round(site, model, plan, 2, sent, own)
    finetune(site, model, plan)
    # It begins late: its head is warmed, then comes the round; in the end it is tuned.
    assert seen == [(None, True), (Pull(0.25, frozenset(sent)), True), (None, False)]
    assert ("backbone.bn1.weight" in sent) == (batch_norm == "shared")


def test_fedbn_is_ffl_with_private_batch_norm_whatever_the_study_says(tmp_path: Path) -> None:
    fedbn = run(tmp_path / "fedbn", plan_of("fedbn", batch_norm="shared"))
    assert same(fedbn, run(tmp_path / "ffl", plan_of("ffl", batch_norm="private")))
    assert not any("bn1" in name for name in fedbn[0])
    one, other = (fedbn[1][site].model for site in "ab")
    for entry in ("weight", "running_mean"):
        assert not torch.equal(one[f"backbone.bn1.{entry}"], other[f"backbone.bn1.{entry}"])


# FedBABU.


def test_a_head_under_fedbabu_stays_as_it_was_made_while_the_backbone_trains(tmp_path: Path) -> None:
    plan = plan_of("fedbabu")
    begin = {site: model_state(model) for site, model in build_models(sites(), TINY, plan.sharing, 7, CPU).items()}
    shared, private, models = run(tmp_path, plan)
    for site, own in private.items():
        assert set(own.model) == {"head.weight", "head.bias"}
        assert all(torch.equal(own.model[name], begin[site][name]) for name in own.model)
        # Nothing of a head in the optimizer, and of the backbone all.
        parameters = {name for name, _ in models[site].backbone.named_parameters()}
        assert {name.rpartition(".")[0] for name in own.optimizer} == parameters
    floating = [name for name, _ in models["a"].named_parameters() if name in shared]
    assert all(not torch.equal(shared[name], begin["a"][name]) for name in floating)


def test_under_fedbabu_a_finding_has_the_same_row_at_all_sites_and_under_ffl_its_own() -> None:
    rows = {}
    for method in ("fedbabu", "ffl"):
        models = build_models(sites(), TINY, plan_of(method).sharing, 7, CPU)
        rows[method] = [models["a"].head.weight[0], models["b"].head.weight[0], models["c"].head.weight[0]]
    assert torch.equal(rows["fedbabu"][0], rows["fedbabu"][1])
    assert not torch.equal(rows["fedbabu"][0], rows["fedbabu"][2])
    assert not torch.equal(rows["ffl"][0], rows["ffl"][1])


def part(plan: Plan, round_: int) -> tuple[PrivateState, PrivateState, int]:
    """Let site a take its first part in a round; return its state before and after, and its number of steps."""
    site = replace(sites()[0], secret=bytes(32))
    model = build_models([site], GROUPS, plan.sharing, plan.seed, CPU)["a"]
    shared, own = part_model(model, plan.sharing)
    steps = list[int]()
    _, after = site_round(site, model, plan, round_, shared, own, lambda: steps.append(1))
    return own, after, len(steps)


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("round_", [0, 2])
def test_neither_beginning_late_nor_noise_moves_that_head(round_: int, noise: float) -> None:
    before, after, steps = part(plan_of("fedbabu", Privacy(noise=noise)), round_)
    assert all(torch.equal(before.model[name], after.model[name]) for name in ("head.weight", "head.bias"))
    assert steps == 2
    # Where a head is trained, the same site warms it.
    assert part(plan_of("ffl"), 2)[2] == 4


def test_a_pull_is_added_to_a_noisy_gradient_and_draws_nothing(tmp_path: Path) -> None:
    """With the same noise, a pull changes nothing in the first step, which begins where it pulls to."""
    first, second = [], []
    for strength in (0.0, 1e-9, 10.0):
        plan = plan_of("fedprox", Privacy(noise=1.0), local_steps=1, proximal=strength)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(site_module, "round_key", lambda *about: bytes(32))
            first.append(part(plan, 0)[1].model["head.weight"])
            longer = plan_of("fedprox", Privacy(noise=1.0), local_steps=2, proximal=strength)
            second.append(part(longer, 0)[1].optimizer["backbone.conv1.weight.exp_avg"])
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[0], first[2])
    assert torch.allclose(second[0], second[1], atol=1e-6)
    assert not torch.allclose(second[0], second[2], atol=1e-3)


def test_tuning_after_fedbabu_trains_the_head_or_all(tmp_path: Path) -> None:
    for tune in ("head", "full"):
        plan = plan_of("fedbabu", finetune=tune)
        _, private, models = run(tmp_path / tune, plan)
        before = model_state(models["a"])
        finetune(sites()[0], models["a"], plan)
        after = model_state(models["a"])
        assert not torch.equal(after["head.weight"], private["a"].model["head.weight"])
        assert torch.equal(after["backbone.conv1.weight"], before["backbone.conv1.weight"]) == (tune == "head")
