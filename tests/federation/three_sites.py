"""Federations of a few sites, run by `simulate`, and by hand to hold it against."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from polyhead.config import Federation, Training
from polyhead.federation.means import weighted_mean
from polyhead.federation.private_state import PrivateState, load_private, save_private
from polyhead.federation.rounds import RoundRow
from polyhead.federation.server_rule import ServerRule, first_moments
from polyhead.federation.sharing import Sharing
from polyhead.federation.simulate import Watch, simulate
from polyhead.federation.site import Plan, Site, site_round
from polyhead.federation.snapshot import Snapshot, Store, load_snapshot, save_snapshot
from polyhead.federation.start import build_models, initial_state, part_model
from polyhead.federation.update import SiteUpdate
from polyhead.seeds import derive_seed
from tests.conftest import FFL, TINY, make_site

KEY = "key"
CPU = torch.device("cpu")
FED_BN = Sharing(backbone=True, batch_norm=False, head=False)
Part = tuple[SiteUpdate, PrivateState]
Spoil = Callable[[SiteUpdate, Mapping[str, torch.Tensor]], SiteUpdate]


@dataclass(frozen=True)
class State:
    """A federation's state with everything in memory."""

    shared: dict[str, torch.Tensor]
    private: dict[str, PrivateState]


def three_sites() -> list[Site]:
    findings = (["Edema", "Mass"], ["Nodule"], ["Edema"])
    return [make_site(name, findings[place], 16 - 2 * place, place) for place, name in enumerate("abc")]


def plan_for(sharing: Sharing = FFL, rounds: int = 3, **settings: Any) -> Plan:
    federation = Federation(rounds=rounds, local_steps=1, **settings)
    return Plan(7, federation, Training(batch_size=8, device="cpu"), sharing)


def federate(folder: Path, plan: Plan, watch: Watch | None = None) -> tuple[State, list[RoundRow]]:
    """Train the three sites with `simulate`, going on from what lies in the folder."""
    sites, store, rows = three_sites(), Store(folder, KEY), list[RoundRow]()
    models = build_models(sites, TINY, plan.sharing, plan.seed, CPU)
    start = load_snapshot(store, [site.name for site in sites])
    if start is None:
        start = initial_state(models, plan.sharing, store, plan.rule)
        save_snapshot(start, store)
    end = simulate(sites, models, plan, start, store, watch or Watch(lambda new, repeated: rows.extend(new)))
    return in_memory(end, folder), rows


def in_memory(snapshot: Snapshot, folder: Path) -> State:
    private = {site: load_private(folder, site, file) for site, file in snapshot.private.items()}
    return State(dict(snapshot.shared), private)


def by_hand(plan: Plan, absent: Collection[tuple[int, str]] = (), parts: Callable[..., Part] = site_round) -> State:
    """The same, but nobody is judged: who is absent in a round is simply not asked."""
    sites = three_sites()
    models = build_models(sites, TINY, plan.sharing, plan.seed, CPU)
    shared: dict[str, torch.Tensor] = {}
    private: dict[str, PrivateState] = {}
    for name, model in models.items():
        shared, private[name] = part_model(model, plan.sharing)
    for round_ in range(plan.federation.rounds):
        present = [site for site in sites if (round_, site.name) not in absent]
        shared = _mean_by_hand(present, models, plan, round_, shared, private, parts)
    return State(shared, private)


def _mean_by_hand(
    sites: list[Site],
    models: Mapping[str, Any],
    plan: Plan,
    round_: int,
    shared: dict[str, torch.Tensor],
    private: dict[str, PrivateState],
    parts: Callable[..., Part],
) -> dict[str, torch.Tensor]:
    def updates() -> Iterator[SiteUpdate]:
        for site in sites:
            update, private[site.name] = parts(site, models[site.name], plan, round_, shared, private[site.name])
            yield update

    return weighted_mean(updates(), shared, plan.federation.weighting)


def differences(one: State, other: State) -> list[str]:
    """Name every entry in which two states are not bit for bit the same."""
    assert one.private.keys() == other.private.keys()
    pairs = {"shared": (one.shared, other.shared)}
    for site, own in one.private.items():
        pairs[f"{site}'s model"] = (own.model, other.private[site].model)
        pairs[f"{site}'s optimizer"] = (own.optimizer, other.private[site].optimizer)
    return [f"{part}: {name}" for part, (a, b) in pairs.items() for name in _differing(a, b)]


def _differing(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if a[name].dtype != b[name].dtype or not torch.equal(a[name], b[name])]


def spoiling(when: Collection[tuple[int, str]], spoil: Spoil, parts: Callable[..., Part] = site_round) -> Any:
    """Give a `site_round` whose update is spoiled on its way, after honest training."""

    def hostile(
        site: Site, model: Any, plan: Plan, round_: int, shared: Any, private: PrivateState, on_step: Any = None
    ) -> Part:
        update, own = parts(site, model, plan, round_, shared, private, on_step)
        return (spoil(update, shared) if (round_, site.name) in when else update), own

    return hostile


def far(update: SiteUpdate, shared: Mapping[str, torch.Tensor]) -> SiteUpdate:
    """Go a thousand times as far."""
    state = {
        name: shared[name] + 1000 * (sent - shared[name]) if sent.is_floating_point() else sent.clone()
        for name, sent in update.state.items()
    }
    # A variance below 0 would be refused for that.
    return replace(update, state={n: t.abs() if n.endswith("running_var") else t for n, t in state.items()})


# A federation without training: each state follows from the one before, so that nothing is lost unseen.

STUB_SHARED = {"backbone.w": torch.linspace(-1, 1, 64).reshape(8, 8), "backbone.n": torch.tensor(0)}


def stub_round(
    site: Site, model: Any, plan: Plan, round_: int, shared: Any, private: PrivateState, on_step: Any = None
) -> Part:
    chance = torch.Generator().manual_seed(derive_seed("stub", site.name, round_))
    head = 0.9 * private.model["head.weight"] + torch.randn(5, generator=chance)
    moment = private.optimizer.get("moment", torch.zeros(5)) / 2 + head
    step = torch.randn(8, 8, generator=chance) / 8 + 0.01 * moment.mean()
    state = {"backbone.w": shared["backbone.w"] + step, "backbone.n": shared["backbone.n"] + 1}
    examples = 10 + derive_seed(site.name) % 7
    return SiteUpdate(site.name, round_, examples, 0.5, state), PrivateState({"head.weight": head}, {"moment": moment})


def stub_sites(count: int) -> list[Site]:
    one = make_site("any", ["Edema"], 2)
    return [replace(one, name=f"{place:03}") for place in range(count)]


def stub_start(sites: list[Site], store: Store, rule: ServerRule | None = None) -> Snapshot:
    own = PrivateState({"head.weight": torch.zeros(5)})
    private = {site.name: save_private(store.folder, site.name, 0, own) for site in sites}
    model: Any = _Stateless()
    return Snapshot(0, STUB_SHARED, private, moments=first_moments(rule, model, STUB_SHARED))


def stub_federate(
    folder: Path, plan: Plan, count: int = 3, validate: Callable[..., float | None] | None = None
) -> tuple[State, list[RoundRow]]:
    """Run `simulate` on sites that do not train, going on from what lies in the folder; `site_round` is replaced."""
    sites, store, rows = stub_sites(count), Store(folder, KEY), list[RoundRow]()
    start = load_snapshot(store, [site.name for site in sites])
    if start is None:
        start = stub_start(sites, store, plan.rule)
        save_snapshot(start, store)
    models: dict[str, Any] = {site.name: _Stateless() for site in sites}
    end = simulate(sites, models, plan, start, store, Watch(lambda new, repeated: rows.extend(new), validate=validate))
    return in_memory(end, folder), rows


class _Stateless(torch.nn.Module):
    """What validation loads a state into; of the stubs' entries ``w`` is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.Module()
        self.backbone.w = torch.nn.Parameter(torch.zeros(8, 8))
        self.backbone.register_buffer("n", torch.tensor(0))

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        self.loaded = dict(state_dict)


def stub_by_hand(plan: Plan, absent: Collection[tuple[int, str]] = (), count: int = 3) -> State:
    shared, sites = STUB_SHARED, stub_sites(count)
    private = {site.name: PrivateState({"head.weight": torch.zeros(5)}) for site in sites}
    for round_ in range(plan.federation.rounds):
        present = [site for site in sites if (round_, site.name) not in absent]
        models = dict.fromkeys(private)
        shared = _mean_by_hand(present, models, plan, round_, shared, private, stub_round)
    return State(shared, private)
