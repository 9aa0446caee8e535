"""A site's private states in its own house: the state held in memory is the one on disk, or is not used."""

from pathlib import Path

import pytest
import torch

from polyhead.deployment.own_states import OwnStates, keep_own, load_own, save_own
from polyhead.errors import RunError
from polyhead.federation.private_state import PrivateState, private_path

FIRST = PrivateState({"head.weight": torch.zeros(2)})


def state_after(rounds_done: int) -> PrivateState:
    values = torch.full((1, 3, 2, 2), float(rounds_done)).to(memory_format=torch.channels_last)
    return PrivateState({"head.weight": torch.full((2,), rounds_done / 7)}, {"w.exp_avg": values}, rounds_done)


def same(one: PrivateState, other: PrivateState) -> bool:
    pairs = [(one.model, other.model), (one.optimizer, other.optimizer)]
    equal = all(a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs)
    return equal and one.rounds_done == other.rounds_done


@pytest.fixture
def states(tmp_path: Path) -> OwnStates:
    return OwnStates(tmp_path, "a", "study/ffl/0")


def test_held_state_serves_once_and_then_the_file(states: OwnStates) -> None:
    written = state_after(1)
    save_own(states, 1, written)
    assert load_own(states, 1, FIRST) is written
    written.model["head.weight"].fill_(9)  # As training does with what it was given.
    again = load_own(states, 1, FIRST)
    assert again is not written
    assert same(again, state_after(1))


def test_held_state_of_another_round_is_not_taken(states: OwnStates) -> None:
    save_own(states, 1, state_after(1))
    save_own(states, 2, state_after(2))
    assert same(load_own(states, 1, FIRST), state_after(1))
    assert same(load_own(states, 2, FIRST), state_after(2))


def test_what_another_process_wrote_since_is_read(states: OwnStates) -> None:
    save_own(states, 1, state_after(1))
    other = PrivateState({"head.weight": torch.ones(2)}, {}, 1)
    save_own(OwnStates(states.folder, states.site, states.key), 1, other)
    assert same(load_own(states, 1, FIRST), other)


def test_held_state_is_gone_with_its_account(states: OwnStates) -> None:
    save_own(states, 1, state_after(1))
    private_path(states.folder, states.site, 1).unlink()
    (states.folder / "states.json").unlink()
    with pytest.raises(RunError, match="no state after 1 rounds"):
        load_own(states, 1, FIRST)


def test_newest_and_wanted_are_kept(states: OwnStates) -> None:
    for rounds_done in (1, 2, 3):
        save_own(states, rounds_done, state_after(rounds_done))
    keep_own(states, {1})
    assert same(load_own(states, 1, FIRST), state_after(1))
    assert same(load_own(states, 3, FIRST), state_after(3))
    with pytest.raises(RunError, match="there are: 1, 3"):
        load_own(states, 2, FIRST)
