"""Every setting of a study, the choices behind its labels, and everything noted about the machine, as rows of text."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from polyhead.config_recipes import RECIPES
from polyhead.report.load import RunTables

__all__ = ["environment_rows", "privacy_rows", "setting_rows", "source_rows"]


def setting_rows(run: RunTables) -> list[dict[str, object]]:
    """Return every effective setting, and who sets it: the study file, its recipe, or nobody (default)."""
    recipe = f"recipe {run.study.recipe}"
    origin = {key: recipe for key, _ in _flat(RECIPES[run.study.recipe])}
    origin |= {key: "study file" for key, _ in _flat(tomllib.loads(run.toml))}
    folder = run.folder.absolute()
    return [
        {"key": key, "value": _text(_as_written(value, folder)), "origin": origin.get(key, "default")}
        for key, value in _flat(run.study.model_dump())
    ]


def environment_rows(run: RunTables) -> list[dict[str, str]]:
    """Return what ``environment.json`` holds."""
    return [{"key": key, "value": _text(value)} for key, value in _flat(run.environment)]


def privacy_rows(run: RunTables) -> list[dict[str, object]]:
    """Return what each method costs each site's patients, in the order of the file; none without noise."""
    return list(run.privacy.iter_rows(named=True))


def source_rows(run: RunTables) -> list[dict[str, str]]:
    """Return the choices behind the labels, sites in the study's order; sites that record none are left out."""
    return [
        {"site": site, "choice": choice, "value": _text(value)}
        for site in run.sites
        for choice, value in run.sources.get(site, {}).items()
    ]


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and plain values; the items of a list of tables are numbered from 1."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
        for place, inner in enumerate(value, start=1):
            yield from _flat(inner, f"{path} {place}")
    else:
        yield path, value


def _as_written(value: Any, folder: Path) -> Any:
    """Undo what made a path absolute: the study file's text is a copy, its own folder is not in the run."""
    if isinstance(value, Path) and value.is_relative_to(folder):
        return value.relative_to(folder)
    return value


def _text(value: Any) -> str:
    if value is None or value in ({}, [], ""):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return str(value)
