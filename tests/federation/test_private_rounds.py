"""A site's round with noise: what leaves it, and of what the noise is drawn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from polyhead.config import Federation, Model, Privacy, Training
from polyhead.federation import simulate as simulate_module
from polyhead.federation.outliers import distance
from polyhead.federation.private_state import PrivateState, load_private
from polyhead.federation.rounds import RoundRow
from polyhead.federation.secret_draw import draw_key, public_secret
from polyhead.federation.sharing import NOTHING, Sharing, shared_names
from polyhead.federation.simulate import Watch, simulate
from polyhead.federation.site import Plan, Site, round_key, site_round
from polyhead.federation.snapshot import Snapshot, Store, load_snapshot, save_snapshot
from polyhead.federation.start import build_models, initial_state, part_model
from polyhead.federation.update import SiteUpdate, check_update
from tests.conftest import FFL, make_site

GROUPS = Model(backbone="resnet10", width=0.0625, image_size=32, norm="group")
FED_BN = Sharing(backbone=True, batch_norm=False, head=False)
CONVENTIONAL = Sharing(backbone=True, batch_norm=True, head=True)
CPU = torch.device("cpu")
PLAN = Plan(7, Federation(rounds=3, local_steps=1), Training(batch_size=2, device="cpu"), FFL, Privacy(noise=1.0))
SECRET = bytes(range(32))


def sites() -> list[Site]:
    return [replace(make_site(name, ["Edema"], 8, seed), secret=b"") for seed, name in enumerate("abc")]


def begin(site: Site, plan: Plan = PLAN) -> tuple[dict[str, torch.Tensor], PrivateState]:
    return part_model(build_models([site], GROUPS, plan.sharing, plan.seed, CPU)[site.name], plan.sharing)


def a_round(site: Site, plan: Plan = PLAN) -> tuple[SiteUpdate, PrivateState]:
    shared, own = begin(site, plan)
    return site_round(site, build_models([site], GROUPS, plan.sharing, plan.seed, CPU)[site.name], plan, 0, shared, own)


@pytest.mark.parametrize("sharing", [FFL, CONVENTIONAL, NOTHING])
def test_neither_a_loss_nor_a_count_leaves_with_an_update(sharing: Sharing) -> None:
    site = replace(sites()[0], secret=SECRET)
    plan = replace(PLAN, sharing=sharing)
    update, _ = a_round(site, plan)
    assert (update.examples, update.loss) == (1, None)
    check_update(update, begin(site, plan)[0], 0)


def test_without_a_secret_there_is_no_round_with_noise() -> None:
    with pytest.raises(ValueError, match="secret"):
        a_round(sites()[0])


def test_who_shares_nothing_trains_without_noise() -> None:
    plan = replace(PLAN, sharing=NOTHING)
    quiet = a_round(sites()[0], replace(plan, privacy=Privacy()))[1]
    own = a_round(sites()[0], plan)[1]
    assert all(torch.equal(own.model[name], quiet.model[name]) for name in quiet.model)


def test_the_secret_is_not_shown() -> None:
    site = replace(sites()[0], secret=SECRET)
    assert "secret" not in repr(site)


def test_the_same_question_has_the_same_noise_and_any_other_has_other() -> None:
    site = replace(sites()[0], secret=SECRET)
    shared, own = begin(site)
    own = PrivateState(own.model, {"head.weight.exp_avg": torch.zeros(1, 64)})
    same = round_key(site, PLAN, 0, {name: tensor.clone() for name, tensor in shared.items()}, own)
    key = round_key(site, PLAN, 0, shared, own)
    assert key == same
    assert len(key) == 32
    moved = {name: tensor.clone() for name, tensor in shared.items()}
    moved["backbone.conv1.weight"][0, 0, 0, 0] += 1e-6
    pixels = site.train.pixels.copy()
    pixels[3, 0, 0] ^= 1
    labels = site.train.labels.copy()
    labels[0] = np.nan
    others = [
        (replace(site, secret=bytes(32)), PLAN, 0, shared, own),
        (replace(site, name="b"), PLAN, 0, shared, own),
        (site, replace(PLAN, seed=8), 0, shared, own),
        (site, replace(PLAN, sharing=CONVENTIONAL), 0, shared, own),
        (site, replace(PLAN, privacy=Privacy(noise=1.0, clip=2.0)), 0, shared, own),
        (site, replace(PLAN, training=Training(batch_size=4, device="cpu")), 0, shared, own),
        (site, PLAN, 1, shared, own),
        (site, PLAN, 0, moved, own),
        (site, PLAN, 0, shared, PrivateState({**own.model, "head.bias": torch.ones(1)}, own.optimizer)),
        (site, PLAN, 0, shared, PrivateState(own.model, {"head.weight.exp_avg": torch.ones(1, 64)})),
        (replace(site, train=replace(site.train, pixels=pixels)), PLAN, 0, shared, own),
        (replace(site, train=replace(site.train, labels=labels)), PLAN, 0, shared, own),
        (replace(site, train=replace(site.train, patients=site.train.patients[::-1])), PLAN, 0, shared, own),
    ]
    keys = {round_key(*other) for other in others}
    assert len(keys | {key}) == len(others) + 1


def test_how_a_state_lies_in_memory_changes_no_noise() -> None:
    state = torch.arange(24.0).reshape(1, 2, 3, 4)
    last = state.to(memory_format=torch.channels_last)
    assert draw_key(SECRET, (), {"shared": {"x": state}}) == draw_key(SECRET, (), {"shared": {"x": last}})
    assert draw_key(SECRET, (), {"shared": {"x": state}}) != draw_key(SECRET, (), {"other": {"x": state}})


def run(folder: Path, plan: Plan = PLAN) -> tuple[dict[str, torch.Tensor], dict[str, PrivateState], list[RoundRow]]:
    all_, store, rows = sites(), Store(folder, "key"), list[RoundRow]()
    models = build_models(all_, GROUPS, plan.sharing, plan.seed, CPU)
    start = load_snapshot(store, list("abc")) or save_snapshot(initial_state(models, plan.sharing, store), store)
    end: Snapshot = simulate(all_, models, plan, start, store, Watch(lambda new, repeated: rows.extend(new)))
    return dict(end.shared), {name: load_private(folder, name, end.private[name]) for name in models}, rows


@pytest.mark.parametrize("sharing", [FFL, FED_BN, CONVENTIONAL])
def test_a_killed_simulation_goes_on_as_if_it_had_never_been(
    sharing: Sharing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(PLAN, sharing=sharing)
    shared, private, rows = run(tmp_path / "whole", plan)
    assert all(np.isnan(row.loss) for row in rows)
    calls = iter(range(100))

    def killed(*arguments: object) -> object:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return site_round(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(simulate_module, "site_round", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", plan)
    monkeypatch.undo()
    again, own, later = run(tmp_path / "killed", plan)
    assert {row.round for row in later} == {1, 2}
    assert all(torch.equal(shared[name], again[name]) for name in shared)
    for site, state in private.items():
        assert all(torch.equal(state.model[name], own[site].model[name]) for name in state.model)
        assert all(torch.equal(state.optimizer[name], own[site].optimizer[name]) for name in state.optimizer)


def test_in_a_simulation_each_site_and_seed_has_noise_of_its_own() -> None:
    assert len({public_secret(seed, site) for seed in (0, 1) for site in "ab"}) == 4


def test_without_batch_norm_everything_but_the_head_is_shared_and_has_a_distance() -> None:
    model = build_models([sites()[0]], GROUPS, FED_BN, 0, CPU)["a"]
    names = {f"backbone.{name}" for name in model.backbone.state_dict()}
    assert shared_names(model, FED_BN) == shared_names(model, FFL) == names
    shared, own = part_model(model, FED_BN)
    assert set(own.model) == {"head.weight", "head.bias"}
    assert distance({name: tensor + 1 for name, tensor in shared.items()}, shared).statistics == 0


def test_a_head_that_begins_late_is_not_warmed_without_noise() -> None:
    site = replace(sites()[0], secret=SECRET)
    shared, own = begin(site)
    taken: list[int] = []
    for plan in (PLAN, replace(PLAN, privacy=Privacy())):
        model = build_models([site], GROUPS, FFL, plan.seed, CPU)["a"]
        steps = list[None]()
        site_round(site, model, plan, 1, shared, own, lambda steps=steps: steps.append(None))
        taken.append(len(steps))
    assert taken == [1, 2]
