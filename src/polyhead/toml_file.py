"""Small TOML files that a person writes by hand."""

import tomllib
from pathlib import Path
from typing import Any

from polyhead.errors import PolyheadError
from polyhead.limited_file import read_limited

__all__ = ["read_toml"]

_MOST_BYTES = 2**20
_DEEPEST = 8


def read_toml(path: Path, error: type[PolyheadError]) -> dict[str, Any]:
    """Read a file of at most 1 MiB, as UTF-8 with or without byte-order mark.

    Raises
    ------
    PolyheadError
        Of the class `error`: the file is missing, no file, too large, or no TOML.
    """
    content = read_limited(path, error, _MOST_BYTES)
    try:
        settings = tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as problem:
        raise error(f"{path}: not valid TOML: {problem}.") from problem
    if not _is_modest(settings):
        raise error(f"{path}: tables more than {_DEEPEST} deep, or a number beyond 64 bits. No setting is.")
    return settings


def _is_modest(value: Any, depth: int = 0) -> bool:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return depth < _DEEPEST and all(_is_modest(one, depth + 1) for one in inner)
    return not isinstance(value, int) or -(2**63) <= value < 2**63
