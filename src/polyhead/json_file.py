"""Small JSON files that a run keeps for itself."""

import json
from pathlib import Path
from typing import Any

from polyhead.errors import RunError

__all__ = ["read_object"]

_MOST_BYTES = 2**24


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """Read a file of at most 16 MiB that holds one object.

    Raises
    ------
    RunError
        If it is missing, no file, too large, or holds anything else; the text ends with `remedy`.
    """
    try:
        # Opening a pipe could wait for ever.
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            raise RunError(f"{path}: is no file, or larger than any of its kind. {remedy}")
        found = json.loads(path.read_bytes().decode())
    except (OSError, ValueError, RecursionError) as problem:
        raise RunError(f"{path}: is damaged: {problem}. {remedy}") from problem
    if not isinstance(found, dict):
        raise RunError(f"{path}: is damaged: found a {type(found).__name__}; an object is needed. {remedy}")
    return found
