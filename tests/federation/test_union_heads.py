"""Laws of the methods whose head has the findings of all sites, on sites that train in milliseconds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polyhead.config import Federation, Training
from polyhead.federation import simulate as simulate_module
from polyhead.federation.pool import plan_in_pool, pool_sites
from polyhead.federation.private_state import load_private
from polyhead.federation.rounds import RoundRow
from polyhead.federation.sharing import NOTHING, Sharing
from polyhead.federation.simulate import Watch, simulate
from polyhead.federation.site import Plan, Site, site_round
from polyhead.federation.snapshot import Store
from polyhead.federation.start import build_models, initial_state
from polyhead.federation.update import SiteUpdate
from polyhead.training.dataset import SplitData
from polyhead.training.local import Stretch, train_locally
from polyhead.training.model import model_state
from tests.conftest import TINY, make_site

State = dict[str, torch.Tensor]
CPU = torch.device("cpu")
CONVENTIONAL = Sharing(backbone=True, batch_norm=True, head=True)
SURGICAL = replace(CONVENTIONAL, rows=True)
UNION = ("Edema", "Mass", "Nodule")
HEAD = ("head.weight", "head.bias")


def plan_for(sharing: Sharing, **settings: Any) -> Plan:
    federation = Federation(**{"rounds": 3, "local_steps": 2, **settings})
    return Plan(7, federation, Training(batch_size=8, device="cpu"), sharing)


def widened(site: Site, findings: tuple[str, ...] = UNION) -> Site:
    """Give a site a head of all findings: those it does not annotate are blank."""

    def wide(split: SplitData) -> SplitData:
        labels = np.full((len(split), len(findings)), np.nan, np.float32)
        labels[:, [findings.index(finding) for finding in site.findings]] = split.labels
        return replace(split, labels=labels)

    splits = [wide(split) for split in (site.train, site.val, site.test)]
    blank = tuple(finding for finding in findings if finding not in site.findings)
    return Site(site.name, findings, findings, *splits, blank=blank)


def three_sites() -> list[Site]:
    """Of the union the first finding is of two sites, the others of one each."""
    findings = (["Edema", "Mass"], ["Edema"], ["Nodule"])
    return [widened(make_site(name, findings[place], 16 - 2 * place, place)) for place, name in enumerate("abc")]


def federate(
    sites: list[Site], plan: Plan, folder: Path, on_step: Any = None
) -> tuple[dict[str, State], list[RoundRow], State]:
    """Train with `simulate`; return each site's whole final state, the rows, and the shared state before any round."""
    models = build_models(sites, TINY, plan.sharing, plan.seed, CPU)
    store, rows = Store(folder, "key"), list[RoundRow]()
    begin = initial_state(models, plan.sharing, store)
    end = simulate(sites, models, plan, begin, store, Watch(lambda new, repeated: rows.extend(new), on_step))
    own = {site: load_private(folder, site, file).model for site, file in end.private.items()}
    return {site: {**end.shared, **state} for site, state in own.items()}, rows, dict(begin.shared)


def differing(one: State, other: State) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[SiteUpdate]:
    """Keep what every site sends."""
    kept: list[SiteUpdate] = []

    def watched(*round_of: Any) -> Any:
        update, own = site_round(*round_of)
        kept.append(replace(update, state={name: one.clone() for name, one in update.state.items()}))
        return update, own

    monkeypatch.setattr(simulate_module, "site_round", watched)
    return kept


def test_a_row_of_one_site_stays_its_bits_and_the_others_are_means_by_hand(
    tmp_path: Path, sent: list[SiteUpdate]
) -> None:
    ends, _, _ = federate(three_sites(), plan_for(SURGICAL, rounds=1), tmp_path)
    assert [update.rows for update in sent] == [(True, True, False), (True, False, False), (False, False, True)]
    a, b, c = (update.state for update in sent)
    for name in HEAD:
        end = ends["a"][name]
        assert torch.equal(end[0], ((a[name][0].double() + b[name][0].double()) / 2).float())
        for row, of_site in ((1, a), (2, c)):
            assert end[row].numpy().tobytes() == of_site[name][row].numpy().tobytes()
            # Not that all sites had the same there.
            assert not torch.equal(a[name][row], c[name][row])
    mean = (a["backbone.conv1.weight"].double() + b["backbone.conv1.weight"] + c["backbone.conv1.weight"]) / 3
    assert torch.equal(ends["a"]["backbone.conv1.weight"], mean.float())
    # One model for all.
    assert differing(ends["a"], ends["b"]) == differing(ends["a"], ends["c"]) == []


def test_a_site_counts_for_the_findings_that_its_training_images_are_annotated_for(
    tmp_path: Path, sent: list[SiteUpdate]
) -> None:
    a, b, c = three_sites()
    labels = b.train.labels.copy()
    labels[:, 0] = np.nan
    labels[3, 1] = 1  # a single one
    federate([a, replace(b, train=replace(b.train, labels=labels)), c], plan_for(SURGICAL, rounds=1), tmp_path)
    assert sent[1].rows == (False, True, False)


def test_a_row_whose_sites_all_failed_keeps_its_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(site: Site, *rest: Any) -> Any:
        if site.name == "c":
            raise ValueError("out of memory")
        return site_round(site, *rest)

    monkeypatch.setattr(simulate_module, "site_round", failing)
    ends, rows, begin = federate(three_sites(), plan_for(SURGICAL), tmp_path)
    assert {row.site for row in rows if row.status.startswith("failed")} == {"c"}
    for name in HEAD:
        assert torch.equal(ends["a"][name][2], begin[name][2])
        assert not torch.equal(ends["a"][name][0], begin[name][0])


def test_where_every_site_annotates_everything_all_shared_heads_are_one_method(tmp_path: Path) -> None:
    sites = [make_site(name, UNION, 16 - 2 * place, place) for place, name in enumerate("abc")]
    for weighting in ("equal", "examples"):
        conventional, *_ = federate(sites, plan_for(CONVENTIONAL, weighting=weighting), tmp_path / "conventional")
        surgical, *_ = federate(list(map(widened, sites)), plan_for(SURGICAL, weighting=weighting), tmp_path / "rows")
        masked, *_ = federate(list(map(widened, sites)), plan_for(CONVENTIONAL, weighting=weighting), tmp_path / "mask")
        for name in "abc":
            assert differing(surgical[name], conventional[name]) == differing(masked[name], conventional[name]) == []


def test_where_sites_do_not_the_two_differ_in_the_head(tmp_path: Path) -> None:
    one_round = {"rounds": 1, "local_steps": 1}
    surgical, *_ = federate(three_sites(), plan_for(SURGICAL, **one_round), tmp_path / "surgical")
    masked, *_ = federate(three_sites(), plan_for(CONVENTIONAL, **one_round), tmp_path / "masked")
    assert differing(surgical["a"], masked["a"]) == sorted(HEAD)


@pytest.mark.parametrize("sharing", [CONVENTIONAL, SURGICAL])
def test_the_order_of_sites_does_not_matter(sharing: Sharing, tmp_path: Path) -> None:
    forwards, *_ = federate(three_sites(), plan_for(sharing), tmp_path / "forwards")
    backwards, *_ = federate(three_sites()[::-1], plan_for(sharing), tmp_path / "backwards")
    assert differing(forwards["a"], backwards["a"]) == []


@pytest.mark.parametrize("rule", ["reject", "clip"])
def test_wild_values_in_the_rows_of_others_change_nothing(
    rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site that sends rubbish for findings it does not annotate neither harms the others nor itself."""

    def wild(site: Site, *rest: Any) -> Any:
        update, own = site_round(site, *rest)
        assert update.rows is not None
        unused = ~torch.tensor(update.rows)
        state = {name: one.clone() for name, one in update.state.items()}
        for name in HEAD:
            state[name][unused] = torch.nan if site.name == "b" else 1e20
        return replace(update, state=state), own

    plan = plan_for(SURGICAL, distance_rule=rule)
    honest, rows, _ = federate(three_sites(), plan, tmp_path / "honest")
    monkeypatch.setattr(simulate_module, "site_round", wild)
    wildly, wild_rows, _ = federate(three_sites(), plan, tmp_path / "wild")
    assert [row.status for row in wild_rows] == [row.status for row in rows] == ["averaged"] * 9
    assert differing(wildly["a"], honest["a"]) == []


def trained(site: Site, head: State | None = None) -> tuple[State, State]:
    """Return the states of a site's model before and after some steps without weight decay."""
    model = build_models([site], TINY, CONVENTIONAL, 7, CPU)[site.name]
    if head:
        model.head.load_state_dict(head)
    begin = model_state(model)
    training = Training(batch_size=8, device="cpu", weight_decay=0)
    train_locally(model, site.train, training, Stretch(0, 4, 4, (7, site.name)), {})
    return begin, model_state(model)


def test_a_column_of_blanks_learns_nothing_and_teaches_nothing() -> None:
    site = widened(make_site("a", ["Edema", "Nodule"], 16))
    begin, end = trained(site)
    # Without a gradient AdamW does not move a weight.
    for name in HEAD:
        assert torch.equal(end[name][1], begin[name][1])
        assert not torch.equal(end[name][0], begin[name][0])
    # Whatever stands there: no other weight feels it.
    wild = {"weight": begin["head.weight"].clone(), "bias": begin["head.bias"].clone()}
    wild["weight"][1], wild["bias"][1] = 50.0, -3.0
    _, other = trained(site, wild)
    assert differing(end, other) == list(HEAD)
    for name in HEAD:
        assert torch.equal(end[name][[0, 2]], other[name][[0, 2]])


def test_with_a_column_of_blanks_a_site_learns_what_it_learns_without() -> None:
    narrow = make_site("a", ["Edema", "Nodule"], 16)
    _, one = trained(narrow)
    _, other = trained(widened(narrow))
    # Another shape of the head adds up in another order.
    for name in one:
        wanted = other[name][[0, 2]] if name in HEAD else other[name]
        assert torch.allclose(one[name], wanted, rtol=1e-3, atol=1e-5), name


def test_the_pool_of_one_site_trains_as_that_site_alone(tmp_path: Path) -> None:
    site = make_site("a", ["Edema", "Mass"], 16)
    pool, plan = pool_sites([site]), plan_for(NOTHING)
    assert (pool.name, pool.findings, pool.canonical) == ("a", site.findings, site.canonical)
    alone, rows, _ = federate([site], plan, tmp_path / "alone")
    pooled, pool_rows, _ = federate([pool], plan_in_pool(plan, 1), tmp_path / "pool")
    assert differing(alone["a"], pooled["a"]) == []
    assert [(row.round, row.loss) for row in pool_rows] == [(row.round, row.loss) for row in rows]


def test_a_pool_is_the_same_whatever_the_order_of_sites(tmp_path: Path) -> None:
    forwards, backwards = pool_sites(three_sites()), pool_sites(three_sites()[::-1])
    assert (forwards.name, forwards.train.images) == (backwards.name, backwards.train.images)
    assert forwards.name == "a+b+c"
    np.testing.assert_array_equal(forwards.train.labels, backwards.train.labels)
    plan = plan_in_pool(plan_for(NOTHING, rounds=1), 3)
    one, _, _ = federate([forwards], plan, tmp_path / "forwards")
    other, _, _ = federate([backwards], plan, tmp_path / "backwards")
    assert differing(one[forwards.name], other[backwards.name]) == []


def test_a_pool_holds_every_split_of_every_site_with_its_labels() -> None:
    sites = three_sites()
    pool = pool_sites(sites)
    for split in ("train", "val", "test"):
        parts: list[SplitData] = [getattr(site, split) for site in sites]
        whole: SplitData = getattr(pool, split)
        assert len(whole) == sum(map(len, parts))
        np.testing.assert_array_equal(whole.labels, np.concatenate([part.labels for part in parts]))
        pixels = whole.read(np.arange(len(whole)))
        np.testing.assert_array_equal(pixels, np.concatenate([part.pixels[part.rows] for part in parts]))
    assert pool.blank == ()


@pytest.mark.parametrize(("count", "letters"), [(2, 64), (40, 64), (300, 1)])
def test_the_name_of_a_pool_is_that_of_a_folder_and_of_no_site(count: int, letters: int) -> None:
    site = three_sites()[0]
    names = [f"{place:03}" + "x" * (letters - 3) for place in range(count)]
    name = pool_sites([replace(site, name=one) for one in names]).name
    assert len(name) <= 200
    assert "+" in name
    assert name == (f"{names[0]}+{names[1]}" if count == 2 else f"{names[0]}+{count - 1} more")


def test_a_pool_takes_as_many_steps_as_its_sites_together(tmp_path: Path) -> None:
    plan, steps = plan_for(NOTHING), {"alone": 0, "pool": 0}

    def counting(which: str) -> Any:
        def on_step() -> None:
            steps[which] += 1

        return on_step

    federate(three_sites(), plan, tmp_path / "alone", counting("alone"))
    federate([pool_sites(three_sites())], plan_in_pool(plan, 3), tmp_path / "pool", counting("pool"))
    assert steps == {"alone": 18, "pool": 18}
