"""What travels in half precision is what NumPy would round it to; all else of a federation is as in full."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from polyhead.config import Federation
from polyhead.errors import UpdateError
from polyhead.federation import simulate as simulate_module
from polyhead.federation import site as site_module
from polyhead.federation.aggregate import aggregate
from polyhead.federation.means import weighted_mean
from polyhead.federation.private_state import PrivateState
from polyhead.federation.rounds import RoundRow
from polyhead.federation.sharing import NOTHING, Sharing
from polyhead.federation.simulate import Watch, simulate
from polyhead.federation.site import Plan, Site, site_round
from polyhead.federation.snapshot import Snapshot, Store
from polyhead.federation.start import build_models, initial_state, part_model
from polyhead.federation.transfer import narrowed, travelling_type, widened
from polyhead.federation.update import SiteUpdate, check_update
from polyhead.training.model import SiteModel
from tests.conftest import FFL, TINY, make_site
from tests.federation.three_sites import (
    CPU,
    FED_BN,
    KEY,
    State,
    differences,
    federate,
    in_memory,
    plan_for,
    spoiling,
    three_sites,
)

CONVENTIONAL = Sharing(backbone=True, batch_norm=True, head=True)
HALF: dict[str, Any] = {"transfer": "half"}
FLOATS = st.floats(-65504, 65504, width=32)


def rounded(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Round as half precision does, by NumPy."""
    return {
        name: torch.from_numpy(tensor.numpy().astype(np.float16).astype(np.float32)) if tensor.dim() > 1 else tensor
        for name, tensor in state.items()
    }


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=5, max_side=4), elements=FLOATS))
def test_a_weight_comes_back_as_the_nearest_half(values: np.ndarray[Any, Any]) -> None:
    weight = {"w": torch.from_numpy(values).transpose(0, 1)}
    sent = narrowed(weight, "half")
    assert sent["w"].dtype == torch.float16
    back = widened(sent, like=weight)
    assert back["w"].dtype == torch.float32
    assert back["w"].stride() == weight["w"].stride()
    exact = values.astype(np.float16).astype(np.float32)
    assert back["w"].transpose(0, 1).numpy().tobytes() == exact.tobytes()
    error = np.abs(values.astype(np.float64) - exact)
    assert (error <= np.maximum(np.abs(values.astype(np.float64)) * 2.0**-11, 2.0**-25)).all()
    # What has travelled once is not moved again.
    assert torch.equal(narrowed(back, "half")["w"], sent["w"])
    assert narrowed(sent, "half")["w"] is sent["w"]


@pytest.mark.parametrize(
    "tensor",
    [
        *(torch.rand(7), torch.tensor(0.1), torch.arange(6).reshape(2, 3), torch.ones(2, 2, dtype=torch.bool)),
        *(torch.rand(2, 2, dtype=torch.float64), torch.rand(2, 2).half(), torch.rand(2, 2).bfloat16()),
    ],
)
def test_vectors_counters_and_other_types_travel_as_they_are(tensor: torch.Tensor) -> None:
    assert narrowed({"t": tensor}, "half")["t"] is tensor
    assert travelling_type(tensor, "half") == tensor.dtype


def test_in_full_nothing_is_touched() -> None:
    weight = torch.rand(2, 2)
    assert narrowed({"t": weight}, "full")["t"] is weight
    assert widened({"t": weight}, like={"t": weight})["t"] is weight


def test_what_would_become_infinite_is_refused_by_who_sends_it() -> None:
    assert narrowed({"w": torch.full((2, 2), 65519.0)}, "half")["w"].max() == 65504
    for value in (65520.0, -1e30):
        with pytest.raises(UpdateError, match=r"backbone\.w holds a value of .*65,504.*federation\.transfer = 'full'"):
            narrowed({"backbone.w": torch.tensor([[1.0, value]])}, "half")
    # Whose training broke down is told by the server, as in full.
    assert narrowed({"w": torch.tensor([[torch.nan, 1e30]])}, "half")["w"].isnan().any()


def by_hand(plan: Plan, sites: list[Site]) -> State:
    """Rounds in full precision, with everything rounded by NumPy on its way."""
    models = build_models(sites, TINY, plan.sharing, plan.seed, CPU)
    full = replace(plan, federation=plan.federation.model_copy(update={"transfer": "full"}))
    shared: dict[str, torch.Tensor] = {}
    private: dict[str, PrivateState] = {}
    for name, model in models.items():
        shared, private[name] = part_model(model, plan.sharing)
    for round_ in range(plan.federation.rounds):
        updates = []
        for site in sites:
            update, private[site.name] = site_round(
                site, models[site.name], full, round_, rounded(shared), private[site.name]
            )
            updates.append(replace(update, state={name: one.clone() for name, one in rounded(update.state).items()}))
        shared = weighted_mean(updates, shared, "equal")
    return State(shared, private)


@pytest.mark.parametrize("sharing", [FFL, FED_BN])
def test_half_is_full_with_everything_rounded_on_its_way(sharing: Sharing, tmp_path: Path) -> None:
    plan = plan_for(sharing, validate_every=3, **HALF)
    rows, validated = list[RoundRow](), list[torch.Tensor]()

    def validate(model: SiteModel, site: Site) -> None:
        validated.append(model.state_dict()["backbone.conv1.weight"].clone())

    end, _ = federate(tmp_path, plan, Watch(lambda new, repeated: rows.extend(new), validate=validate))
    assert {row.status for row in rows} == {"averaged"}
    assert not differences(end, by_hand(plan, three_sites()))
    # The mean itself is not rounded; but what the sites get to see of it, and would end with.
    weight = end.shared["backbone.conv1.weight"]
    assert not torch.equal(weight, rounded({"w": weight})["w"])
    assert all(torch.equal(one, rounded({"w": weight})["w"]) for one in validated)
    assert len(validated) == 3


def test_heads_that_are_shared_travel_so_too(tmp_path: Path) -> None:
    sites = [make_site(name, ["Edema", "Mass"], 16, place) for place, name in enumerate("ab")]
    plan, store = plan_for(CONVENTIONAL, rounds=2, **HALF), Store(tmp_path, KEY)
    models = build_models(sites, TINY, plan.sharing, plan.seed, CPU)
    start = initial_state(models, plan.sharing, store)
    end = simulate(sites, models, plan, start, store, Watch(lambda rows, repeated: None))
    assert not differences(in_memory(end, tmp_path), by_hand(plan, sites))


def test_the_bytes_of_a_round_are_those_that_travelled(tmp_path: Path) -> None:
    end, rows = federate(tmp_path, plan_for(rounds=1, **HALF))
    full = sum(tensor.nbytes for tensor in end.shared.values())
    wanted = sum(tensor.nbytes // (2 if tensor.dim() > 1 else 1) for tensor in end.shared.values())
    assert {(row.bytes_up, row.bytes_down) for row in rows} == {(wanted, wanted)}
    assert 0.5 < wanted / full < 0.52


def test_where_nothing_is_shared_half_is_full(tmp_path: Path) -> None:
    ends = [
        federate(tmp_path / transfer, plan_for(NOTHING, rounds=1, transfer=transfer))[0]
        for transfer in ("full", "half")
    ]
    assert not differences(*ends)


def snapped(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Round weights to multiples of 1/64: these, and the mean of two, have a float16 each."""
    return {name: (tensor * 64).round() / 64 if tensor.dim() > 1 else tensor for name, tensor in state.items()}


def test_half_is_full_where_every_weight_has_its_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = site_module.train_locally

    def train(model: Any, *rest: Any) -> Any:
        result = trained(model, *rest)
        model.backbone.load_state_dict(snapped(model.backbone.state_dict()))
        return result

    monkeypatch.setattr(site_module, "train_locally", train)
    sites = three_sites()[:2]

    def end(transfer: str) -> tuple[State, list[RoundRow]]:
        plan, store, rows = plan_for(transfer=transfer), Store(tmp_path / transfer, KEY), list[RoundRow]()
        models = build_models(sites, TINY, plan.sharing, plan.seed, CPU)
        start = initial_state(models, plan.sharing, store)
        start = Snapshot(0, snapped(start.shared), start.private)
        after = simulate(sites, models, plan, start, store, Watch(lambda new, repeated: rows.extend(new)))
        return in_memory(after, store.folder), rows

    (full, full_rows), (half, half_rows) = end("full"), end("half")
    assert not differences(full, half)
    assert [row.loss for row in full_rows] == [row.loss for row in half_rows]


def test_a_site_that_learnt_nothing_is_at_no_distance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_module, "train_locally", lambda *rest: (0.5, {}))
    sites, store, plan = three_sites(), Store(tmp_path, KEY), plan_for(rounds=1, **HALF)
    models = build_models(sites, TINY, plan.sharing, plan.seed, CPU)
    start = initial_state(models, plan.sharing, store)
    assert simulate(sites, models, plan, start, store, Watch(lambda rows, repeated: None)).usual == (0.0, 0.0)


def test_an_interrupted_federation_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    plan = plan_for(rounds=2, **HALF)
    steps = iter(range(99))

    def stop() -> None:
        # In the second round, at the second site.
        if next(steps) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federate(tmp_path / "stopped", plan, Watch(lambda rows, repeated: None, stop))
    assert not differences(federate(tmp_path / "stopped", plan)[0], federate(tmp_path / "whole", plan)[0])


def statuses(rows: list[RoundRow]) -> dict[str, str]:
    return {row.site: row.status for row in rows}


@pytest.mark.parametrize("aggregation", ["mean", "median"])
def test_a_site_that_sends_in_full_is_left_out(
    aggregation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_full(update: SiteUpdate, shared: Mapping[str, torch.Tensor]) -> SiteUpdate:
        return replace(
            update, state={name: one.float() if one.dim() > 1 else one for name, one in update.state.items()}
        )

    monkeypatch.setattr(simulate_module, "site_round", spoiling({(0, "b")}, in_full))
    _, rows = federate(tmp_path, plan_for(rounds=1, aggregation=aggregation, **HALF))
    found = statuses(rows)
    assert found["b"].startswith("left out: backbone.")
    assert "is torch.float32 (" in found["b"]
    assert "instead of torch.float16 (" in found["b"]
    assert found["a"] == found["c"] == "averaged"


def test_a_weight_beyond_half_precision_costs_its_site_the_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = site_module.train_locally

    def train(model: Any, data: Any, *rest: Any) -> Any:
        result = trained(model, data, *rest)
        if len(data) == 14:  # Site b's.
            with torch.no_grad():
                model.backbone.conv1.weight[0, 0, 0, 0] = 1e5
        return result

    monkeypatch.setattr(site_module, "train_locally", train)
    _, rows = federate(tmp_path, plan_for(rounds=1, **HALF))
    assert statuses(rows)["b"].startswith("failed: backbone.conv1.weight holds a value of 100000, and half precision")
    assert statuses(rows)["c"] == "averaged"


@pytest.mark.parametrize("transfer", ["full", "half"])
def test_an_update_must_have_the_types_in_which_entries_travel(transfer: Any) -> None:
    current = {"w": torch.zeros(2, 2), "b": torch.zeros(2)}
    types = {"full": torch.float32, "half": torch.float16}
    update = SiteUpdate("a", 0, 1, 0.5, {"w": torch.zeros(2, 2, dtype=types[transfer]), "b": torch.zeros(2)})
    check_update(update, current, 0, transfer)
    # At the site: against what came.
    check_update(update, narrowed(current, transfer), 0)
    with pytest.raises(UpdateError, match=r"w is torch\.float"):
        check_update(update, current, 0, {"full": "half", "half": "full"}[transfer])  # type: ignore[arg-type]


@pytest.mark.parametrize("aggregation", ["median", "trimmed_mean"])
def test_a_robust_mean_is_taken_of_what_arrived_in_full_precision(aggregation: str, tmp_path: Path) -> None:
    current = {"w": torch.rand(3, 5), "b": torch.rand(3)}
    sent = [
        SiteUpdate(
            site, 0, 1, 0.5, narrowed({name: one + torch.rand_like(one) for name, one in current.items()}, "half")
        )
        for site in "abcd"
    ]
    rules: dict[str, Any] = {"aggregation": aggregation, "trim": 0.25}
    found = aggregate(sent, current, Federation(transfer="half", **rules), tmp_path, 4)
    wide = [replace(one, state=widened(one.state, current)) for one in sent]
    wanted = aggregate(wide, current, Federation(**rules), tmp_path, 4)
    assert found.counted == wanted.counted == tuple("abcd")
    assert found.state["w"].dtype == torch.float32
    assert all(torch.equal(found.state[name], wanted.state[name]) for name in current)
    assert found.usual == wanted.usual
