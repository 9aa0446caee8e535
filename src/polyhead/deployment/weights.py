"""The initial weights that hospitals agreed on: a file in each kit that needs it, known by its SHA-256."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from polyhead.errors import PolyheadError, RunError, WeightsError
from polyhead.limited_file import limited_file

__all__ = ["WEIGHTS", "Weights", "check_weights", "hash_of_weights"]

WEIGHTS = "weights.safetensors"
"""Name of the file, beside the agreement."""

_MOST_BYTES = 2**36
_REMEDY = "Ask the coordinator for the kit again."


@dataclass(frozen=True)
class Weights:
    """Initial weights in a kit: where they lie, and the SHA-256 in hexadecimal digits that was agreed on."""

    file: Path
    sha256: str


def hash_of_weights(file: Path) -> str:
    """Return the SHA-256 of a study's initial weights.

    Raises
    ------
    WeightsError
        If they cannot be read.
    """
    return _hash(file, WeightsError, None)


def check_weights(weights: Weights) -> None:
    """Hold the weights in a kit against the agreement.

    Raises
    ------
    RunError
        If the file is missing, or another.
    """
    found = _hash(weights.file, RunError, _REMEDY)
    if found != weights.sha256:
        raise RunError(
            f"{weights.file}: is not what the hospitals agreed on: its SHA-256 is {found[:12]}, the agreement's is "
            f"{weights.sha256[:12]}. {_REMEDY}"
        )


def _hash(file: Path, error: type[PolyheadError], remedy: str | None) -> str:
    with limited_file(file, error, _MOST_BYTES, remedy) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
