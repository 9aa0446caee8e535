"""Small JSON files that a run keeps for itself."""

import json
from pathlib import Path
from typing import Any

from polyhead.errors import RunError
from polyhead.limited_file import read_limited

__all__ = ["read_object"]

_MOST_BYTES = 2**24


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """Read a file of at most 16 MiB that holds one object.

    Raises
    ------
    RunError
        If it is missing, no file, too large, or holds anything else; the text ends with `remedy`.
    """
    raw = read_limited(path, RunError, _MOST_BYTES, remedy)
    try:
        found = json.loads(raw.decode())
    except (ValueError, RecursionError) as problem:
        raise RunError(f"{path}: is damaged: {problem}. {remedy}") from problem
    if not isinstance(found, dict):
        raise RunError(f"{path}: is damaged: found a {type(found).__name__}; an object is needed. {remedy}")
    return found
