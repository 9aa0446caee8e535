"""A round with a bad update is the round without it, bit for bit; and memory does not grow with the sites."""

import math
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyhead.config import Federation
from polyhead.errors import DiskError
from polyhead.federation import aggregate as module
from polyhead.federation.aggregate import Aggregate, aggregate
from polyhead.federation.means import weighted_mean
from polyhead.federation.outliers import distance
from polyhead.federation.update import SiteUpdate

State = dict[str, torch.Tensor]
ROUND = 4
CURRENT = {
    "backbone.w": torch.arange(24.0).reshape(2, 3, 2, 2).to(memory_format=torch.channels_last),
    "backbone.n": torch.tensor(3),
}


def sent(site: str, seed: int, step: float = 1.0) -> SiteUpdate:
    """A sound update about `step` away from the current backbone."""
    noise = torch.randn(CURRENT["backbone.w"].shape, generator=torch.Generator().manual_seed(seed))
    state = {"backbone.w": CURRENT["backbone.w"] + step * noise / noise.norm(), "backbone.n": torch.tensor(3 + seed)}
    return SiteUpdate(site, ROUND, 10 + seed, 0.5, state)


SOUND = [sent(site, seed) for seed, site in enumerate("abde")]
BAD = sent("c", 9)


def broken(**entries: Any) -> SiteUpdate:
    return replace(BAD, state={**BAD.state, **{f"backbone.{name}": value for name, value in entries.items()}})


def run(updates: Sequence[SiteUpdate], spool: Path, sites: int = 5, **settings: Any) -> Aggregate:
    return aggregate(iter(updates), CURRENT, Federation(**settings), spool, sites, ROUND)


def same_bits(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


KINDS = {
    "NaN": (broken(w=torch.full((2, 3, 2, 2), math.nan)), r"backbone\.w holds a value that is not finite"),
    "one infinity": (broken(w=torch.where(torch.arange(24) == 17, torch.inf, 0.0).view(2, 3, 2, 2)), "not finite"),
    "missing": (replace(BAD, state={"backbone.n": torch.tensor(3)}), r"backbone\.w is missing"),
    "shape": (broken(w=torch.zeros(24)), r"torch.float32 \(24,\) instead of"),
    "type": (broken(w=torch.zeros(2, 3, 2, 2, dtype=torch.float64)), "is torch.float64"),
    "head": (replace(BAD, state={**BAD.state, "head.bias": torch.zeros(1)}), r"head\.bias is not shared"),
    "private BatchNorm": (broken(bn=torch.zeros(1)), r"backbone\.bn is not shared"),
    "no examples": (replace(BAD, examples=0), "0 examples"),
    "a crowd": (replace(BAD, examples=10**12), "1000000000000 examples"),
    "NaN examples": (replace(BAD, examples=math.nan), "nan examples"),
    "loss": (replace(BAD, loss=math.nan), "the loss is nan"),
    "counter": (broken(n=torch.tensor(-5)), "counts from -5"),
    "other round": (replace(BAD, round=ROUND - 1), "not of round 4"),
    "sparse": (broken(w=torch.zeros(2, 3, 2, 2).to_sparse()), "not a dense tensor"),
    "overflow": (broken(w=torch.full((2, 3, 2, 2), 1e38)), r"too far: \d\.\d+e\+3\d times the usual"),
    "far": (sent("c", 9, step=1000.0), r"too far: 1000\.0 times the usual distance \(allowed: 10\)"),
}
MEANS = [
    {"weighting": "equal"},
    {"weighting": "examples"},
    {"aggregation": "median"},
    {"aggregation": "trimmed_mean", "trim": 0.3},
]


@pytest.mark.parametrize("settings", MEANS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_bad_update_is_as_if_it_had_not_been_sent(
    tmp_path: Path, kind: str, place: int, settings: dict[str, Any]
) -> None:
    bad, reason = KINDS[kind]
    found = run([*SOUND[:place], bad, *SOUND[place:]], tmp_path / "spool", **settings)
    without = run(SOUND, tmp_path / "spool", **settings)
    assert same_bits(found.state, without.state)
    assert found.counted == ("a", "b", "d", "e")
    assert list(found.left_out) == ["c"]
    assert re.match(rf".*{reason}", found.left_out["c"])
    assert not found.left_out["c"].startswith("site")
    assert (found.clipped, without.left_out) == ({}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("far", "overflow")])
def test_of_two_sites_a_bad_one_is_left_out_too(tmp_path: Path, kind: str) -> None:
    found = run([SOUND[0], KINDS[kind][0]], tmp_path, sites=2)
    assert same_bits(found.state, SOUND[0].state)
    assert list(found.left_out) == ["c"]


@pytest.mark.parametrize("weighting", ["equal", "examples"])
def test_sound_updates_have_the_plain_weighted_mean(tmp_path: Path, weighting: Any) -> None:
    plain = weighted_mean(SOUND, CURRENT, weighting)
    for rule in ("reject", "clip", "off"):
        found = run(SOUND, tmp_path, weighting=weighting, distance_rule=rule)
        assert same_bits(found.state, plain)
        assert (found.counted, found.left_out, found.clipped) == (("a", "b", "d", "e"), {}, {})


def test_of_two_neither_is_the_odd_one(tmp_path: Path) -> None:
    far = sent("c", 9, step=1e6)
    for sites in (2, 5):
        found = run([SOUND[0], far], tmp_path, sites=sites)
        assert found.counted == ("a", "c")
        assert same_bits(found.state, weighted_mean([SOUND[0], far], CURRENT, "equal"))


def test_a_rule_that_is_off_lets_a_far_one_in(tmp_path: Path) -> None:
    updates = [*SOUND, sent("z", 9, step=1000.0)]
    found = run(updates, tmp_path, distance_rule="off")
    assert found.counted[-1] == "z"
    assert same_bits(found.state, weighted_mean(updates, CURRENT, "equal"))


def test_the_factor_decides_what_is_far(tmp_path: Path) -> None:
    updates = [*SOUND, sent("z", 9, step=5.0)]
    assert run(updates, tmp_path).left_out == {}
    assert list(run(updates, tmp_path, distance_factor=4.0).left_out) == ["z"]


def test_clipping_by_hand(tmp_path: Path) -> None:
    current = {"w": torch.tensor([1.0, 1.0]), "n": torch.tensor(5)}
    steps = {"a": [1.0, 0.0], "b": [0.0, 2.0], "c": [0.0, 3.0], "d": [30.0, 40.0]}
    updates = [
        SiteUpdate(site, 0, 1, 0.5, {"w": current["w"] + torch.tensor(step), "n": torch.tensor(6)})
        for site, step in steps.items()
    ]
    # The median of 1, 2, 3 and 50 is 2.5; d may go twice as far, a tenth of its step: (3, 4).
    federation = Federation(distance_rule="clip", distance_factor=2.0)
    found = aggregate(updates, current, federation, tmp_path, 4)
    assert found.state["w"].tolist() == pytest.approx([1 + (1 + 3) / 4, 1 + (2 + 3 + 4) / 4])
    assert found.state["n"] == 6
    assert found.counted == ("a", "b", "c", "d")
    assert found.clipped == {"d": "too far: 20.0 times the usual distance (allowed: 2)"}
    assert found.left_out == {}


@pytest.mark.parametrize("settings", MEANS, ids=str)
def test_a_clipped_update_counts_as_one_at_the_limit(tmp_path: Path, settings: dict[str, Any]) -> None:
    far = sent("c", 9, step=1000.0)
    found = run([*SOUND, far], tmp_path, distance_rule="clip", **settings)
    limit = 10 * np.median([distance(update.state, CURRENT).weights for update in [*SOUND, far]])
    share = limit / distance(far.state, CURRENT).weights
    nearer = {**far.state, "backbone.w": torch.lerp(CURRENT["backbone.w"], far.state["backbone.w"], share)}
    assert distance(nearer, CURRENT).weights == pytest.approx(limit, rel=1e-5)
    expected = run([*SOUND, replace(far, state=nearer)], tmp_path, distance_rule="off", **settings)
    assert torch.allclose(found.state["backbone.w"], expected.state["backbone.w"], rtol=1e-6)
    assert found.state["backbone.n"] == expected.state["backbone.n"]
    assert list(found.clipped) == ["c"]


@pytest.mark.parametrize("settings", MEANS[2:], ids=str)
def test_a_robust_mean_does_not_depend_on_the_order(tmp_path: Path, settings: dict[str, Any]) -> None:
    one = run(SOUND, tmp_path, **settings)
    other = run(SOUND[::-1], tmp_path, **settings)
    assert same_bits(one.state, other.state)
    assert other.counted == ("e", "d", "b", "a")


def test_if_nothing_counts_the_current_state_is_copied(tmp_path: Path) -> None:
    for settings in MEANS:
        for updates in ([], [KINDS["NaN"][0], KINDS["head"][0]]):
            found = run(updates, tmp_path, **settings)
            assert same_bits(found.state, CURRENT)
            assert found.state["backbone.w"].data_ptr() != CURRENT["backbone.w"].data_ptr()
            assert found.counted == ()


def test_of_two_updates_of_a_site_the_first_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = run([*SOUND, replace(BAD, site="a")], tmp_path)
    assert same_bits(found.state, run(SOUND, tmp_path).state)
    assert (found.counted, found.left_out) == (("a", "b", "d", "e"), {})
    assert "site a, round 4: sent another update" in caplog.text
    # Nor may a site try until something passes.
    assert run([KINDS["NaN"][0], BAD, *SOUND], tmp_path).counted == ("a", "b", "d", "e")


def test_in_a_round_of_two_what_was_usual_before_decides(tmp_path: Path) -> None:
    """Of three sites one fails: the other two are still three sites' round, and a liar among them is found."""
    before = run(SOUND[:3], tmp_path, sites=3)
    assert before.usual is not None
    assert before.usual.weights == pytest.approx(1.0)
    for rule in ("reject", "clip"):
        federation = Federation(distance_rule=rule)
        left = [SOUND[0], sent("c", 9, step=1000.0)]
        found = aggregate(left, CURRENT, federation, tmp_path, 3, ROUND, before.usual)
        reason = {**found.left_out, **found.clipped}["c"]
        assert reason.startswith("too far: 1000.0 times the usual distance")
        assert found.usual == before.usual
    assert aggregate(SOUND[:2], CURRENT, Federation(), tmp_path, 3, ROUND, before.usual).counted == ("a", "b")
    # A federation of two has no such round, and one without the rule wants none.
    assert run(SOUND[:2], tmp_path, sites=2).usual is None
    assert run(SOUND, tmp_path, distance_rule="off").usual is None


def test_a_round_of_three_is_judged_by_itself(tmp_path: Path) -> None:
    tiny = run(SOUND, tmp_path).usual
    assert tiny is not None
    tiny = tiny._replace(weights=1e-9)
    assert aggregate(SOUND, CURRENT, Federation(), tmp_path, 4, ROUND, tiny).left_out == {}


def test_what_is_no_name_takes_no_sites_place(tmp_path: Path) -> None:
    hostile: list[Any] = [7, ["a"], None, "", "a\n", "x" * 10**6]
    updates = [replace(BAD, site=name) for name in hostile]
    found = run([*updates[:5], sent("7", 0), replace(updates[5], examples=0)], tmp_path, sites=2)
    assert found.counted == ("a\\n", "7")
    assert {"(7)", "(a list)", "(a NoneType)", ""} <= set(found.left_out)
    assert max(map(len, found.left_out)) <= 80


def test_where_nothing_is_shared_nothing_is_measured_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "spool_state", None)
    alone = [replace(update, state={}) for update in SOUND]
    found = aggregate(alone, {}, Federation(), tmp_path / "spool", 4, ROUND)
    assert (found.state, found.counted) == ({}, ("a", "b", "d", "e"))


@pytest.mark.parametrize(("sites", "settings"), [(2, {}), (5, {"distance_rule": "off"})])
def test_nothing_is_written_if_distances_decide_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sites: int, settings: dict[str, Any]
) -> None:
    monkeypatch.setattr(module, "spool_state", None)
    run(SOUND[:sites], tmp_path / "spool", sites=sites, **settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("settings", [*MEANS, {"distance_rule": "off"}], ids=str)
def test_each_update_is_dealt_with_before_the_next_is_made(tmp_path: Path, settings: dict[str, Any]) -> None:
    model = {name: tensor.clone() for name, tensor in CURRENT.items()}

    def stream() -> Iterator[SiteUpdate]:
        for update in [*SOUND, sent("z", 9, step=1000.0)]:
            for name, tensor in update.state.items():
                model[name].copy_(tensor)
            yield replace(update, state=model)
        for tensor in model.values():
            tensor.zero_()

    found = aggregate(stream(), CURRENT, Federation(**settings), tmp_path, 5, ROUND)
    assert same_bits(found.state, run([*SOUND, sent("z", 9, step=1000.0)], tmp_path, **settings).state)


def test_what_a_killed_process_left_is_removed_and_a_failure_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "000000.update").write_bytes(b"left")
    assert same_bits(run(SOUND, spool).state, weighted_mean(SOUND, CURRENT, "equal"))
    assert not spool.exists()

    def failing() -> Iterator[SiteUpdate]:
        yield from SOUND[:2]
        raise DiskError("elsewhere")

    with pytest.raises(DiskError):
        aggregate(failing(), CURRENT, Federation(), spool, 5, ROUND)
    assert not spool.exists()


def test_sums_are_used_again_and_leave_no_trace(tmp_path: Path) -> None:
    sums: State = {}
    updates = [*SOUND, sent("z", 9, step=1000.0)]
    for _ in range(2):
        found = aggregate(updates, CURRENT, Federation(), tmp_path, 5, ROUND, sums=sums)
        assert same_bits(found.state, weighted_mean(SOUND, CURRENT, "equal"))
    assert sums["backbone.w"].dtype == torch.float64


BY_ROW = {"backbone.w": torch.zeros(4), "head.weight": torch.full((2, 3), 5.0), "head.bias": torch.zeros(2)}


def of_rows(site: str, value: float, *rows: bool, junk: float = 0.0) -> SiteUpdate:
    """An update whose step is of the same length in the backbone and in each row that counts; junk in the others."""
    moved = torch.where(torch.tensor(rows)[:, None], torch.tensor(value), torch.tensor(junk))
    head = {"head.weight": BY_ROW["head.weight"] + moved, "head.bias": moved[:, 0].clone()}
    return SiteUpdate(site, ROUND, 1, 0.5, {"backbone.w": torch.full((4,), value), **head}, rows)


def aggregated(updates: Sequence[SiteUpdate], spool: Path, **settings: Any) -> Aggregate:
    return aggregate(iter(updates), BY_ROW, Federation(**settings), spool, 4, ROUND, by_row=True)


@pytest.mark.parametrize("junk", [0.0, -0.5, 1e6, 1e30, math.nan, math.inf])
@pytest.mark.parametrize("rule", ["reject", "clip", "off"])
def test_a_row_that_does_not_count_can_do_nothing_for_or_against_its_site(
    tmp_path: Path, junk: float, rule: str
) -> None:
    updates = [
        of_rows("a", 1.0, True, True),
        of_rows("b", 1.25, True, True),
        of_rows("c", 1.5, False, True, junk=junk),
        of_rows("d", 0.75, False, False, junk=junk),
    ]
    found = aggregated(updates, tmp_path, distance_rule=rule)
    assert (found.counted, found.left_out, found.clipped) == (("a", "b", "c", "d"), {}, {})
    assert found.state["backbone.w"].tolist() == [1.125] * 4
    assert found.state["head.weight"].tolist() == [[6.125] * 3, [6.25] * 3]
    assert found.state["head.bias"].tolist() == [1.125, 1.25]


@pytest.mark.parametrize("bad", [1000.0, math.nan])
def test_a_row_whose_sites_are_all_left_out_keeps_its_value(tmp_path: Path, bad: float) -> None:
    """Also when the others are averaged again, from the disk."""
    updates = [of_rows(site, 1.0, False, True) for site in "abc"]
    found = aggregated([*updates, of_rows("d", bad, True, True)], tmp_path)
    assert list(found.left_out) == ["d"]
    assert torch.equal(found.state["head.weight"][0], BY_ROW["head.weight"][0])
    assert found.state["head.weight"][1].tolist() == [6.0] * 3
    assert found.state["head.bias"].tolist() == [0.0, 1.0]


def test_a_site_that_is_clipped_counts_in_its_own_rows_alone(tmp_path: Path) -> None:
    updates = [*(of_rows(site, 1.0, False, True) for site in "abc"), of_rows("d", 1000.0, True, False, junk=math.nan)]
    found = aggregated(updates, tmp_path, distance_rule="clip")
    # Four weights, and four of a row: d lies 1000 times as far as the others, and is brought to 10 times.
    assert found.clipped == {"d": "too far: 1000.0 times the usual distance (allowed: 10)"}
    assert found.state["head.weight"].tolist() == [pytest.approx([15.0] * 3), [6.0] * 3]
    assert found.state["backbone.w"].tolist() == pytest.approx([13 / 4] * 4)


@pytest.mark.parametrize("rows", [None, (True,), (1, 0)])
def test_an_update_without_a_sound_choice_of_rows_is_left_out(tmp_path: Path, rows: Any) -> None:
    found = aggregated([of_rows("a", 1.0, True, True), replace(of_rows("b", 2.0, True, True), rows=rows)], tmp_path)
    assert found.left_out["b"].startswith("which rows of the head count: found ")
    assert found.state["backbone.w"].tolist() == [1.0] * 4


STEPS = st.lists(st.floats(0, 1e6), min_size=0, max_size=7)


@given(STEPS, st.floats(1.1, 100), st.sampled_from(["reject", "clip", "off"]), st.sampled_from(MEANS))
def test_every_site_is_counted_or_left_out_and_the_state_is_finite(
    tmp_path_factory: pytest.TempPathFactory, steps: list[float], factor: float, rule: str, mean: dict[str, Any]
) -> None:
    spool = tmp_path_factory.getbasetemp() / "law"
    updates = [sent(str(index), index, step) for index, step in enumerate(steps)]
    found = run(updates, spool, sites=7, distance_rule=rule, distance_factor=factor, **mean)
    assert set(found.counted) | set(found.left_out) == {update.site for update in updates}
    assert not set(found.counted) & set(found.left_out)
    assert set(found.clipped) <= set(found.counted)
    assert 2 * len(found.counted) >= len(steps)
    assert all(tensor.isfinite().all() for tensor in found.state.values())


MEMORY = """
import resource, sys, torch
from pathlib import Path
from polyhead.config import Federation
from polyhead.federation.aggregate import aggregate
from polyhead.federation.update import SiteUpdate

current = {"w": torch.zeros(1_000_000)}
def updates(count):
    for index in range(count):
        far = 1000.0 if index == 3 else 1.0
        yield SiteUpdate(str(index), 0, 1, 0.5, {"w": torch.full((1_000_000,), far + index / 1000)})
federation = Federation(aggregation=sys.argv[2])
found = aggregate(updates(int(sys.argv[1])), current, federation, Path(sys.argv[3]), 100)
assert len(found.left_out) == 1
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("aggregation", ["mean", "median", "trimmed_mean"])
def test_memory_does_not_grow_with_the_number_of_sites(tmp_path: Path, aggregation: str) -> None:
    """Of updates of 4 MB, sixty may need but 12 MB more than five: the size of three."""
    few, many = (
        int(
            subprocess.run(
                [sys.executable, "-c", MEMORY, str(count), aggregation, str(tmp_path / "spool")],
                check=True,
                capture_output=True,
                timeout=120,
            ).stdout
        )
        for count in (5, 60)
    )
    assert many - few < 12_000
