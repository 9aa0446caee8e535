"""A site keeps its best state at home, and forgets what a server that went back has undone."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyhead.deployment import hospital as hospital_module
from polyhead.deployment.best_states import find_best, forget_later, keep_if_best, load_best
from polyhead.deployment.coordinator import Segment, run_segment, store_of
from polyhead.deployment.own_states import OwnStates
from polyhead.errors import RunError
from polyhead.federation.snapshot_manifest import manifest_path
from tests.deployment.houses_by_hand import agreed_in, carry_to, open_all, write_study


def states_in(folder: Path, key: str = "study/ffl/0") -> OwnStates:
    return OwnStates(folder, "a", key)


def model_after(rounds_done: int) -> dict[str, torch.Tensor]:
    return {"head.weight": torch.full((2, 3), float(rounds_done)), "backbone.n": torch.tensor(rounds_done)}


def ask(states: OwnStates, rounds_done: int, auroc: float | None, own: int | None = None) -> None:
    """What a question after so many rounds does, whose state gets this AUROC."""
    own = rounds_done if own is None else own
    forget_later(states, rounds_done, own)
    if auroc is not None:
        keep_if_best(states, rounds_done, own, auroc, model_after(rounds_done))


def best_of(states: OwnStates) -> int | None:
    best = find_best(states)
    if best is None:
        return None
    loaded = load_best(states, best)
    assert loaded.keys() == model_after(0).keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model_after(best.rounds_done).items())
    return best.rounds_done


# "back": the server lost its last snapshot; it has one more, unless it lost one just before. "again": the answer was
# lost. Each step says whether the site is there, and which AUROC a state gets that is new.
STEPS = st.tuples(st.sampled_from(["round", "again", "back"]), st.booleans(), st.sampled_from([None, 0.0, 0.5, 0.75]))


@settings(max_examples=200)
@given(st.lists(STEPS, max_size=12))
def test_the_best_is_that_of_the_history_that_counts(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, bool, float | None]]
) -> None:
    states = states_in(tmp_path_factory.mktemp("states"))
    scores: dict[int, float | None] = {}
    measured: dict[int, float] = {}
    own, last, kept = {0: 0}, 0, 1
    for what, here, auroc in steps:
        if what == "back" and kept == 2 and last > 1:
            # Of a round in which it did not count a site that is away cannot know that it was undone.
            if here or own[last] == last:
                measured.pop(last, None)
            last, kept = last - 1, 1
        if here and last:
            ask(states, last, scores[last], own[last])
            measured = {rounds: one for rounds, one in measured.items() if rounds < last}
            measured |= {} if (score := scores[last]) is None else {last: score}
            wanted = min((rounds for rounds in measured if measured[rounds] == max(measured.values())), default=None)
            assert best_of(states) == wanted
            best = find_best(states)
            assert best is None or best.auroc == measured[best.rounds_done]
            assert len(list(states.folder.glob("best-*"))) <= 2
        if what == "round":
            last, kept = last + 1, 2
            scores[last], own[last] = auroc, last if here else own[last - 1]


def test_of_equals_the_earliest_stays(tmp_path: Path) -> None:
    states = states_in(tmp_path)
    for rounds_done, auroc in ((2, 0.7), (4, 0.7), (6, 0.6)):
        ask(states, rounds_done, auroc)
        assert [file.name for file in tmp_path.glob("best-*")] == ["best-2.safetensors"]
    assert best_of(states) == 2


def test_a_state_whose_own_part_was_undone_is_forgotten_where_the_site_was_away(tmp_path: Path) -> None:
    states = states_in(tmp_path)
    ask(states, 1, 0.6, own=1)
    ask(states, 2, 0.9, own=2)
    # Round 1 was done again, without this site: its own state is still that after one round.
    ask(states, 3, 0.5, own=1)
    assert best_of(states) == 1


def test_a_state_of_as_many_rounds_that_is_another_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    states = states_in(tmp_path)
    for rounds_done, auroc in ((1, 0.6), (2, 0.9), (2, 0.5)):
        ask(states, rounds_done, auroc, own=1)
    assert best_of(states) == 1


def test_only_its_owner_reads_it_and_only_of_its_own_study(tmp_path: Path) -> None:
    ask(states_in(tmp_path), 2, 0.7)
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert sorted(file.name for file in files) == ["best-2.safetensors", "best.json"]
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)
    assert find_best(states_in(tmp_path, "other/ffl/0")) is None


def test_a_file_that_a_kill_left_goes(tmp_path: Path) -> None:
    states = states_in(tmp_path)
    (tmp_path / "best-9.safetensors").write_bytes(b"half")
    ask(states, 2, 0.7)
    assert not (tmp_path / "best-9.safetensors").exists()


def test_a_damaged_best_state_is_named_and_never_replaced(tmp_path: Path) -> None:
    states = states_in(tmp_path)
    ask(states, 2, 0.7)
    best = find_best(states)
    assert best is not None
    (tmp_path / "best-2.safetensors").write_bytes(b"half")
    with pytest.raises(RunError, match=r"best-2\.safetensors"):
        load_best(states, best)


@pytest.mark.parametrize("spoil", ["{", "[]", '{"key": "study/ffl/0", "states": [{"auroc": 1}]}', "number"])
def test_a_damaged_account_is_named(spoil: str, tmp_path: Path) -> None:
    states = states_in(tmp_path)
    ask(states, 2, 0.7)
    file = tmp_path / "best.json"
    if spoil == "number":
        content = json.loads(file.read_text())
        content["states"][0]["rounds_done"] = True
        spoil = json.dumps(content)
    file.write_text(spoil)
    with pytest.raises(RunError, match="Restore the folder"):
        find_best(states)


ROUNDS = 3


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = 'validate_every = 1\nselect = "best"'
    return write_study(tmp_path_factory.mktemp("study"), ROUNDS, "ab", settings)


def test_a_server_that_goes_back_takes_the_best_back_with_it(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Hospitals take turns. The state after round 2 is the best, until the server loses it and makes another.
    scores: Iterator[float] = iter([*(0.5, 0.5), *(0.9, 0.9), *(0.5, 0.5), *(0.4, 0.4), *(0.3, 0.3)])
    monkeypatch.setattr(hospital_module, "validation_auroc", lambda model, site: next(scores))
    agreed = agreed_in(study)
    hospitals = open_all(study, agreed, tmp_path)
    server = tmp_path / "server"
    run_segment(agreed, Segment("1", "ffl", 0, 2), server, carry_to(hospitals, []))
    # The question of round 2 came, and its segment died.
    with pytest.raises(KeyboardInterrupt):
        run_segment(agreed, Segment("2", "ffl", 0, 3), server, carry_to(hospitals, [], stop_after=2))
    assert {find_best(hospital.states).rounds_done for hospital in hospitals.values()} == {2}  # type: ignore[union-attr]
    manifest_path(store_of(agreed, server, "ffl", 0).folder, 2).unlink()
    run_segment(agreed, Segment("3", "ffl", 0, 3), server, carry_to(hospitals, []))
    for site in "ab":
        assert json.loads((tmp_path / f"{site}/run/models/ffl/seed-0/{site}/model.json").read_text())["rounds"] == 1


def test_a_state_that_cannot_be_measured_is_no_reason_to_miss_a_round(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(model: object, site: object) -> float:
        raise OSError("the images are gone")

    monkeypatch.setattr(hospital_module, "validation_auroc", fail)
    agreed = agreed_in(study)
    run_segment(agreed, Segment("1", "ffl", 0, 3), tmp_path / "server", carry_to(open_all(study, agreed, tmp_path), []))
    for site in "ab":
        about = json.loads((tmp_path / f"{site}/run/models/ffl/seed-0/{site}/model.json").read_text())
        assert about["rounds"] == ROUNDS
    assert "not validated" in caplog.text
    assert "has no validation AUROC; it gets the last state" in caplog.text
