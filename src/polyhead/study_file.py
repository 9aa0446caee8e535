"""The study file: read, checked, and compared with another.

Paths are relative to the file. An unknown key is an error that names the nearest known one.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from polyhead.config import StudyConfig
from polyhead.errors import StudyError
from polyhead.findings import closest
from polyhead.limited_file import read_limited

__all__ = [
    "MOST_BYTES",
    "changed_settings",
    "check_study",
    "load_study",
    "parse_study",
    "parse_toml",
    "read_study_text",
]

MOST_BYTES = 2**24  # of a study file


def load_study(path: Path) -> StudyConfig:
    """Read a study file.

    Raises
    ------
    StudyError
        Naming the file, the key, what was found and what is allowed.
    """
    return parse_study(read_study_text(path), path.parent, str(path))


def read_study_text(path: Path) -> str:
    """Read a study file's text.

    Raises
    ------
    StudyError
        If it cannot be read, is no file, has more than 16 MiB, or is not UTF-8.
    """
    raw = read_limited(path, StudyError, MOST_BYTES)
    try:
        return raw.decode()
    except UnicodeDecodeError as problem:
        raise StudyError(f"{path}: is not UTF-8 text ({problem.reason} at byte {problem.start}).") from problem


def parse_study(text: str, folder: Path, source: str) -> StudyConfig:
    """Parse a study's TOML text; paths in it are relative to `folder`, errors name `source`."""
    return check_study(parse_toml(text, source), folder, source)


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Parse TOML text; errors name `source`."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as problem:
        raise StudyError(f"{source}: not valid TOML: {problem}.") from problem


def check_study(settings: Mapping[str, Any], folder: Path, source: str) -> StudyConfig:
    """Check a study's settings; paths in them are relative to `folder`, errors name `source`."""
    try:
        study = StudyConfig.model_validate(settings)
    except ValidationError as problem:
        raise StudyError("\n".join(f"{source}: {_explain(error)}" for error in problem.errors())) from problem
    return _with_absolute_paths(study, folder.absolute())


def changed_settings(old: StudyConfig, new: StudyConfig) -> list[str]:
    """Say which settings differ between two studies.

    Paths are compared as they are, so both studies must be read relative to the same folder. A recipe is what it sets:
    spelled out it is the same.

    Returns
    -------
    list of str
        One text per changed key, sorted, such as ``training.learning_rate: was 0.001, is 0.01``. Sites are matched
        by name, and their order does not matter. Empty if nothing changed.
    """
    texts = _differences("", *(_flat(study.model_dump(exclude={"site", "recipe"})) for study in (old, new)))
    was, now = ({site.name: _flat(site.model_dump()) for site in study.site} for study in (old, new))
    texts += [f"site {name}: removed" for name in was.keys() - now.keys()]
    texts += [f"site {name}: added" for name in now.keys() - was.keys()]
    for name in was.keys() & now.keys():
        texts += _differences(f"site {name}: ", was[name], now[name])
    return sorted(texts)


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one dict of dotted keys."""
    flat = {}
    for key, value in settings.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def _differences(prefix: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    # An alias that one study lacks reads like any other key that is not set.
    changed = [key for key in old.keys() | new.keys() if old.get(key) != new.get(key)]
    return [f"{prefix}{key}: was {_shown(old.get(key))}, is {_shown(new.get(key))}" for key in changed]


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    return repr(str(value) if isinstance(value, Path) else value)


def _with_absolute_paths(study: StudyConfig, folder: Path) -> StudyConfig:
    sites = [site.model_copy(update={"manifest": folder / site.manifest}) for site in study.site]
    weights = study.model.weights and folder / study.model.weights
    return study.model_copy(
        update={
            "site": sites,
            "cache": study.cache and folder / study.cache,
            "model": study.model.model_copy(update={"weights": weights}),
        }
    )


def _explain(error: Any) -> str:
    """Turn one of pydantic's error records into a line for a person."""
    location = error["loc"]
    key = ".".join(f"{part + 1}" if isinstance(part, int) else str(part) for part in location)
    if error["type"] == "extra_forbidden":
        section = _section_at(location[:-1])
        return f"unknown key {key!r}; {closest(str(location[-1]), section.model_fields)}."
    if error["type"] == "missing":
        return f"key {key!r} is missing."
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error" and isinstance(error["input"], dict):
        # Two keys of the section disagree: the message names both, and the rest of the section would only hide them.
        return f"section [{key}]: {message}." if key else f"{message}."
    return f"key {key!r}: found {_written(error['input'])}; {message}."


def _written(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # Python writes out no whole number of more than some thousand digits.
        return "a number of thousands of digits"


def _section_at(location: tuple[str | int, ...]) -> type[BaseModel]:
    section: type[BaseModel] = StudyConfig
    for part in location:
        if isinstance(part, str):
            section = _model_in(section.model_fields[part].annotation)
    return section


def _model_in(annotation: Any) -> type[BaseModel]:
    candidates = (annotation, *get_args(annotation))
    return next(one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel))
