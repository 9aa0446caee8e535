"""The two files that people of a deployed federation write: the study of all, and each site's own settings.

In the study of all a ``[[site]]`` needs a name only. A site's own file holds what else it would say there, ``cache``,
and what of its results may leave::

    manifest = "our-hospital/manifest.csv"
    cache = "/scratch/polyhead"

    [release]
    metrics = "auroc"
    least = 10
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyhead.config import StudyConfig
from polyhead.deployment.agreed import Agreed, agreed_settings
from polyhead.deployment.weights import hash_of_weights
from polyhead.errors import StudyError
from polyhead.study_file import changed_settings, check_study
from polyhead.toml_file import read_toml

__all__ = ["differences", "own_text", "read_common_study"]

# What is a path in a site's own file.
_PATHS = ("manifest", "cache")


def read_common_study(file: Path) -> StudyConfig:
    """Read the study of all; where a site has no manifest, one is made up, which no agreement holds.

    Raises
    ------
    StudyError
        If it is none.
    """
    settings = read_toml(file, StudyError)
    sites = settings.get("site")
    if isinstance(sites, list):
        # The file of a simulation serves too.
        settings["site"] = [{"manifest": "-", **one} if isinstance(one, dict) else one for one in sites]
    return check_study(settings, file.parent, str(file))


def differences(agreed: Agreed, study: StudyConfig) -> list[str]:
    """Say in which settings a study differs from an agreement, as `polyhead.study_file.changed_settings` does."""
    of_all = [{"name": name, "manifest": "-"} for name in agreed.sites]
    old = check_study({**agreed.settings, "site": of_all}, Path(), "the kit's agreement")
    names = [{"name": site.name, "manifest": "-"} for site in study.site]
    changed = changed_settings(old, check_study({**agreed_settings(study), "site": names}, Path(), "the study"))
    was = agreed.weights.sha256[:12] if agreed.weights else "not set"
    is_ = hash_of_weights(study.model.weights)[:12] if study.model.weights else "not set"
    return sorted([*changed, *([f"model.weights: was {was}, is {is_}"] if was != is_ else [])])


def own_text(settings: Mapping[str, Any], folder: Path) -> str:
    """Return a site's own settings as TOML, with paths, relative to `folder`, made absolute."""
    tables = {key: value for key, value in settings.items() if isinstance(value, dict)}
    lines = [
        f"{key} = {_shown(str(folder.absolute() / value) if key in _PATHS else value)}"
        for key, value in settings.items()
        if key not in tables
    ]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{_shown(key)} = {_shown(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    # JSON is TOML too, but for the one character that only TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
