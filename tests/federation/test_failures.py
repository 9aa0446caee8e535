"""A site that fails costs its own round; too few sites cost a round, and never what was there before it."""

import errno
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from polyhead.errors import CacheError, DiskError, ImageError, RunError
from polyhead.federation import simulate as simulate_module
from polyhead.federation.private_state import PrivateState
from polyhead.federation.simulate import Watch
from polyhead.federation.site import Site, site_round
from polyhead.federation.snapshot import Store, load_snapshot
from tests.federation.three_sites import (
    KEY,
    Part,
    State,
    by_hand,
    differences,
    federate,
    in_memory,
    plan_for,
    stub_by_hand,
    stub_federate,
    stub_round,
)

PATIENT = "patient-4711"
PATH = f"/data/ward/{PATIENT}/chest.png"
FAILURES: dict[str, tuple[Exception, str]] = {
    "no file": (FileNotFoundError(errno.ENOENT, "No such file", PATH), r"a file or device failed \(ENOENT\)"),
    "device": (OSError(errno.EIO, f"cannot read {PATH}"), r"a file or device failed \(EIO\)"),
    "device, no number": (OSError(f"cannot read {PATH}"), r"a file or device failed \(unknown\)"),
    "memory": (MemoryError(PATIENT), "not enough memory. Lower training.batch_size"),
    "GPU memory": (torch.OutOfMemoryError(PATIENT), "not enough memory. Lower training.batch_size"),
    "CPU memory": (RuntimeError(f"not enough memory: {PATIENT}"), "not enough memory. Lower training.batch_size"),
    "runtime": (
        RuntimeError(f"bad value in {PATH}"),
        "RuntimeError. The site's log, run.log or its kit's log.txt, tells",
    ),
    "image": (ImageError(f"{PATH}: is cut off"), "an image or the pixel cache cannot be read. Run `polyhead check`"),
    "cache": (CacheError(f"{PATH}: changed"), "an image or the pixel cache cannot be read. Run `polyhead check`"),
    "key": (KeyError(PATIENT), "KeyError. The site's log, run.log or its kit's log.txt, tells"),
    "value": (
        ValueError(f"{PATIENT}\nEdema\x1b[2J"),
        "ValueError. The site's log, run.log or its kit's log.txt, tells",
    ),
}


def failing(problem: Exception, when: Callable[[int, str], bool], parts: Callable[..., Part] = site_round) -> Any:
    """Fail after training, when model and optimizer are used up."""

    def round_(
        site: Site, model: Any, plan: Any, number: int, shared: Any, private: PrivateState, on_step: Any = None
    ) -> Part:
        part = parts(site, model, plan, number, shared, private, on_step)
        if when(number, site.name):
            raise problem
        return part

    return round_


def replaced(monkeypatch: pytest.MonkeyPatch, parts: Any) -> None:
    monkeypatch.setattr(simulate_module, "site_round", parts)


@pytest.fixture(scope="module")
def absent() -> State:
    return by_hand(plan_for(), {(1, "b")})


@pytest.mark.parametrize("kind", FAILURES)
def test_a_site_that_fails_costs_its_round_and_tells_no_secret(
    kind: str, absent: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    problem, found = FAILURES[kind]
    replaced(monkeypatch, failing(problem, lambda number, site: (number, site) == (1, "b")))
    end, rows = federate(tmp_path, plan_for())
    assert differences(end, absent) == []
    status = {(row.round, row.site): row.status for row in rows}
    bad = status.pop((1, "b"))
    assert re.match(f"failed: {found}", bad), bad
    assert set(status.values()) == {"averaged"}
    assert [(row.bytes_up, row.bytes_down) for row in rows if row.status == bad] == [(0, 0)]
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert told == [f"round 1, site b: {bad}"]
    assert PATIENT not in str([rows, told])
    assert PATIENT in caplog.text


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_whoever_stops_the_run_stops_it(stop: type[BaseException], tmp_path: Path) -> None:
    def on_step() -> None:
        raise stop

    with pytest.raises(stop):
        federate(tmp_path, plan_for(), Watch(lambda rows, repeated: None, on_step))


def test_a_full_disk_is_no_fault_of_a_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed, _ = federate(tmp_path / "undisturbed", plan_for())
    with monkeypatch.context() as patch:
        save, saved = simulate_module.save_private, list[str]()

        def full(*about: Any) -> Any:
            saved.append(about[1])
            if len(saved) == 5:
                raise DiskError("no space")
            return save(*about)

        patch.setattr(simulate_module, "save_private", full)
        with pytest.raises(DiskError, match="no space"):
            federate(tmp_path / "full", plan_for())
    end, rows = federate(tmp_path / "full", plan_for())
    assert differences(end, undisturbed) == []
    assert {row.round for row in rows} == {1, 2}


@pytest.mark.parametrize(("count", "wanted"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)], ids=lambda number: str(number))
def test_by_default_half_of_the_sites_rounded_up_make_a_round(
    count: int, wanted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for failures in range(count + 1):
        fail = failing(KeyError(), lambda _, site, most=failures: int(site) < most, stub_round)  # type: ignore[misc]
        replaced(monkeypatch, fail)
        folder, plan = tmp_path / str(failures), plan_for(rounds=1)
        if count - failures >= wanted:
            end, _ = stub_federate(folder, plan, count)
            missing = {(0, f"{site:03}") for site in range(failures)}
            assert differences(end, stub_by_hand(plan, missing, count)) == []
        else:
            with pytest.raises(
                RunError, match=rf"{count - failures} of {count} sites .* needs {wanted} \(by default half"
            ):
                stub_federate(folder, plan, count)


def test_a_fault_that_goes_away_leaves_no_trace_but_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    undisturbed = by_hand(plan_for())
    attempts: list[int] = []

    def first_attempts(number: int, site: str) -> bool:
        attempts.extend([number] * ((number, site) == (1, "a")))
        return number == 1 and site != "a" and attempts.count(1) <= 2

    replaced(monkeypatch, failing(OSError(errno.EIO, "flaky"), first_attempts))
    end, rows = federate(tmp_path, plan_for())
    assert differences(end, undisturbed) == []
    assert attempts == [1, 1, 1]
    failed = "failed: a file or device failed (EIO). The site's log, run.log or its kit's log.txt, names it."
    repeated = [("a", "repeated: 1 of 3 sites"), ("b", failed), ("c", failed)]
    averaged = [("a", "averaged"), ("b", "averaged"), ("c", "averaged")]
    assert [(row.site, row.status) for row in rows if row.round == 1] == [*repeated, *repeated, *averaged]
    assert "round 1, attempt 1 of 3: 1 sites of 2 needed" in caplog.text
    assert "round 1, attempt 2 of 3" in caplog.text


def test_a_round_that_never_gets_enough_sites_ends_the_run_and_keeps_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for(min_sites=3, round_attempts=4)
    after_one = by_hand(plan_for(rounds=1))
    tried: list[str] = []

    def always(number: int, site: str) -> bool:
        tried.extend([site] * (number == 1))
        return (number, site) == (1, "b")

    rows: list[Any] = []
    with monkeypatch.context() as patch:
        replaced(patch, failing(ImageError(PATH), always))
        with pytest.raises(RunError) as told:
            federate(tmp_path, plan, Watch(lambda new, repeated: rows.extend(new)))
    assert tried == ["a", "b", "c"] * 4
    text = str(told.value)
    for part in (
        "round 1: in the last of 4 attempts 2 of 3 sites",
        "federation.min_sites needs 3",
        "site a: averaged",
        "site b: failed: an image or the pixel cache cannot be read. Run `polyhead check` at the site",
        "The state before this round is kept",
        "give the same command again",
    ):
        assert part in text
    assert PATIENT not in text
    assert {row.status for row in rows if (row.round, row.site) == (1, "c")} == {"repeated: 2 of 3 sites"}

    kept = load_snapshot(Store(tmp_path, KEY), "abc")
    assert kept is not None
    assert kept.rounds_done == 1
    assert differences(in_memory(kept, tmp_path), after_one) == []
    end, later = federate(tmp_path, plan)
    assert differences(end, by_hand(plan)) == []
    assert {row.round for row in later} == {1, 2}


def test_too_few_good_updates_repeat_the_round_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dropping(*about: Any) -> Part:
        update, own = stub_round(*about)
        update.state.pop("backbone.n")
        return update, own

    replaced(monkeypatch, dropping)
    with pytest.raises(RunError, match=r"0 of 3 sites .* site 000: left out: backbone\.n is missing"):
        stub_federate(tmp_path, plan_for(round_attempts=1))


def test_a_damaged_private_state_ends_the_run_while_the_snapshot_before_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaging(site: Site, *about: Any) -> Part:
        if (about[2], site.name) == (1, "000"):
            file = tmp_path / "sites" / "001" / "private-1.safetensors"
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            file.write_bytes(content)
        return stub_round(site, *about)

    replaced(monkeypatch, damaging)
    with pytest.raises(RunError, match=r"001/private-1\.safetensors: is not what was written"):
        stub_federate(tmp_path, plan_for())
    before = load_snapshot(Store(tmp_path, KEY), ["000", "001", "002"])
    assert before is not None
    assert before.rounds_done == 0
