"""Whatever becomes of the files between two rounds, a run goes on from a state that it was really in."""

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from polyhead.errors import RunError
from polyhead.federation import simulate as simulate_module
from polyhead.federation.private_state import PrivateState, save_private
from polyhead.federation.rounds import RoundRow
from polyhead.federation.simulate import Watch
from polyhead.federation.site import site_round
from polyhead.federation.snapshot import (
    KEPT,
    Snapshot,
    Store,
    best_snapshot,
    load_snapshot,
    remove_snapshots,
    save_snapshot,
)
from tests.federation.three_sites import (
    KEY,
    Part,
    by_hand,
    differences,
    federate,
    in_memory,
    plan_for,
    stub_by_hand,
    stub_federate,
    stub_round,
)

SITES = ("000", "001", "002")
ROUNDS = 5


@pytest.fixture(autouse=True)
def _stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate_module, "site_round", stub_round)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def named(rounds: int, private: Any = None) -> set[str]:
    """Give the files of a snapshot."""
    own = private or dict.fromkeys(SITES, rounds)
    of_sites = {f"{site}/private-{since}.safetensors" for site, since in own.items()}
    return {f"round-{rounds}.json", f"shared-{rounds}.safetensors", *of_sites}


def absent_from(first: int, site: str = "001") -> Callable[..., Part]:
    def parts(*about: Any) -> Part:
        if about[3] >= first and about[0].name == site:
            raise OSError("gone")
        return stub_round(*about)

    return parts


def test_the_last_two_are_kept_and_nothing_else(tmp_path: Path) -> None:
    stub_federate(tmp_path, plan_for(rounds=1))
    assert KEPT == 2
    assert files(tmp_path) == named(0) | named(1)
    stub_federate(tmp_path, plan_for(rounds=ROUNDS))
    assert files(tmp_path) == named(ROUNDS - 1) | named(ROUNDS)


def test_the_best_is_kept_beside_them(tmp_path: Path) -> None:
    scores = iter([0.5, 0.7, 0.6, 0.7, 0.1])
    plan = plan_for(rounds=ROUNDS, validate_every=1)
    per_round: dict[str, float | None] = {}

    def validate(model: Any, site: Any) -> float | None:
        if site.name == SITES[0]:
            per_round.update(dict.fromkeys(SITES, next(scores)))
        return per_round[site.name]

    stub_federate(tmp_path, plan, validate=validate)
    assert files(tmp_path) == named(2) | named(ROUNDS - 1) | named(ROUNDS)
    best = best_snapshot(Store(tmp_path, KEY), SITES)
    # Of two that are equal the earlier.
    assert (best.rounds_done, best.validation) == (2, pytest.approx(0.7))
    assert differences(in_memory(best, tmp_path), stub_by_hand(plan_for(rounds=2))) == []


def test_the_best_is_the_first_with_the_highest_validation(tmp_path: Path) -> None:
    store = Store(tmp_path, KEY)
    own = PrivateState({"head.weight": torch.zeros(1)})
    for rounds, validation in enumerate([None, 0.2, 0.9, None, 0.9, 0.3, 0.0, None]):
        private = {"a": save_private(tmp_path, "a", rounds, own)}
        save_snapshot(Snapshot(rounds, {}, private, validation), store)
    assert best_snapshot(store, ["a"]).rounds_done == 2
    assert sorted(path.name for path in tmp_path.glob("round-*")) == ["round-2.json", "round-6.json", "round-7.json"]
    last = load_snapshot(store, ["a"])
    assert last is not None
    assert last.rounds_done == 7


def test_without_validation_there_is_no_best(tmp_path: Path) -> None:
    stub_federate(tmp_path, plan_for(rounds=1))
    with pytest.raises(RunError, match=r"none is the best\. Set select = 'last'"):
        best_snapshot(Store(tmp_path, KEY), SITES)


def test_validation_takes_place_where_the_study_says_and_after_the_last_round(tmp_path: Path) -> None:
    _, rows = stub_federate(
        tmp_path, plan_for(rounds=ROUNDS, validate_every=2), validate=lambda _, site: int(site.name) / 4 or None
    )
    measured = {row.round: [r.validation for r in rows if r.round == row.round] for row in rows}
    # Blank for a site without an AUROC, whose blank is in no mean.
    values = [None, 0.25, 0.5]
    assert measured == {0: [None] * 3, 1: values, 2: [None] * 3, 3: values, 4: values}
    assert best_snapshot(Store(tmp_path, KEY), SITES).validation == 0.375


def test_a_site_left_out_keeps_its_older_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate_module, "site_round", absent_from(2))
    end, _ = stub_federate(tmp_path, plan_for(rounds=ROUNDS))
    away = {(round_, "001") for round_ in range(2, ROUNDS)}
    assert differences(end, stub_by_hand(plan_for(rounds=ROUNDS), away)) == []
    older = [named(rounds, {**dict.fromkeys(SITES, rounds), "001": 2}) for rounds in (ROUNDS - 1, ROUNDS)]
    assert files(tmp_path) == older[0] | older[1]
    # And goes on from it in a later call.
    monkeypatch.setattr(simulate_module, "site_round", stub_round)
    again, _ = stub_federate(tmp_path, plan_for(rounds=ROUNDS + 1))
    assert differences(again, stub_by_hand(plan_for(rounds=ROUNDS + 1), away)) == []


def cut(length: Callable[[int], int]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[: length(path.stat().st_size)])


def flipped(place: Callable[[int], int]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[place(len(content))] ^= 1
        path.write_bytes(content)

    return damage


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "empty": cut(lambda size: 0),
    "one byte": cut(lambda size: 1),
    "half": cut(lambda size: size // 2),
    "one byte short": cut(lambda size: size - 1),
    "first bit": flipped(lambda size: 0),
    "bit in the middle": flipped(lambda size: size // 2),
    "last bit": flipped(lambda size: size - 1),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "another's": lambda path: path.write_bytes(b"{}"),
    "huge": lambda path: os.truncate(path, 2**40),
    "pipe": _pipe,
    "removed": lambda path: path.unlink(),
}
KINDS = ("round-3.json", "shared-3.safetensors", "001/private-3.safetensors")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_costs_a_round_and_nothing_else(
    damage: str, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stub_federate(tmp_path, plan_for(rounds=3))
    DAMAGE[damage](tmp_path / kind)
    end, rows = stub_federate(tmp_path, plan_for(rounds=ROUNDS))
    assert differences(end, stub_by_hand(plan_for(rounds=ROUNDS))) == []
    assert sorted({row.round for row in rows}) == [2, 3, 4]
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    if (kind, damage) == (KINDS[0], "removed"):  # As if that round had not come to its end.
        assert told == []
    else:
        assert len(told) == 1
        assert re.match("the snapshot after round 3 cannot be used; going back", told[0])
        assert str(tmp_path / kind) in told[0]
    assert files(tmp_path) == named(ROUNDS - 1) | named(ROUNDS)


@pytest.mark.parametrize("kind", ["round-2.json", "shared-2.safetensors", "b/private-2.safetensors"])
def test_sites_that_train_go_back_a_round_too(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate_module, "site_round", site_round)

    def stop(rows: list[RoundRow]) -> None:
        if rows[0].round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federate(tmp_path, plan_for(), Watch(stop))
    DAMAGE["bit in the middle"](tmp_path / kind)
    end, rows = federate(tmp_path, plan_for())
    assert differences(end, by_hand(plan_for())) == []
    assert {row.round for row in rows} == {1, 2}


@pytest.mark.parametrize("kind", KINDS)
def test_if_all_are_damaged_it_begins_anew(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stub_federate(tmp_path, plan_for(rounds=3))
    for rounds in (2, 3):
        DAMAGE["half"](tmp_path / kind.replace("3", str(rounds)))
    # A round was under way, too.
    (tmp_path / "round").mkdir()
    (tmp_path / "round" / "000000.update").write_bytes(b"left")
    assert load_snapshot(Store(tmp_path, KEY), SITES) is None
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3
    assert re.search("none of its snapshots can be used; this federation begins anew", told[-1])
    remove_snapshots(Store(tmp_path, KEY))
    assert files(tmp_path) <= {"round/000000.update"}
    end, rows = stub_federate(tmp_path, plan_for(rounds=ROUNDS))
    assert differences(end, stub_by_hand(plan_for(rounds=ROUNDS))) == []
    assert {row.round for row in rows} == set(range(ROUNDS))
    assert files(tmp_path) == named(ROUNDS - 1) | named(ROUNDS)


@pytest.mark.parametrize(
    ("key", "sites", "reason"),
    [
        ("other", SITES, "belongs to another study, or to other data"),
        (KEY, SITES[:2], "is of other sites"),
        (KEY, (*SITES, "003"), "is of other sites"),
        (KEY, ("000", "001", "003"), "is of other sites"),
    ],
)
def test_a_snapshot_of_something_else_is_not_used(
    key: str, sites: tuple[str, ...], reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stub_federate(tmp_path, plan_for(rounds=1))
    assert load_snapshot(Store(tmp_path, key), sites) is None
    assert reason in caplog.text


def test_removing_leaves_an_empty_folder_and_what_is_not_ours(tmp_path: Path) -> None:
    stub_federate(tmp_path / "state", plan_for(rounds=3))
    (tmp_path / "private-1.safetensors").write_text("not ours")
    remove_snapshots(Store(tmp_path / "state", KEY))
    assert list((tmp_path / "state").iterdir()) == []
    assert files(tmp_path) == {"private-1.safetensors"}
