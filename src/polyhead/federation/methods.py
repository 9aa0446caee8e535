"""The methods that can be compared: one loop, with another choice of what is shared and of which findings.

A method is two small functions. To add one, write them and put it into `METHODS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from polyhead.config import Federation
from polyhead.errors import StudyError
from polyhead.federation.sharing import NOTHING, Sharing
from polyhead.findings import canonical_name, closest, match_findings, shared_findings

__all__ = ["METHODS", "Method", "choose_methods"]

Findings = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Method:
    """A way of training.

    Attributes
    ----------
    sharing
        What leaves a site, given the study's federation settings.
    findings
        Given each site's findings and the study's aliases, those that the method trains, in the site's own spelling
        and in the order of the head's logits.
    """

    name: str
    sharing: Callable[[Federation], Sharing]
    findings: Callable[[Findings, Mapping[str, str]], dict[str, tuple[str, ...]]]


def choose_methods(names: Sequence[str], findings: Findings, aliases: Mapping[str, str]) -> list[Method]:
    """Look up a study's methods and make sure that each can be run on its sites.

    Raises
    ------
    StudyError
        If a method is unknown, or cannot be run on these sites.
    """
    for name in names:
        if name not in METHODS:
            raise StudyError(f"key 'methods': {name!r} is unknown; {closest(name, METHODS)}.")
        METHODS[name].findings(findings, aliases)
    return [METHODS[name] for name in names]


def _own_findings(findings: Findings, aliases: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Every site keeps all of its own findings."""
    match_findings(findings, aliases)
    return {site: tuple(sorted(names, key=lambda n: canonical_name(n, aliases))) for site, names in findings.items()}


def _common_findings(findings: Findings, aliases: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Only the findings that every site annotates under one canonical name."""
    common = shared_findings(findings, aliases)
    if not common:
        have = "; ".join(f"{site}: {', '.join(names)}" for site, names in findings.items())
        raise StudyError(
            "method 'conventional' needs a finding that all sites annotate, and there is none. "
            f"Leave the method out, or match names under [findings.aliases]. {have}."
        )
    matched = match_findings(findings, aliases)
    return {site: tuple(matched[name][site] for name in common) for site in findings}


def _share_nothing(federation: Federation) -> Sharing:
    return NOTHING


def _share_all(federation: Federation) -> Sharing:
    return Sharing(backbone=True, batch_norm=federation.batch_norm == "shared", head=True)


def _share_backbone(federation: Federation) -> Sharing:
    return Sharing(backbone=True, batch_norm=federation.batch_norm == "shared", head=False)


METHODS = {
    method.name: method
    for method in (
        # Each site alone, in the same loop, from the same initial weights, for the same number of steps.
        Method("local", _share_nothing, _own_findings),
        # Federated averaging of the whole network (McMahan et al., 2017) on the matching findings.
        Method("conventional", _share_all, _common_findings),
        # Flexible federated learning (Tayebi Arasteh et al., Sci Rep 13:6046, 2023).
        Method("ffl", _share_backbone, _own_findings),
    )
}
"""All methods by name."""
