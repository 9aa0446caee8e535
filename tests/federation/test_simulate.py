"""Laws of the method, on sites that train in milliseconds."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from polyhead.config import Federation
from polyhead.federation import site as site_module
from polyhead.federation import start as start_module
from polyhead.federation.means import weighted_mean
from polyhead.federation.private_state import PrivateState, load_private, save_private
from polyhead.federation.rounds import RoundRow
from polyhead.federation.sharing import NOTHING, Sharing
from polyhead.federation.simulate import Watch, simulate
from polyhead.federation.site import Plan, Site, site_round
from polyhead.federation.snapshot import Snapshot, Store, load_snapshot, save_snapshot
from polyhead.federation.start import build_models, initial_state, part_model
from polyhead.federation.update import SiteUpdate
from polyhead.training.local import Stretch, train_locally
from polyhead.training.model import SiteModel, load_state, model_state
from tests.conftest import FFL, TINY, make_site

FED_BN = Sharing(backbone=True, batch_norm=False, head=False)
CONVENTIONAL = Sharing(backbone=True, batch_norm=True, head=True)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class State:
    """A federation's state with everything in memory."""

    shared: dict[str, torch.Tensor]
    private: dict[str, PrivateState]


def federate(
    sites: list[Site], plan: Plan, sharing: Sharing, folder: Path, start: Snapshot | None = None
) -> tuple[State, list[RoundRow]]:
    models = build_models(sites, TINY, sharing, plan.seed, CPU)
    rows: list[RoundRow] = []
    store = Store(folder, "key")
    begin = start or initial_state(models, sharing, store)
    end = simulate(
        sites, models, replace(plan, sharing=sharing), begin, store, Watch(lambda new, repeated: rows.extend(new))
    )
    return in_memory(end, folder), rows


def in_memory(snapshot: Snapshot, folder: Path) -> State:
    private = {site: load_private(folder, site, file) for site, file in snapshot.private.items()}
    return State(dict(snapshot.shared), private)


def initial(sites: list[Site], plan: Plan, sharing: Sharing = FFL) -> State:
    shared: dict[str, torch.Tensor] = {}
    private = {}
    for name, model in build_models(sites, TINY, sharing, plan.seed, CPU).items():
        shared, private[name] = part_model(model, sharing)
    return State(shared, private)


def final_states(end: State) -> dict[str, dict[str, torch.Tensor]]:
    return {site: {**end.shared, **private.model} for site, private in end.private.items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def assert_one_backbone_and_private_heads(end: State, begin: State) -> None:
    """The law of FFL after a round."""
    assert end.shared, "nothing is shared"
    assert set(end.private["a"].model) == {"head.weight", "head.bias"}
    assert not torch.equal(end.shared["backbone.conv1.weight"], begin.shared["backbone.conv1.weight"])
    assert not torch.equal(end.private["a"].model["head.weight"][0], end.private["b"].model["head.weight"][0])


def test_after_a_round_of_ffl_backbones_are_equal_and_heads_are_not(
    two_sites: list[Site], plan: Plan, tmp_path: Path
) -> None:
    one_round = replace(plan, federation=Federation(rounds=1, local_steps=2))
    begin = initial(two_sites, plan)
    end, _ = federate(two_sites, one_round, FFL, tmp_path)
    assert_one_backbone_and_private_heads(end, begin)


def test_the_name_filter_of_the_released_code_breaks_that_law(
    two_sites: list[Site], plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def released(model: SiteModel, sharing: Sharing) -> frozenset[str]:
        return frozenset(name for name in model.state_dict() if not ("fc." or "head." in name))  # noqa: SIM222

    for module in (start_module, site_module):
        monkeypatch.setattr(module, "shared_names", released)
    begin = initial(two_sites, plan)
    end, _ = federate(two_sites, plan, FFL, tmp_path)
    with pytest.raises(AssertionError, match="nothing is shared"):
        assert_one_backbone_and_private_heads(end, begin)


def test_an_update_holds_the_backbone_and_nothing_else(two_sites: list[Site], plan: Plan) -> None:
    models = build_models(two_sites, TINY, FFL, plan.seed, CPU)
    begin = initial(two_sites, plan)
    site = two_sites[0]
    update, private = site_round(site, models["a"], plan, 0, begin.shared, begin.private["a"])
    assert set(vars(update)) == {"site", "round", "examples", "loss", "state", "rows"}
    assert update.rows is None
    assert set(update.state) == {f"backbone.{name}" for name in models["a"].backbone.state_dict()}
    assert (update.site, update.round, update.examples) == ("a", 0, 24)
    head = private.model["head.weight"]
    assert not torch.equal(head, begin.private["a"].model["head.weight"])
    assert all(tensor.shape != head.shape or not torch.equal(tensor, head) for tensor in update.state.values())


def test_a_round_is_the_mean_of_the_sites_trained_alone(two_sites: list[Site], plan: Plan, tmp_path: Path) -> None:
    one_round = replace(plan, federation=Federation(rounds=1, local_steps=2))
    end, _ = federate(two_sites, one_round, FFL, tmp_path)
    alone, _ = federate(two_sites, one_round, NOTHING, tmp_path)
    for name, tensor in end.shared.items():
        a, b = (alone.private[site].model[name].double() for site in ("a", "b"))
        expected = ((a + b) / 2).float() if tensor.is_floating_point() else ((a + b) / 2).round().long()
        assert torch.equal(tensor, expected)


def test_without_sharing_no_site_feels_another(two_sites: list[Site], plan: Plan, tmp_path: Path) -> None:
    together, _ = federate(two_sites, plan, NOTHING, tmp_path)
    for site in two_sites:
        alone, _ = federate([site], plan, NOTHING, tmp_path)
        assert_equal(final_states(together)[site.name], final_states(alone)[site.name])


@pytest.mark.parametrize("sharing", [NOTHING, FFL, FED_BN, CONVENTIONAL])
def test_one_site_is_plain_training(plan: Plan, sharing: Sharing, tmp_path: Path) -> None:
    site = make_site("a", ["Edema"], seed=1)
    end, _ = federate([site], plan, sharing, tmp_path)
    models = build_models([site], TINY, sharing, plan.seed, CPU)
    train_locally(models["a"], site.train, plan.training, Stretch(0, 6, 6, (plan.seed, "a")), {})
    assert_equal(final_states(end)["a"], model_state(models["a"]))


@pytest.mark.parametrize("sharing", [FFL, CONVENTIONAL])
def test_the_order_of_sites_does_not_matter(plan: Plan, sharing: Sharing, tmp_path: Path) -> None:
    sites = [make_site(name, ["Edema"], seed=index) for index, name in enumerate("abc")]
    forwards, _ = federate(sites, plan, sharing, tmp_path)
    backwards, _ = federate(sites[::-1], plan, sharing, tmp_path)
    assert_equal(dict(forwards.shared), dict(backwards.shared))


def test_private_batch_norm_stays_and_the_rest_is_one(two_sites: list[Site], plan: Plan, tmp_path: Path) -> None:
    end, _ = federate(two_sites, plan, FED_BN, tmp_path)
    states = final_states(end)
    assert torch.equal(states["a"]["backbone.conv1.weight"], states["b"]["backbone.conv1.weight"])
    assert not torch.equal(states["a"]["backbone.bn1.running_mean"], states["b"]["backbone.bn1.running_mean"])


def test_all_methods_start_from_one_broadcast_backbone(two_sites: list[Site], plan: Plan) -> None:
    states = [
        model_state(model)
        for sharing in (NOTHING, FFL)
        for model in build_models(two_sites, TINY, sharing, plan.seed, CPU).values()
    ]
    backbones = [{k: v for k, v in state.items() if k.startswith("backbone.")} for state in states]
    for other in backbones[1:]:
        assert_equal(backbones[0], other)


def _after_one_round(sites: list[Site], plan: Plan, sharing: Sharing, folder: Path) -> Snapshot:
    """One round by hand: each site's part, then the mean."""
    models = build_models(sites, TINY, sharing, plan.seed, CPU)
    state = initial(sites, plan, sharing)
    private = {}

    def updates() -> Iterator[SiteUpdate]:
        for site in sites:
            agreed = replace(plan, sharing=sharing)
            update, own = site_round(site, models[site.name], agreed, 0, state.shared, state.private[site.name])
            private[site.name] = save_private(folder, site.name, 1, own)
            yield update

    return Snapshot(1, weighted_mean(updates(), state.shared, "equal"), private)


@pytest.mark.parametrize("kept", ["keep", "reset"])
@pytest.mark.parametrize("sharing", [NOTHING, FFL, FED_BN])
def test_going_on_from_a_snapshot_is_never_having_stopped(
    two_sites: list[Site], plan: Plan, sharing: Sharing, kept: str, tmp_path: Path
) -> None:
    plan = replace(plan, training=plan.training.model_copy(update={"optimizer_state": kept}))
    undisturbed, rows = federate(two_sites, plan, sharing, tmp_path / "undisturbed")
    store = Store(tmp_path / "state", "key")
    save_snapshot(_after_one_round(two_sites, plan, sharing, store.folder), store)
    loaded = load_snapshot(store, ["a", "b"])
    assert loaded is not None
    assert loaded.rounds_done == 1
    resumed, later = federate(two_sites, plan, sharing, store.folder, start=loaded)
    for site in ("a", "b"):
        assert_equal(final_states(resumed)[site], final_states(undisturbed)[site])
        assert_equal(resumed.private[site].optimizer, undisturbed.private[site].optimizer)
    assert [(row.round, row.site, row.loss) for row in later] == [(r.round, r.site, r.loss) for r in rows[2:]]


def test_rows_tell_what_was_sent(two_sites: list[Site], plan: Plan, tmp_path: Path) -> None:
    _, rows = federate(two_sites, plan, FFL, tmp_path)
    assert [(row.round, row.site) for row in rows] == [(r, s) for r in range(3) for s in ("a", "b")]
    model = build_models(two_sites, TINY, FFL, 0, CPU)["a"]
    size = sum(tensor.nbytes for tensor in model.backbone.state_dict().values())
    assert {(row.bytes_up, row.bytes_down, row.status) for row in rows} == {(size, size, "averaged")}
    _, rows = federate(two_sites, plan, NOTHING, tmp_path)
    assert {(row.bytes_up, row.bytes_down, row.status) for row in rows} == {(0, 0, "alone")}


def test_a_state_with_a_missing_entry_is_never_loaded(two_sites: list[Site], plan: Plan) -> None:
    model = build_models(two_sites, TINY, FFL, plan.seed, CPU)["a"]
    state = model_state(model)
    del state["head.bias"]
    with pytest.raises(RuntimeError, match=r"head\.bias"):
        load_state(model, state)
