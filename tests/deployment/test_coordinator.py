"""A federation whose server has no private states, without an engine: the same bits as in one process."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from polyhead.deployment.agreed import Agreed
from polyhead.deployment.coordinator import EVENTS, Segment, run_segment, store_of
from polyhead.deployment.events import read_events
from polyhead.deployment.question import Question, Reply
from polyhead.federation.run_lock import locked
from polyhead.federation.snapshot_manifest import manifest_path
from polyhead.federation.update import SiteUpdate
from polyhead.training.tensor_file import memory_of
from tests.deployment.houses_by_hand import (
    agreed_in,
    carry_to,
    differences,
    open_all,
    several_steps,
    simulated,
    state_of,
    write_study,
)

ROUNDS = 4


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"), ROUNDS)


@pytest.fixture
def agreed(study: Path) -> Agreed:
    return agreed_in(study)


def segment(until: int = ROUNDS, name: str = "one") -> Segment:
    return Segment(name, "ffl", 0, until)


def events_in(folder: Path) -> list[dict[str, object]]:
    return read_events(folder / "server" / "ffl" / "seed-0" / EVENTS)


def houses(folder: Path) -> dict[str, Path]:
    return {site: folder / site for site in "abc"}


def test_in_segments_it_equals_simulate(study: Path, agreed: Agreed, tmp_path: Path) -> None:
    for until in (1, 3, ROUNDS):
        # Each segment opens the hospitals anew, as processes that begin anew do.
        carry = carry_to(open_all(study, agreed, tmp_path), [])
        run_segment(agreed, segment(until, f"to {until}"), tmp_path / "server", carry)
    assert not differences(simulated(study, tmp_path / "sim"), state_of(agreed, tmp_path / "server", houses(tmp_path)))
    kinds = [event["event"] for event in events_in(tmp_path)]
    assert kinds == [
        *("begun", "round", "ended", "begun", "round", "round", "ended"),
        *("begun", "round", "finished", "finished", "finished", "ended"),
    ]


OTHERS = ["fedprox", "fedbabu", "fedavgm", "fedadam"]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of methods that do more than share."""
    settings = 'finetune = "head"\nfinetune_steps = 1\nproximal = 0.5'
    file = write_study(tmp_path_factory.mktemp("others"), 3, settings=settings)
    file.write_text(several_steps(file.read_text()).replace('methods = ["ffl"]', f"methods = {OTHERS}"))
    return file


@pytest.mark.parametrize("method", OTHERS)
def test_a_pull_a_fixed_head_and_a_rule_of_the_server_are_the_same_in_segments(
    method: str, others: Path, tmp_path: Path
) -> None:
    """Site b is away in round 1; then the server loses its last snapshot, with what its rule kept in it."""
    agreed, absent, server = agreed_in(others), {(1, "b")}, tmp_path / "server"

    def to(until: int) -> None:
        carry = carry_to(open_all(others, agreed, tmp_path, method), [], lost=absent)
        run_segment(agreed, Segment(f"to {until}", method, 0, until), server, carry)

    to(2)
    manifest_path(store_of(agreed, server, method, 0).folder, 2).unlink()
    to(3)
    expected = simulated(others, tmp_path / "sim", absent=absent, method=method)
    assert not differences(expected, state_of(agreed, server, houses(tmp_path), method=method))
    kept = [file.name for file in store_of(agreed, server, method, 0).folder.glob("server-3.*")]
    assert kept == (["server-3.safetensors"] if method in ("fedavgm", "fedadam") else [])


@pytest.mark.parametrize("how", ["lost", "spoiled"])
def test_a_round_that_did_not_count_leaves_no_trace_at_its_site(
    how: str, study: Path, agreed: Agreed, tmp_path: Path
) -> None:
    asked: list[Question] = []
    when = {(1, "b"), (3, "a")}
    carry = carry_to(open_all(study, agreed, tmp_path), asked, **{how: when})
    run_segment(agreed, segment(), tmp_path / "server", carry)
    found = state_of(agreed, tmp_path / "server", houses(tmp_path))
    assert not differences(simulated(study, tmp_path / "sim", absent=when), found)
    assert [question.own for question in asked] == [0, 0, 0, 1, 1, 1, 2, 1, 2, 3, 3, 3]


def test_a_site_that_begins_late_is_the_same_as_in_simulate(study: Path, agreed: Agreed, tmp_path: Path) -> None:
    asked: list[Question] = []
    late = {(0, "b")}
    carry = carry_to(open_all(study, agreed, tmp_path), asked, lost=late)
    run_segment(agreed, segment(), tmp_path / "server", carry)
    assert [question.own for question in asked] == [0, 0, 0, 1, 0, 1, 2, 2, 2, 3, 3, 3]
    found = state_of(agreed, tmp_path / "server", houses(tmp_path))
    assert not differences(simulated(study, tmp_path / "sim", absent=late), found)


def test_a_server_that_lost_its_last_snapshot_goes_back_and_the_sites_with_it(
    study: Path, agreed: Agreed, tmp_path: Path
) -> None:
    hospitals = open_all(study, agreed, tmp_path)
    run_segment(agreed, segment(3), tmp_path / "server", carry_to(hospitals, []))
    manifest_path(store_of(agreed, tmp_path / "server", "ffl", 0).folder, 3).unlink()
    run_segment(agreed, segment(name="two"), tmp_path / "server", carry_to(hospitals, []))
    assert not differences(simulated(study, tmp_path / "sim"), state_of(agreed, tmp_path / "server", houses(tmp_path)))


def test_a_site_that_is_asked_twice_gives_the_same_bytes_and_its_state_counts_once(
    study: Path, agreed: Agreed, tmp_path: Path
) -> None:
    hospitals, asked = open_all(study, agreed, tmp_path), list[Question]()
    given: list[tuple[bytes, ...]] = []
    carry_once = carry_to(hospitals, asked)

    def carry_twice(questions: Mapping[str, Question]) -> Iterator[Reply]:
        first, second = list(carry_once(questions)), list(carry_once(questions))
        for replies in (first, second):
            updates = [one.content for one in replies if isinstance(one.content, SiteUpdate)]
            given.append(tuple(bytes(memory_of(tensor)) for one in updates for tensor in one.state.values()))
        yield from second

    run_segment(agreed, segment(), tmp_path / "server", carry_twice)
    rounds = [one for one in given if one]
    assert len(rounds) == 2 * ROUNDS
    assert rounds[::2] == rounds[1::2]
    assert not differences(simulated(study, tmp_path / "sim"), state_of(agreed, tmp_path / "server", houses(tmp_path)))


def test_a_site_keeps_only_states_that_may_be_asked_for(study: Path, agreed: Agreed, tmp_path: Path) -> None:
    run_segment(agreed, segment(), tmp_path / "server", carry_to(open_all(study, agreed, tmp_path), []))
    kept = sorted(file.name for file in (tmp_path / "a").rglob("private-*"))
    assert kept == [f"private-{rounds}.safetensors" for rounds in (3, 4)]


def test_a_site_with_another_agreement_is_left_out_with_a_reason(study: Path, agreed: Agreed, tmp_path: Path) -> None:
    hospitals = open_all(study, agreed, tmp_path)
    hospitals["b"] = replace(hospitals["b"], agreed=replace(agreed, sha256="0" * 64))
    run_segment(agreed, segment(1), tmp_path / "server", carry_to(hospitals, []))
    rows = events_in(tmp_path)[1]["rows"]
    assert isinstance(rows, list)
    assert "the server's study is" in rows[1]["status"]


def test_a_silent_site_is_waited_for_twice_and_no_more_until_the_next_segment(
    study: Path, agreed: Agreed, tmp_path: Path
) -> None:
    asked: list[Question] = []
    hospitals = open_all(study, agreed, tmp_path)
    lost = {(round_, "b") for round_ in range(3)}
    run_segment(agreed, segment(3), tmp_path / "server", carry_to(hospitals, asked, lost=lost))
    assert len(asked) == 3 + 3 + 2
    run_segment(agreed, segment(name="two"), tmp_path / "server", carry_to(hospitals, asked))
    assert len(asked) == 8 + 3
    found = state_of(agreed, tmp_path / "server", houses(tmp_path))
    assert not differences(simulated(study, tmp_path / "sim", absent=lost), found)


def test_too_few_sites_end_the_segment_with_the_reasons(study: Path, agreed: Agreed, tmp_path: Path) -> None:
    def nobody(questions: dict[str, Question]) -> Iterator[Reply]:
        yield from (Reply(site, 0.0, failure="its process ended.", silent=True) for site in sorted(questions))

    run_segment(agreed, segment(), tmp_path / "server", nobody)  # type: ignore[arg-type]
    last = events_in(tmp_path)[-1]
    assert last["event"] == "failed"
    assert "its process ended" in str(last["reason"])


def test_of_two_segments_at_once_the_second_is_refused(study: Path, agreed: Agreed, tmp_path: Path) -> None:
    carry = carry_to(open_all(study, agreed, tmp_path), [])
    with locked(store_of(agreed, tmp_path / "server", "ffl", 0).folder):
        run_segment(agreed, segment(), tmp_path / "server", carry)
    (only,) = events_in(tmp_path)
    assert only["event"] == "failed"
    assert "another process is running" in str(only["reason"])


def test_of_two_processes_of_a_site_the_second_is_left_out(study: Path, agreed: Agreed, tmp_path: Path) -> None:
    hospitals = open_all(study, agreed, tmp_path)
    with locked(hospitals["b"].states.folder):
        run_segment(agreed, segment(1), tmp_path / "server", carry_to(hospitals, []))
    rows = events_in(tmp_path)[1]["rows"]
    assert isinstance(rows, list)
    assert "another process of this site" in rows[1]["status"]
