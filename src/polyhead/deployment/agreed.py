"""What the hospitals of a federation agreed on: the study without anything that is a hospital's own.

Server and sites each hold the same file. Whose file differs is told before any training, by its hash.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyhead.config import Federation, Model, Privacy, StudyConfig, Training
from polyhead.errors import StudyError
from polyhead.federation.methods import METHODS
from polyhead.federation.site import Plan
from polyhead.findings import closest
from polyhead.limited_file import read_limited
from polyhead.study_file import check_study

__all__ = ["Agreed", "agreement_of", "plan_of", "read_agreement", "study_at"]

_MOST_BYTES = 2**20
# Paths, and what is read from them, are each house's own.
_OWN: dict[str, Any] = {"site": True, "cache": True, "model": {"weights"}}


@dataclass(frozen=True)
class Agreed:
    """An agreement.

    Attributes
    ----------
    settings
        The study's, without sites and paths.
    sites
        Names of all sites, sorted.
    sha256
        Hash of the file.
    """

    settings: Mapping[str, Any]
    sites: tuple[str, ...]
    sha256: str

    @property
    def federation(self) -> Federation:
        """Its rules of averaging."""
        return Federation.model_validate(self.settings["federation"])

    @property
    def model(self) -> Model:
        """Its network."""
        return Model.model_validate(self.settings["model"])

    @property
    def privacy(self) -> Privacy:
        """Its noise."""
        return Privacy.model_validate(self.settings.get("privacy", {}))


def agreement_of(study: StudyConfig) -> str:
    """Return the file that all hospitals of a study hold; the same text for the same settings.

    Raises
    ------
    StudyError
        If the study asks for what hospitals in houses of their own cannot do yet.
    """
    if (study.federation.min_sites or 1) > len(study.site):
        raise StudyError(
            f"key 'federation.min_sites': found {study.federation.min_sites}, but there are {len(study.site)} sites."
        )
    for fault in _faults(study):
        raise StudyError(f"{fault} `polyhead run` can do it, where all data are in one place.")
    settings = study.model_dump(mode="json", exclude=_OWN)
    return json.dumps({"settings": settings, "sites": sorted(site.name for site in study.site)}, sort_keys=True)


def _faults(study: StudyConfig) -> Iterator[str]:
    for method in study.methods:
        if method not in METHODS:
            raise StudyError(f"key 'methods': {method!r} is unknown; {closest(method, METHODS)}.")
        if METHODS[method].sharing(study.federation).head:
            yield (
                f"key 'methods': {method!r} shares heads, for which all hospitals would have to agree on their "
                "findings, and the agreement does not hold these. Leave the method out."
            )
    if study.federation.validate_every or study.federation.select == "best":
        yield (
            "key 'federation.validate_every': hospitals in houses of their own do not validate between rounds, so none "
            "can choose its best state. Set validate_every = 0 and select = 'last'."
        )
    if study.model.weights:
        yield "key 'model.weights': initial weights are not handed to the server. Begin without them."


def read_agreement(path: Path) -> Agreed:
    """Read an agreement.

    Raises
    ------
    StudyError
        If it is none.
    """
    raw = read_limited(path, StudyError, _MOST_BYTES)
    try:
        content = json.loads(raw)
        return Agreed(dict(content["settings"]), tuple(map(str, content["sites"])), hashlib.sha256(raw).hexdigest())
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise StudyError(f"{path}: is no agreement of hospitals ({problem}). Ask for the kit again.") from problem


def study_at(agreed: Agreed, site: str, own: Mapping[str, Any], folder: Path, source: str) -> StudyConfig:
    """Return the study as one hospital sees it: the agreement, and of all sites its own alone.

    Parameters
    ----------
    own
        Its own settings: those of a ``[[site]]`` but the name; and ``cache``. What it lets out, ``[release]`` and
        ``[privacy]``, is no part of a study.
    folder
        What paths are relative to.
    source
        What errors name.

    Raises
    ------
    StudyError
        If a setting is unknown or wrong, or the site is none of the agreement's.
    """
    if site not in agreed.sites:
        raise StudyError(f"site {site!r}: the study's sites are {', '.join(agreed.sites)}. Use the kit of one of them.")
    about = {key: value for key, value in own.items() if key not in ("cache", "release", "privacy")}
    paths = {"cache": own["cache"]} if "cache" in own else {}
    return check_study({**agreed.settings, **paths, "site": [{**about, "name": site}]}, folder, source)


def plan_of(agreed: Agreed, method: str, seed: int) -> Plan:
    """Return what a method of the study does, with one of its seeds.

    Raises
    ------
    StudyError
        If the study has no such method or seed.
    """
    for what, value in (("methods", method), ("seeds", seed)):
        if value not in agreed.settings[what]:
            raise StudyError(f"{what}: {value!r} is not in the study, which has {agreed.settings[what]}.")
    training = Training.model_validate(agreed.settings["training"])
    return Plan(seed, agreed.federation, training, METHODS[method].sharing(agreed.federation), agreed.privacy)
