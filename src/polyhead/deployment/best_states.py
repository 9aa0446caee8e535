"""A site's best states by its own validation, on its own disk: whole models, of which nobody else knows.

The best so far is kept, and the one before the last question too: should the server have lost its last snapshot, it
asks again from the one before, and what was best after that is none of this history any longer. (What the site cannot
know: that a server went back while the site was away, over a round in which it had not counted. It may then choose a
state that was averaged and undone.)
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from polyhead.atomic import write_atomically
from polyhead.deployment.own_states import OwnStates
from polyhead.errors import RunError
from polyhead.limited_file import read_limited
from polyhead.training.tensor_file import Stored, read_tensors, write_tensors

__all__ = ["BestState", "find_best", "forget_later", "keep_if_best", "load_best"]

_MOST_BYTES = 2**20


@dataclass(frozen=True)
class BestState:
    """A state that was the best when it was measured.

    Attributes
    ----------
    rounds_done
        Number of rounds that went into it.
    own
        After how many rounds the site's own part of it was.
    auroc
        The site's mean over its findings, 0 to 1.
    stored
        Its file.
    """

    rounds_done: int
    own: int
    auroc: float
    stored: Stored


def forget_later(states: OwnStates, rounds_done: int, own: int) -> None:
    """Forget every state but the best of those before a question's: later ones a server that went back has undone.

    Parameters
    ----------
    rounds_done, own
        Of the state that the question brings, which is still to be measured.
    """
    known = _read(states)
    # A state whose own part is later than the one that is asked for now came of a round that did not count in the end.
    before = [one for one in known if one.rounds_done < rounds_done and one.own <= own]
    best = _best_of(before)
    _write(states, known, [best] if best else [])


def keep_if_best(
    states: OwnStates, rounds_done: int, own: int, auroc: float, model: Mapping[str, torch.Tensor]
) -> None:
    """Keep a model that was measured if none before was as good; call `forget_later` first.

    Raises
    ------
    DiskError
        If the disk is full.
    """
    known = _read(states)
    if any(one.auroc >= auroc for one in known):
        return
    stored = write_tensors(_path(states, rounds_done), model, mode=0o600)
    _write(states, known, [*known, BestState(rounds_done, own, auroc, stored)])


def find_best(states: OwnStates) -> BestState | None:
    """Return the best state, the earliest of equals; None if none was measured.

    Raises
    ------
    RunError
        If the account of them is damaged.
    """
    return _best_of(_read(states))


def load_best(states: OwnStates, best: BestState) -> dict[str, torch.Tensor]:
    """Read a best state's whole model.

    Raises
    ------
    RunError
        If the file is not the one that was written.
    """
    path = _path(states, best.rounds_done)
    return read_tensors(path, RunError, most_bytes=best.stored.bytes, stored=best.stored)


def _best_of(states: Collection[BestState]) -> BestState | None:
    return max(states, key=lambda one: (one.auroc, -one.rounds_done), default=None)


def _path(states: OwnStates, rounds_done: int) -> Path:
    return states.folder / f"best-{rounds_done}.safetensors"


def _write(states: OwnStates, known: Collection[BestState], kept: Collection[BestState]) -> None:
    """Account for the states that are kept, then remove the files of the others."""
    if list(kept) != list(known):
        content = {"key": states.key, "states": [asdict(one) for one in kept]}
        write_atomically(states.folder / "best.json", json.dumps(content), mode=0o600)
    names = {_path(states, one.rounds_done).name for one in kept}
    for file in states.folder.glob("best-*.safetensors"):
        if file.name not in names:
            file.unlink(missing_ok=True)


def _read(states: OwnStates) -> list[BestState]:
    """Read the account; of another study, or none at all, it is empty."""
    path = states.folder / "best.json"
    if not path.exists():
        return []
    try:
        content = json.loads(read_limited(path, RunError, _MOST_BYTES))
        return [_state(**one) for one in content["states"]] if content["key"] == states.key else []
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise RunError(f"{path}: is damaged ({type(problem).__name__}). Restore the folder.") from problem


def _state(rounds_done: object, own: object, auroc: object, stored: Mapping[str, object]) -> BestState:
    bytes_, sha256 = stored["bytes"], stored["sha256"]
    if not all(type(one) is int and one >= 0 for one in (rounds_done, own, bytes_)) or type(auroc) is not float:
        raise ValueError("a number is none")
    return BestState(rounds_done, own, auroc, Stored(bytes_, str(sha256)))  # type: ignore[arg-type]
