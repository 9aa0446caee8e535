"""A table among a site's own settings, beside those that a ``[[site]]`` of a study has."""

from collections.abc import Mapping, Sequence
from typing import Any

from polyhead.errors import StudyError
from polyhead.findings import closest

__all__ = ["own_table"]


def own_table(settings: Mapping[str, Any], name: str, keys: Sequence[str], source: str) -> dict[str, Any]:
    """Return a table of a site's own settings; empty if it is not there; errors name `source`.

    Raises
    ------
    StudyError
        If it is no table, or has other keys than `keys`.
    """
    table = settings.get(name, {})
    if not isinstance(table, dict):
        raise StudyError(f"{source}: key {name!r}: found {table!r}; it is a table, [{name}].")
    for key in table:
        if key not in keys:
            raise StudyError(f"{source}: unknown key '{name}.{key}'; {closest(key, keys)}.")
    return table
