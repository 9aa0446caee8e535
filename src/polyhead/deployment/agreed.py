"""What the hospitals of a federation agreed on: the study without anything that is a hospital's own.

Server and sites each hold the same file. Whose file differs is told before any training, by its hash. Initial weights
are a file beside it, of which it holds the hash.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyhead.config import PLACES, Federation, Findings, Model, Privacy, StudyConfig, Training
from polyhead.deployment.weights import WEIGHTS, Weights, check_weights, hash_of_weights
from polyhead.errors import StudyError
from polyhead.federation.methods import METHODS, common_names, plan_for, refuse_settings
from polyhead.federation.site import Plan
from polyhead.federation.start import check_model
from polyhead.findings import closest
from polyhead.limited_file import read_limited
from polyhead.study_file import check_study

__all__ = [
    "Agreed",
    "agreed_settings",
    "agreement_of",
    "head_findings",
    "model_of",
    "plan_of",
    "read_agreement",
    "study_at",
]

_MOST_BYTES = 2**20
_HEADS_STAY = "between houses every head stays in its own; none is handed out. Take the key out."
# Paths, and what is read from them, are each house's own; a recipe is agreed on as what it sets.
_LEFT_OUT: dict[str, Any] = {**PLACES, "recipe": True}


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
    weights
        The initial weights; None where training begins at random.
    """

    settings: Mapping[str, Any]
    sites: tuple[str, ...]
    sha256: str
    weights: Weights | None = None

    @property
    def federation(self) -> Federation:
        """Its rules of averaging."""
        return Federation.model_validate(self.settings["federation"])

    @property
    def model(self) -> Model:
        """Its network, without initial weights; with them: `model_of`."""
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
        If the study asks for what hospitals in houses of their own cannot do.
    WeightsError
        If its initial weights cannot be read, or are not of its backbone.
    """
    if (study.federation.min_sites or 1) > len(study.site):
        raise StudyError(
            f"key 'federation.min_sites': found {study.federation.min_sites}, but there are {len(study.site)} sites."
        )
    for fault in _faults(study):
        raise StudyError(f"{fault} `polyhead run` can do it, where all data are in one place.")
    refuse_settings(study.methods, study)
    if study.model.weights:
        check_model(study.model)
    content = {
        "settings": agreed_settings(study),
        "sites": sorted(site.name for site in study.site),
        "weights": study.model.weights and hash_of_weights(study.model.weights),
    }
    return json.dumps(content, sort_keys=True)


def agreed_settings(study: StudyConfig) -> dict[str, Any]:
    """Return a study's settings without what is each house's own, as JSON has them."""
    return study.model_dump(mode="json", exclude=_LEFT_OUT)


def _faults(study: StudyConfig) -> Iterator[str]:
    for method in study.methods:
        if method not in METHODS:
            raise StudyError(f"key 'methods': {method!r} is unknown; {closest(method, METHODS)}.")
        if METHODS[method].union:
            yield _between_houses(method)
        elif METHODS[method].sharing(study.federation).head and common_names(study.findings) is None:
            yield (
                f"key 'findings.common': is blank, and {method!r} shares a head, on whose findings all hospitals must "
                "agree: none sees which the others annotate. Name there those that all of them have, or leave the "
                "method out."
            )
    if any(site.release_head for site in study.site):
        yield f"key 'site.release_head': {_HEADS_STAY}"
    if study.federation.validate_every and study.federation.select == "last":
        yield (
            "key 'federation.validate_every': with select = 'last' nobody would read what hospitals measure between "
            "rounds, since it stays with them. Set validate_every = 0, or select = 'best'."
        )


def _between_houses(method: str) -> str:
    """Say why a method whose head has all sites' findings is none for hospitals in houses of their own."""
    what = "pools their images" if METHODS[method].pooled else "trains one head for the findings of all"
    return (
        f"key 'methods': {method!r} {what}, and hospitals in houses of their own see neither each other's images nor "
        "findings. Choose 'ffl', or 'conventional' with findings.common, instead."
    )


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
        wanted = content.get("weights")
        weights = None if wanted is None else Weights(path.absolute().with_name(WEIGHTS), str(wanted))
        sites = tuple(map(str, content["sites"]))
        return Agreed(dict(content["settings"]), sites, hashlib.sha256(raw).hexdigest(), weights)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
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
        If a setting is unknown or wrong, or asks for its head to leave; or the site is none of the agreement's.
    RunError
        As `model_of`.
    """
    if site not in agreed.sites:
        raise StudyError(f"site {site!r}: the study's sites are {', '.join(agreed.sites)}. Use the kit of one of them.")
    about = {key: value for key, value in own.items() if key not in ("cache", "release", "privacy")}
    paths = {"cache": own["cache"]} if "cache" in own else {}
    network = model_of(agreed).model_dump(mode="json")
    settings = {**agreed.settings, **paths, "model": network, "site": [{**about, "name": site}]}
    study = check_study(settings, folder, source)
    if study.site[0].release_head:
        raise StudyError(f"{source}: key 'release_head': {_HEADS_STAY}")
    return study


def model_of(agreed: Agreed) -> Model:
    """Return an agreement's network with its initial weights, which are looked at first.

    Raises
    ------
    RunError
        If they are missing, or not those that were agreed on.
    """
    if agreed.weights is None:
        return agreed.model
    check_weights(agreed.weights)
    return agreed.model.model_copy(update={"weights": agreed.weights.file})


def plan_of(agreed: Agreed, method: str, seed: int) -> Plan:
    """Return what a method of the study does, with one of its seeds.

    Raises
    ------
    StudyError
        If the study has no such method or seed, or the method is none for hospitals in houses of their own.
    """
    for what, value in (("methods", method), ("seeds", seed)):
        if value not in agreed.settings[what]:
            raise StudyError(f"{what}: {value!r} is not in the study, which has {agreed.settings[what]}.")
    if METHODS[method].union:
        raise StudyError(f"{_between_houses(method)} Make new kits.")
    training = Training.model_validate(agreed.settings["training"])
    return plan_for(METHODS[method], seed, agreed.federation, training, agreed.privacy)


def head_findings(agreed: Agreed, method: str) -> tuple[str, ...]:
    """Return the canonical names of the findings of a method's head as the server makes it, in the order of its logits.

    Of a private head, which the server has no part in, any will do.

    Raises
    ------
    StudyError
        If the head is shared, and the agreement does not name its findings.
    """
    if not METHODS[method].sharing(agreed.federation).head:
        return ("any",)
    names = common_names(Findings.model_validate(agreed.settings["findings"]))
    if names is None:
        raise StudyError(f"method {method!r} shares a head, and the agreement names no findings of it. Make new kits.")
    return names
