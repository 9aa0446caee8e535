"""A site's own account of the privacy that its answers have cost its patients, its limit, and the secret of its noise.

All methods and seeds of a study are trained on the same patients, so there is one account for all of them. Both files
lie with the site's private states, and neither ever leaves.
"""

import hashlib
import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from polyhead.accountant import Steps, epsilon_of
from polyhead.atomic import write_atomically
from polyhead.config import Privacy
from polyhead.deployment.own_table import own_table
from polyhead.errors import RunError, StudyError, UpdateError
from polyhead.limited_file import read_limited

__all__ = ["Answered", "Budget", "charge", "limit_in", "site_secret", "spent"]

_MOST_BYTES = 2**28
_LENGTH = 32


@dataclass(frozen=True)
class Budget:
    """A site's account: the folder of its states, its own limit of epsilon if it has one, and the study's delta."""

    folder: Path
    limit: float | None
    delta: float


@dataclass(frozen=True)
class Answered:
    """What a site has answered: to how many questions, in how many steps, and what that cost."""

    questions: int
    steps: int
    epsilon: float
    delta: float


def limit_in(settings: Mapping[str, Any], privacy: Privacy, source: str) -> float | None:
    """Return the limit among a site's own settings, ``epsilon`` of ``[privacy]``; errors name `source`.

    Raises
    ------
    StudyError
        If it is no number above 0, or the study adds no noise, with which no limit can be kept.
    """
    limit = own_table(settings, "privacy", ("epsilon",), source).get("epsilon")
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit < math.inf:
        raise StudyError(f"{source}: key 'privacy.epsilon': found {limit!r}; allowed is a number above 0.")
    if not privacy.noise:
        raise StudyError(
            f"{source}: key 'privacy.epsilon': found {limit!r}, but the study adds no noise (privacy.noise = 0), so "
            "nothing bounds what it tells of a patient. Agree on noise, or remove the limit."
        )
    return float(limit)


def site_secret(folder: Path) -> bytes:
    """Return a site's secret, 32 bytes, made on first use; call it where no other process of the site is at work.

    Raises
    ------
    RunError
        If it is damaged, or the account is gone that belongs to it.
    """
    file = folder / "noise.secret"
    if not file.exists():
        if not _path(folder).exists():
            _write(folder, {"delta": None, "answered": []})
        write_atomically(file, secrets.token_bytes(_LENGTH), mode=0o600)
    elif not _path(folder).exists():
        raise RunError(f"{_path(folder)}: is missing: what was spent of privacy is not known. Restore the folder.")
    secret = read_limited(file, RunError, _LENGTH)
    if len(secret) != _LENGTH:
        raise RunError(f"{file}: is damaged. Remove it and this site makes a new one; what was spent stays spent.")
    return secret


def charge(budget: Budget, key: bytes, about: Mapping[str, Any], steps: Steps) -> None:
    """Put a question on the account, unless the same one is there; on return it is on disk, so call it before training.

    Parameters
    ----------
    key
        Of all chance in the answer: with the same key it is the same answer, which tells nothing new.
    about
        What to note of it: method, seed, round.

    Raises
    ------
    UpdateError
        If epsilon would be beyond the site's limit: nothing is charged.
    RunError
        If the account is damaged.
    """
    account = _read(budget.folder)
    # The key itself must not be written: whoever has it can take the noise away.
    question = hashlib.sha256(b"question" + key).hexdigest()
    if any(one["question"] == question for one in account["answered"]):
        return
    answered = [*account["answered"], {"question": question, **about, **asdict(steps)}]
    if budget.limit is not None and epsilon_of(map(_steps, answered), budget.delta) > budget.limit:
        raise UpdateError("the privacy limit that this site has set itself is reached; it answers no further rounds.")
    _write(budget.folder, {"delta": budget.delta, "answered": answered})


def spent(folder: Path) -> Answered | None:
    """Return what a site has answered and spent so far; None if it has no account.

    Raises
    ------
    RunError
        If the account is damaged.
    """
    if not _path(folder).exists():
        return None
    account = _read(folder)
    if not account["answered"]:
        return Answered(0, 0, 0.0, 0.0)
    steps = list(map(_steps, account["answered"]))
    delta = account["delta"]
    return Answered(len(steps), sum(one.steps for one in steps), epsilon_of(steps, delta), delta)


def _path(folder: Path) -> Path:
    return folder / "privacy.json"


def _steps(answered: Mapping[str, Any]) -> Steps:
    return Steps(answered["noise"], answered["rate"], answered["steps"])


def _write(folder: Path, account: Mapping[str, Any]) -> None:
    write_atomically(_path(folder), json.dumps(account, allow_nan=False), mode=0o600)


def _read(folder: Path) -> dict[str, Any]:
    path = _path(folder)
    try:
        account = json.loads(read_limited(path, RunError, _MOST_BYTES))
        for one in account["answered"]:
            steps = _steps(one)
            if not (steps.noise > 0 and 0 < steps.rate <= 1 and steps.steps > 0 and isinstance(one["question"], str)):
                raise ValueError("a number is out of range")
        if account["answered"] and not 0 < account["delta"] < 1:
            raise ValueError("delta is out of range")
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise RunError(f"{path}: is damaged ({type(problem).__name__}). Restore the folder.") from problem
    return dict(account)
