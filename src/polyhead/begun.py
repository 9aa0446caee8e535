"""``settings.json`` of a run directory: what every setting was when the run began.

A study file leaves most settings blank, and another version may have other defaults. So a run keeps what they stood
for: it does not go on under others, and its report tells those that it was trained with.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyhead.atomic import write_atomically
from polyhead.config import PLACES, StudyConfig, StudySite
from polyhead.config_recipes import settings_under
from polyhead.errors import RunError, StudyError
from polyhead.json_file import read_object
from polyhead.study_file import check_study, parse_toml

__all__ = ["keep_settings", "study_as_begun"]

_SMALLEST = StudyConfig(name="any", site=[StudySite(name="any", manifest=Path("any"))])
_REMEDY = (
    "Put a copy of it in its place, or begin anew with --restart. For a report alone it may be removed: what the study "
    "file leaves blank is then taken for this version's defaults."
)


def keep_settings(path: Path, study: StudyConfig) -> None:
    """Write every setting but for the sites and paths, unless that was done when the run began."""
    if not os.path.lexists(path):
        write_atomically(path, json.dumps(_kept(study), indent=2) + "\n")


def study_as_begun(run: Path, text: str, folder: Path) -> StudyConfig:
    """Parse a run's own copy of its study, with what it leaves blank as it was when the run began.

    Parameters
    ----------
    run
        The run directory. Without ``settings.json`` what is left blank is this version's defaults.
    text
        What ``study.toml`` there holds.
    folder
        What paths in it are relative to.

    Raises
    ------
    StudyError
        If the text is faulty.
    RunError
        If ``settings.json`` is damaged.
    """
    copy, settings = str(run / "study.toml"), run / "settings.json"
    said = parse_toml(text, copy)
    if not os.path.lexists(settings):
        return check_study(said, folder, copy)
    began = _of_this_version(read_object(settings, _REMEDY), _kept(_SMALLEST))
    try:
        return check_study(settings_under(said, began), folder, copy)
    except StudyError as problem:
        check_study(said, folder, copy)
        raise RunError(f"{settings}: is damaged: {str(problem).removeprefix(f'{copy}: ')} {_REMEDY}") from problem


def _kept(study: StudyConfig) -> dict[str, Any]:
    return study.model_dump(mode="json", exclude=dict(PLACES))


def _of_this_version(began: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out settings that this version does not have."""
    return {
        key: _of_this_version(value, known[key]) if isinstance(value, dict) and isinstance(known[key], dict) else value
        for key, value in began.items()
        if key in known
    }
