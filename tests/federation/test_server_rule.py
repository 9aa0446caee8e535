"""What the server makes of a mean: by hand, in a federation, and across interruptions."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from polyhead.errors import RunError
from polyhead.federation import simulate as simulate_module
from polyhead.federation.federate import Sites, federate
from polyhead.federation.private_state import PrivateState
from polyhead.federation.server_rule import ServerRule, first_moments, server_step
from polyhead.federation.site import Plan
from polyhead.federation.snapshot import Store, load_snapshot, remove_snapshots
from polyhead.federation.start import build_models, part_model
from polyhead.federation.transfer import narrowed
from polyhead.training.tensor_file import memory_of
from tests.conftest import FFL, TINY, make_site
from tests.federation.three_sites import (
    KEY,
    STUB_SHARED,
    Part,
    differences,
    far,
    plan_for,
    spoiling,
    stub_federate,
    stub_round,
    stub_sites,
    stub_start,
)

MOMENTUM = ServerRule("momentum", 0.5, 0.75)
ADAM = ServerRule("adam", 0.02, 0.75, 1e-3)
RULES = [pytest.param(MOMENTUM, id="momentum"), pytest.param(ADAM, id="adam")]


class Two(nn.Module):
    """Two parameters; and a buffer whose name says that it is one."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([1.0]))
        self.b = nn.Parameter(torch.tensor([[-2.0]]))
        self.register_buffer("weight", torch.tensor([5.0]))


def first(rule: ServerRule | None, model: Any = None) -> dict[str, torch.Tensor]:
    model = model or Two()
    return first_moments(rule, model, model.state_dict())


def by_hand(rule: ServerRule, start: float, means: list[float]) -> list[float]:
    """Follow one parameter through rounds with Python's own numbers, as the papers write it."""
    x, m, v, states = start, 0.0, rule.epsilon**2, []
    for mean in means:
        d = mean - x
        if rule.kind == "momentum":
            m = rule.momentum * m + d
            x = x + rule.rate * m
        else:
            m = rule.momentum * m + (1 - rule.momentum) * d
            v = 0.99 * v + 0.01 * d * d
            x = x + rule.rate * m / (math.sqrt(v) + rule.epsilon)
        states.append(x)
    return states


@pytest.mark.parametrize("rule", RULES)
def test_two_rounds_of_two_parameters_are_those_by_hand(rule: ServerRule) -> None:
    means = {"a": [1.25, 1.5], "b": [-2.5, -1.0]}
    model = Two()
    state, moments = dict(model.state_dict()), first(rule)
    for round_ in range(2):
        mean = {"a": torch.tensor([means["a"][round_]]), "b": torch.tensor([[means["b"][round_]]])}
        mean["weight"] = torch.tensor([7.0 + round_])
        before = {name: tensor.clone() for name, tensor in {**state, **moments}.items()}
        following, kept = server_step(rule, state, mean, moments)
        assert all(torch.equal(before[name], tensor) for name, tensor in {**state, **moments}.items())
        state, moments = following, kept
        for name, start in (("a", 1.0), ("b", -2.0)):
            assert state[name].item() == pytest.approx(by_hand(rule, start, means[name])[round_], rel=1e-6)
        # The mean itself, which no step goes beyond.
        assert state["weight"].item() == 7 + round_


def test_without_momentum_and_at_rate_one_the_mean_is_the_next_state_bit_for_bit() -> None:
    chance = torch.Generator().manual_seed(0)
    special = torch.tensor([0.0, -0.0, 1e-45, -1e-38, 3e38, 1.0])
    start = {"w": torch.cat([special, torch.randn(994, generator=chance)])}
    moments = {"first/w": torch.zeros(1000)}
    for _ in range(3):
        mean = {"w": torch.cat([special, start["w"][6:] + torch.randn(994, generator=chance)])}
        state, moments = server_step(ServerRule("momentum", 1.0, 0.0), start, mean, moments)
        assert bytes(memory_of(state["w"])) == bytes(memory_of(mean["w"]))
        start = state


def test_it_keeps_moments_of_parameters_found_by_the_module_and_of_nothing_else() -> None:
    assert set(first(MOMENTUM)) == {"first/a", "first/b"}
    assert set(first(ADAM)) == {"first/a", "first/b", "second/a", "second/b"}
    assert first(ADAM)["second/b"].tolist() == [[pytest.approx(1e-6)]]
    assert first(None) == {}
    model = build_models([make_site("a", ["Edema"])], TINY, FFL, 0, torch.device("cpu"))["a"]
    shared, _ = part_model(model, FFL)
    kept = {name.removeprefix("first/") for name in first_moments(MOMENTUM, model, shared)}
    left = {name.rpartition(".")[2] for name in shared.keys() - kept}
    assert kept < shared.keys()
    assert left == {"running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize("rule", [ServerRule("momentum", 1e38, 0.9), ServerRule("adam", 1e39, 0.9, 1e-3)])
def test_a_step_beyond_all_numbers_is_refused_by_name(rule: ServerRule) -> None:
    state = Two().state_dict()
    mean = {name: tensor + 100 for name, tensor in state.items()}
    with pytest.raises(RunError, match=r"own step made a not finite\. Lower the server's learning rate"):
        server_step(rule, state, mean, first(rule))


def test_a_memory_beyond_all_numbers_is_refused_though_the_step_is_none() -> None:
    """As infinity, the mean square of one liar's update would hold a weight still for ever."""
    state = Two().state_dict()
    liar = {name: tensor + 5e20 for name, tensor in state.items()}
    with pytest.raises(RunError, match="own step made its memory of a not finite"):
        server_step(ADAM, state, liar, first(ADAM))


# In a federation, on sites that do not train.


def travelling(*about: Any) -> Part:
    update, own = stub_round(*about)
    return replace(update, state=narrowed(update.state, about[2].federation.transfer)), own


@pytest.fixture(autouse=True)
def _stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate_module, "site_round", travelling)


def ruled(rule: ServerRule | None, rounds: int = 4, **settings: Any) -> Plan:
    return replace(plan_for(rounds=rounds, **settings), rule=rule)


def stub_by_hand(plan: Plan, absent: set[tuple[int, str]]) -> torch.Tensor:
    """Return the weights of the stubs' federation, with each step taken by hand from what the sites started from."""
    rule, rules = plan.rule, plan.federation
    assert rule is not None
    private = {site.name: PrivateState({"head.weight": torch.zeros(5)}) for site in stub_sites(3)}
    x, m, v = STUB_SHARED["backbone.w"], torch.zeros(8, 8).double(), torch.full((8, 8), rule.epsilon**2).double()
    for round_ in range(rules.rounds):
        sent = narrowed({"backbone.w": x, "backbone.n": torch.tensor(round_)}, rules.transfer)
        came = []
        for site in stub_sites(3):
            if (round_, site.name) not in absent:
                update, private[site.name] = travelling(site, None, plan, round_, sent, private[site.name])
                came.append(update.state["backbone.w"].double())
        begin = sent["backbone.w"].double()
        together = torch.stack(came)
        d = (together.median(dim=0).values if rules.aggregation == "median" else together.mean(dim=0)) - begin
        m = rule.momentum * m + (d if rule.kind == "momentum" else (1 - rule.momentum) * d)
        v = 0.99 * v + 0.01 * d.square()
        x = (begin + rule.rate * (m if rule.kind == "momentum" else m / (v.sqrt() + rule.epsilon))).float()
    return x


@pytest.mark.parametrize("transfer", ["full", "half"])
def test_momentum_0_at_rate_1_is_the_plain_mean_bit_for_bit(transfer: str, tmp_path: Path) -> None:
    plain, _ = stub_federate(tmp_path / "plain", ruled(None, transfer=transfer))
    end, _ = stub_federate(tmp_path / "rule", ruled(ServerRule("momentum", 1.0, 0.0), transfer=transfer))
    assert differences(end, plain) == []


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("settings", [{}, {"transfer": "half"}, {"aggregation": "median"}], ids=str)
def test_a_federation_follows_it_from_what_the_sites_started_from(
    rule: ServerRule, settings: dict[str, Any], tmp_path: Path
) -> None:
    end, _ = stub_federate(tmp_path, plan := ruled(rule, **settings))
    assert torch.allclose(end.shared["backbone.w"], stub_by_hand(plan, set()), rtol=0, atol=1e-6)
    assert end.shared["backbone.n"].item() == plan.federation.rounds


@pytest.mark.parametrize("rule", RULES)
def test_an_update_too_far_is_left_out_before_the_step(
    rule: ServerRule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lie = (2, "001")
    monkeypatch.setattr(simulate_module, "site_round", spoiling({lie}, far, stub_round))
    end, rows = stub_federate(tmp_path, plan := ruled(rule))
    assert ["times the usual distance" in row.status for row in rows] == [(row.round, row.site) == lie for row in rows]
    assert torch.allclose(end.shared["backbone.w"], stub_by_hand(plan, {lie}), rtol=0, atol=1e-6)


def dying(*, round_: int, attempts: int = 1, error: type[BaseException] = OSError) -> Callable[..., Part]:
    """Give a round in which, at first, two of three sites do not come through."""
    failures = iter(range(2 * attempts))

    def parts(*about: Any) -> Part:
        if about[3] == round_ and about[0].name != "000" and next(failures, None) is not None:
            raise error("gone")
        return travelling(*about)

    return parts


@pytest.mark.parametrize("rule", RULES)
def test_a_round_that_is_repeated_takes_one_step(
    rule: ServerRule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, _ = stub_federate(tmp_path / "whole", ruled(rule))
    monkeypatch.setattr(simulate_module, "site_round", dying(round_=2))
    end, rows = stub_federate(tmp_path / "again", ruled(rule))
    assert sum("repeated" in row.status for row in rows) == 1
    assert differences(end, undisturbed) == []


def test_a_step_beyond_all_numbers_ends_the_training_with_the_state_before_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"round 0: the server's own step made backbone\.w not finite"):
        stub_federate(tmp_path, ruled(ServerRule("momentum", 1e300, 0.9)))
    assert sorted(file.name for file in tmp_path.glob("*-*")) == [
        "round-0.json",
        "server-0.safetensors",
        "shared-0.safetensors",
    ]


def moments_in(folder: Path) -> dict[str, torch.Tensor]:
    found = load_snapshot(Store(folder, KEY), [site.name for site in stub_sites(3)])
    assert found is not None
    return dict(found.moments)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("how", ["killed", "snapshot lost", "moments damaged"])
def test_interrupted_it_goes_on_as_if_it_never_had_been(
    how: str, rule: ServerRule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, _ = stub_federate(tmp_path / "whole", ruled(rule))
    folder = tmp_path / "interrupted"
    monkeypatch.setattr(simulate_module, "site_round", dying(round_=3, error=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        stub_federate(folder, ruled(rule))
    monkeypatch.setattr(simulate_module, "site_round", travelling)
    if how == "snapshot lost":
        (folder / "round-3.json").unlink()
    if how == "moments damaged":
        raw = bytearray((folder / "server-3.safetensors").read_bytes())
        raw[-1] ^= 1
        (folder / "server-3.safetensors").write_bytes(raw)
    end, rows = stub_federate(folder, ruled(rule))
    assert sorted({row.round for row in rows}) == ([3] if how == "killed" else [2, 3])
    assert differences(end, undisturbed) == []
    kept, expected = moments_in(folder), moments_in(tmp_path / "whole")
    assert kept.keys() == expected.keys()
    assert all(torch.equal(kept[name], expected[name]) for name in expected)
    assert any(tensor.abs().sum() > 0 for tensor in kept.values())
    assert sorted(file.name for file in folder.glob("server-*")) == ["server-3.safetensors", "server-4.safetensors"]
    remove_snapshots(Store(folder, KEY))
    assert not list(folder.glob("server-*"))


def test_a_rule_without_its_moments_never_passes_a_mean_for_its_work(tmp_path: Path) -> None:
    store = Store(tmp_path, KEY)
    sites = Sites([], lambda round_, state: iter(()))
    start = stub_start(stub_sites(3), store)
    with pytest.raises(ValueError, match="first moments"):
        federate(sites, ruled(None).federation, start, store, lambda rows, repeated: None, rule=MOMENTUM)
