"""A site's private states in its own house, where it alone keeps account of them.

The server knows of each site only after how many rounds its state counts, and says so when it asks for the next round.
So a round that was left out, or that the server never saw, leaves no trace: its state is never asked for.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from polyhead.atomic import write_atomically
from polyhead.errors import RunError
from polyhead.federation.private_state import PrivateFile, PrivateState, load_private, private_path, save_private
from polyhead.limited_file import read_limited
from polyhead.training.tensor_file import Stored

__all__ = ["OwnStates", "keep_own", "load_own", "save_own"]

_MOST_BYTES = 2**20


@dataclass(frozen=True)
class OwnStates:
    """Where a site's states lie.

    Attributes
    ----------
    key
        Of what they are: a study's hash, a method and a seed.
    held
        The state written last, until it is used up, by what its file is known by: reading it back and hashing it takes
        as long as the server's whole part of a round.
    """

    folder: Path
    site: str
    key: str
    held: dict[Stored, PrivateState] = field(default_factory=dict, repr=False)


def load_own(states: OwnStates, rounds_done: int, first: PrivateState) -> PrivateState:
    """Return the state after so many rounds; `first` if that is none.

    Raises
    ------
    RunError
        If the site has no such state, or it is damaged.
    """
    if rounds_done == 0:
        return first
    account = _read(states)
    if rounds_done not in account:
        has = ", ".join(map(str, sorted(account))) or "none"
        raise RunError(
            f"{states.folder}: no state after {rounds_done} rounds, for which the server asks; there are: {has}. "
            "Restore the folder."
        )
    # Training writes over it, so it serves once; only the account says which state is the one after these rounds.
    own = states.held.get(account[rounds_done])
    states.held.clear()
    return own or load_private(states.folder, states.site, PrivateFile(rounds_done, account[rounds_done]))


def save_own(states: OwnStates, rounds_done: int, private: PrivateState) -> None:
    """Write the state after so many rounds, and hold it: the caller must not change it any more.

    Raises
    ------
    DiskError
        If the disk is full.
    """
    file = save_private(states.folder, states.site, rounds_done, private)
    if file.stored:
        _write(states, {**_read(states), rounds_done: file.stored})
        states.held.clear()
        states.held[file.stored] = private


def keep_own(states: OwnStates, wanted: Collection[int]) -> None:
    """Remove every state but those after so many rounds, and the newest: no server can ask all of a site's away."""
    account = _read(states)
    kept = {one: stored for one, stored in account.items() if one in wanted or one == max(account)}
    if kept.keys() != account.keys():
        _write(states, kept)
    for rounds_done in account.keys() - kept.keys():
        private_path(states.folder, states.site, rounds_done).unlink(missing_ok=True)


def _path(states: OwnStates) -> Path:
    return states.folder / "states.json"


def _write(states: OwnStates, account: Mapping[int, Stored]) -> None:
    files = {str(rounds_done): asdict(stored) for rounds_done, stored in sorted(account.items())}
    write_atomically(_path(states), json.dumps({"key": states.key, "states": files}))


def _read(states: OwnStates) -> dict[int, Stored]:
    """Read the account; of another study, or none at all, it is empty."""
    path = _path(states)
    if not path.exists():
        return {}
    try:
        content = json.loads(read_limited(path, RunError, _MOST_BYTES))
        stored = {int(rounds): Stored(int(s["bytes"]), str(s["sha256"])) for rounds, s in content["states"].items()}
        return stored if content["key"] == states.key else {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise RunError(f"{path}: is damaged ({type(problem).__name__}). Restore the folder.") from problem
