"""Whatever becomes of the files between two rounds, a run goes on from a state that it was really in."""

import errno
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from polyhead.errors import RunError
from polyhead.federation import simulate as simulate_module
from polyhead.federation.private_state import PrivateState, load_private, private_path, save_private
from polyhead.federation.rounds import RoundRow
from polyhead.federation.simulate import Watch
from polyhead.federation.site import site_round
from polyhead.federation.snapshot import (
    KEPT,
    Snapshot,
    Store,
    load_shared,
    load_snapshot,
    remove_snapshots,
    save_snapshot,
)
from tests.federation.three_sites import (
    KEY,
    Part,
    by_hand,
    differences,
    far,
    federate,
    plan_for,
    spoiling,
    stub_by_hand,
    stub_federate,
    stub_round,
    stub_sites,
    stub_start,
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
    of_sites = {f"sites/{site}/private-{since}.safetensors" for site, since in own.items()}
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


SCORES: dict[str, list[float | None]] = {
    "000": [0.5, 0.7, 0.6, 0.7, 0.1],  # of two that are equal the earlier
    "001": [None, None, None, None, None],  # no AUROC
    "002": [0.6, 0.5, 0.4, None, 0.2],
}
BEST = {"000": 2, "002": 1}


def by_script(model: Any, site: Any) -> float | None:
    """Give a site's score of the round whose state was loaded: its counter tells."""
    return SCORES[site.name][int(model.loaded["backbone.n"]) - 1]


def of_best(rounds: int, site: str) -> set[str]:
    return {f"shared-{rounds}.safetensors", f"sites/{site}/private-{rounds}.safetensors"}


def test_each_sites_best_state_is_kept_beside_them(tmp_path: Path) -> None:
    plan = plan_for(rounds=ROUNDS, validate_every=1, select="best")
    stub_federate(tmp_path, plan, validate=by_script)
    best = {name for site, rounds in BEST.items() for name in of_best(rounds, site)}
    assert files(tmp_path) == named(ROUNDS - 1) | named(ROUNDS) | best
    found = load_snapshot(Store(tmp_path, KEY), SITES)
    assert found is not None
    assert {site: (one.rounds_done, one.auroc) for site, one in found.best.items()} == {
        "000": (2, 0.7),
        "002": (1, 0.6),
    }
    for site, one in found.best.items():
        expected = stub_by_hand(plan_for(rounds=one.rounds_done))
        shared = load_shared(Store(tmp_path, KEY), one.rounds_done, one.shared)
        assert all(torch.equal(shared[name], expected.shared[name]) for name in expected.shared)
        own = load_private(tmp_path, site, one.private).model
        assert torch.equal(own["head.weight"], expected.private[site].model["head.weight"])


def test_who_does_not_ask_for_the_best_keeps_none(tmp_path: Path) -> None:
    stub_federate(tmp_path, plan_for(rounds=ROUNDS, validate_every=1), validate=by_script)
    assert files(tmp_path) == named(ROUNDS - 1) | named(ROUNDS)


def test_a_round_that_falls_away_gives_the_best_back_that_was_before_it(tmp_path: Path) -> None:
    """Round 2 becomes the best of a site; then its file is damaged, and the one that was best until then is needed."""
    plan = plan_for(rounds=2, validate_every=1, select="best")
    stub_federate(tmp_path, plan, validate=by_script)
    DAMAGE["half"](tmp_path / "shared-2.safetensors")
    found = load_snapshot(Store(tmp_path, KEY), SITES)
    assert found is not None
    assert found.rounds_done == 1
    assert {site: one.rounds_done for site, one in found.best.items()} == {"000": 1, "002": 1}
    end, _ = stub_federate(tmp_path, plan_for(rounds=ROUNDS, validate_every=1, select="best"), validate=by_script)
    assert differences(end, stub_by_hand(plan_for(rounds=ROUNDS))) == []
    again = load_snapshot(Store(tmp_path, KEY), SITES)
    assert again is not None
    assert {site: one.rounds_done for site, one in again.best.items()} == BEST


@pytest.mark.parametrize("file", sorted(name for site, rounds in BEST.items() for name in of_best(rounds, site)))
def test_a_best_state_that_is_damaged_is_never_replaced_by_another(file: str, tmp_path: Path) -> None:
    """Both last snapshots need it: there is none to go back to, and that is said."""
    plan = plan_for(rounds=ROUNDS, validate_every=1, select="best")
    stub_federate(tmp_path, plan, validate=by_script)
    DAMAGE["bit in the middle"](tmp_path / file)
    before = files(tmp_path)
    with pytest.raises(RunError, match=r"none of the states after 5 and 4 rounds can be used"):
        load_snapshot(Store(tmp_path, KEY), SITES)
    assert files(tmp_path) == before


def test_what_is_usual_is_kept_for_a_round_that_cannot_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A site is away from round 2 on, across an interruption; then a second one lies and would be one of two."""
    lie = spoiling({(3, "002")}, far, absent_from(2))
    monkeypatch.setattr(simulate_module, "site_round", lie)
    stub_federate(tmp_path, plan_for(rounds=3, min_sites=1))
    end, rows = stub_federate(tmp_path, plan_for(rounds=ROUNDS, min_sites=1))
    away = {*((round_, "001") for round_ in range(2, ROUNDS)), (3, "002")}
    assert differences(end, stub_by_hand(plan_for(rounds=ROUNDS), away)) == []
    (status,) = [row.status for row in rows if (row.round, row.site) == (3, "002")]
    assert "times the usual distance" in status


def test_validation_takes_place_where_the_study_says_and_after_the_last_round(tmp_path: Path) -> None:
    _, rows = stub_federate(
        tmp_path, plan_for(rounds=ROUNDS, validate_every=2), validate=lambda _, site: int(site.name) / 4 or None
    )
    measured = {row.round: [r.validation for r in rows if r.round == row.round] for row in rows}
    # Blank for a site without an AUROC, whose blank is in no mean.
    values = [None, 0.25, 0.5]
    assert measured == {0: [None] * 3, 1: values, 2: [None] * 3, 3: values, 4: values}


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
KINDS = ("round-3.json", "shared-3.safetensors", "sites/001/private-3.safetensors")


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
        assert re.match("the state after 3 rounds cannot be used; going back", told[0])
        assert str(tmp_path / kind) in told[0]
    aside = {"round-3.json.damaged"} if told else set()
    assert files(tmp_path) == named(ROUNDS - 1) | named(ROUNDS) | aside
    remove_snapshots(Store(tmp_path, KEY))
    assert files(tmp_path) == set()


@pytest.mark.parametrize("kind", ["round-2.json", "shared-2.safetensors", "sites/b/private-2.safetensors"])
def test_sites_that_train_go_back_a_round_too(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate_module, "site_round", site_round)

    def stop(rows: list[RoundRow], repeated: bool) -> None:
        if rows[0].round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federate(tmp_path, plan_for(), Watch(stop))
    DAMAGE["bit in the middle"](tmp_path / kind)
    end, rows = federate(tmp_path, plan_for())
    assert differences(end, by_hand(plan_for())) == []
    assert {row.round for row in rows} == {1, 2}


@pytest.mark.parametrize("kind", KINDS)
def test_if_all_are_damaged_nothing_is_removed_and_it_says_what_to_do(kind: str, tmp_path: Path) -> None:
    """Days of training may lie here; to throw them away is for a person to say."""
    stub_federate(tmp_path, plan_for(rounds=3))
    whole = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    for rounds in (2, 3):
        DAMAGE["half"](tmp_path / kind.replace("3", str(rounds)))
    for _ in range(2):
        with pytest.raises(
            RunError, match=r"none of the states after 3 and 2 rounds can be used .* Nothing was removed"
        ):
            stub_federate(tmp_path, plan_for(rounds=ROUNDS))
        assert files(tmp_path) == whole.keys()
    # Restored, it goes on as if nothing had been.
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    end, rows = stub_federate(tmp_path, plan_for(rounds=ROUNDS))
    assert differences(end, stub_by_hand(plan_for(rounds=ROUNDS))) == []
    assert {row.round for row in rows} == {3, 4}


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOMEM])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_cannot_be_read_for_the_moment_costs_nothing(
    kind: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub_federate(tmp_path, plan_for(rounds=3))
    before = files(tmp_path)
    real = os.open

    def fails(path: Any, *about: Any, **more: Any) -> int:
        if str(path) == str(tmp_path / kind):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *about, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fails)
        told = rf"{re.escape(kind)}: cannot be read .*Nothing was changed.*same command again"
        with pytest.raises(RunError, match=told):
            stub_federate(tmp_path, plan_for(rounds=ROUNDS))
    assert files(tmp_path) == before
    end, rows = stub_federate(tmp_path, plan_for(rounds=ROUNDS))
    assert differences(end, stub_by_hand(plan_for(rounds=ROUNDS))) == []
    assert {row.round for row in rows} == {3, 4}


@pytest.mark.parametrize("folder", ["", "sites", "sites/001"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.EIO])
def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(
    number: int, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub_federate(tmp_path, plan_for(rounds=3))
    before = files(tmp_path)
    real = os.listdir

    def fails(path: Any) -> list[str]:
        if Path(path) == tmp_path / folder:
            raise OSError(number, os.strerror(number), str(path))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", fails)
        with pytest.raises(RunError, match=r"cannot be read .* nothing was changed"):
            stub_federate(tmp_path, plan_for(rounds=ROUNDS))
        with pytest.raises(RunError):
            remove_snapshots(Store(tmp_path, KEY))
    assert before <= files(tmp_path)
    end, _ = stub_federate(tmp_path, plan_for(rounds=ROUNDS))
    assert differences(end, stub_by_hand(plan_for(rounds=ROUNDS))) == []


def test_out_of_descriptors_within_the_library_is_not_taken_for_damage(tmp_path: Path) -> None:
    """Really, in a process of its own: one descriptor is left, which the hash needs and safetensors then lacks."""
    stub_federate(tmp_path, plan_for(rounds=3))
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    code = f"""
import os, resource
from pathlib import Path
from polyhead.errors import RunError
from polyhead.federation.snapshot import Store, load_snapshot
import safetensors.torch
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
os.close(taken.pop())
try:
    load_snapshot(Store(Path({str(tmp_path)!r}), {KEY!r}), {list(SITES)!r})
except RunError as problem:
    print(problem)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "the state after 3 rounds cannot be read now" in done.stdout, done
    assert "Nothing was changed" in done.stdout
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


def test_without_manifests_what_was_trained_is_not_removed(tmp_path: Path) -> None:
    stub_federate(tmp_path, plan_for(rounds=3))
    for rounds in (2, 3):
        (tmp_path / f"round-{rounds}.json").unlink()
    before = files(tmp_path)
    with pytest.raises(RunError, match="none of the states after earlier rounds can be used"):
        stub_federate(tmp_path, plan_for(rounds=ROUNDS))
    assert files(tmp_path) == before


def test_damage_before_the_first_round_is_done_costs_nothing(tmp_path: Path) -> None:
    save_snapshot(stub_start(stub_sites(3), Store(tmp_path, KEY)), Store(tmp_path, KEY))
    save_private(tmp_path, "000", 1, PrivateState({"head.weight": torch.zeros(1)}))  # of a round that was cut off
    DAMAGE["half"](tmp_path / "shared-0.safetensors")
    end, _ = stub_federate(tmp_path, plan_for(rounds=2))
    assert differences(end, stub_by_hand(plan_for(rounds=2))) == []


def test_sites_may_be_called_like_files_of_the_store(tmp_path: Path) -> None:
    names = ["round", "done.json", "round-1.json", "shared-1.safetensors", "sites", "private-1.safetensors"]
    store = Store(tmp_path, KEY)
    own = PrivateState({"head.weight": torch.arange(3.0)})
    private = {name: save_private(tmp_path, name, 1, own) for name in names}
    save_snapshot(Snapshot(1, {"w": torch.zeros(1)}, private), store)
    found = load_snapshot(store, names)
    assert found is not None
    assert [load_private(tmp_path, name, found.private[name]).model["head.weight"].sum() for name in names] == [3] * 6
    remove_snapshots(store)
    assert list(tmp_path.iterdir()) == []


def test_what_is_private_is_nobody_elses_to_read(tmp_path: Path) -> None:
    save_private(tmp_path, "a", 1, PrivateState({"head.weight": torch.zeros(1)}))
    assert private_path(tmp_path, "a", 1).stat().st_mode & 0o077 == 0


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
    with pytest.raises(RunError, match="none of the states after 1 and 0 rounds can be used"):
        load_snapshot(Store(tmp_path, key), sites)
    assert reason in caplog.text


def test_removing_leaves_an_empty_folder_and_what_is_not_ours(tmp_path: Path) -> None:
    stub_federate(tmp_path / "state", plan_for(rounds=3))
    (tmp_path / "private-1.safetensors").write_text("not ours")
    remove_snapshots(Store(tmp_path / "state", KEY))
    assert list((tmp_path / "state").iterdir()) == []
    assert files(tmp_path) == {"private-1.safetensors"}
