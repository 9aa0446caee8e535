"""The methods that can be compared: one loop, with another choice of what is shared and of which findings.

A method is two small functions. To add one, write them and put it into `METHODS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from polyhead.config import Federation, StudyConfig
from polyhead.config import Findings as Settings
from polyhead.errors import StudyError
from polyhead.federation.sharing import NOTHING, Sharing
from polyhead.findings import canonical_name, closest, match_findings, shared_findings

__all__ = ["METHODS", "Method", "check_methods", "choose_methods", "common_names", "lacking"]

Findings = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Method:
    """A way of training.

    Attributes
    ----------
    sharing
        What leaves a site, given the study's federation settings.
    findings
        Given each site's findings and the study's settings of findings, those that the method trains, in the site's own
        spelling and in the order of the head's logits.
    union
        Its head has the findings of all sites, so each must know the others'; those that a site does not annotate it
        calls by their canonical names.
    pooled
        The images of all sites are brought to one place, which privacy forbids; see `polyhead.federation.pool`.
    """

    name: str
    sharing: Callable[[Federation], Sharing]
    findings: Callable[[Findings, Settings], dict[str, tuple[str, ...]]]
    union: bool = False
    pooled: bool = False


def choose_methods(names: Sequence[str], findings: Findings, settings: Settings) -> list[Method]:
    """Look up a study's methods and make sure that each can be run on its sites.

    Raises
    ------
    StudyError
        If a method is unknown, or cannot be run on these sites.
    """
    for name in names:
        if name not in METHODS:
            raise StudyError(f"key 'methods': {name!r} is unknown; {closest(name, METHODS)}.")
        METHODS[name].findings(findings, settings)
    return [METHODS[name] for name in names]


def check_methods(study: StudyConfig) -> None:
    """Refuse settings with which a method of a study cannot be run; whether it is known is for `choose_methods`.

    Raises
    ------
    StudyError
        Naming the key, the method, and what to do.
    """
    aggregation = study.federation.aggregation
    for method in (METHODS[name] for name in study.methods if name in METHODS):
        rows = method.sharing(study.federation).rows
        if rows and aggregation != "mean":
            raise StudyError(
                f"key 'federation.aggregation': {aggregation!r} needs every site's value, and {method.name!r} averages "
                "each row of the head over the sites that annotate its finding, often one or two. Set aggregation = "
                "'mean', or leave the method out."
            )
        if study.privacy.noise and (rows or method.pooled):
            why = (
                "for which all images leave their sites"
                if method.pooled
                else "for which a site says of which findings it has annotated images"
            )
            raise StudyError(
                f"key 'privacy.noise': does not go with {method.name!r}, {why}: no noise covers that. Set noise = 0, "
                "or leave the method out."
            )


def common_names(settings: Settings) -> tuple[str, ...] | None:
    """Return the canonical names of the findings of a shared head, in the order of its logits; None if left blank.

    Raises
    ------
    StudyError
        If two of them mean the same.
    """
    if settings.common is None:
        return None
    seen: dict[str, str] = {}
    for name in settings.common:
        canonical = canonical_name(name, settings.aliases)
        if canonical in seen:
            raise StudyError(
                f"key 'findings.common': {seen[canonical]!r} and {name!r} both mean {canonical!r}. Keep one."
            )
        seen[canonical] = name
    return tuple(sorted(seen))


def lacking(names: Sequence[str], settings: Settings) -> tuple[str, ...]:
    """Return the canonical names of the study's common findings that a site with these findings does not annotate."""
    have = {canonical_name(name, settings.aliases) for name in names}
    return tuple(name for name in common_names(settings) or () if name not in have)


def _own_findings(findings: Findings, settings: Settings) -> dict[str, tuple[str, ...]]:
    """Every site keeps all of its own findings."""
    aliases = settings.aliases
    match_findings(findings, aliases)
    return {site: tuple(sorted(names, key=lambda n: canonical_name(n, aliases))) for site, names in findings.items()}


def _common_findings(findings: Findings, settings: Settings) -> dict[str, tuple[str, ...]]:
    """Only the findings that the study names, or else that every site annotates, under one canonical name."""
    matched = match_findings(findings, settings.aliases)
    for site, names in findings.items():
        if missing := lacking(names, settings):
            raise StudyError(
                f"site {site}: does not annotate {missing[0]!r}, which the study names under key 'findings.common'; "
                f"{closest(missing[0], names)}. Match names under [findings.aliases], or take it out of the key."
            )
    common = common_names(settings) or shared_findings(findings, settings.aliases)
    if not common:
        have = "; ".join(f"{site}: {', '.join(names)}" for site, names in findings.items())
        raise StudyError(
            "method 'conventional' needs a finding that all sites annotate, and there is none. "
            f"Leave the method out, or match names under [findings.aliases]. {have}."
        )
    return {site: tuple(matched[name][site] for name in common) for site in findings}


def _all_findings(findings: Findings, settings: Settings) -> dict[str, tuple[str, ...]]:
    """The findings of all sites, each under the site's own name or else the canonical one."""
    matched = match_findings(findings, settings.aliases)
    for site, names in findings.items():
        for canonical, spellings in matched.items():
            if site not in spellings and canonical in names:
                meant = canonical_name(canonical, settings.aliases)
                raise StudyError(
                    f"site {site}: its finding {canonical!r} means {meant!r}, and what another site calls "
                    f"{next(iter(spellings.values()))!r} means {canonical!r}; in a head of all findings the two could "
                    "not be told apart. Give one of them another name under [findings.aliases]."
                )
    return {site: tuple(spellings.get(site, name) for name, spellings in matched.items()) for site in findings}


def _share_nothing(federation: Federation) -> Sharing:
    return NOTHING


def _share_all(federation: Federation) -> Sharing:
    return Sharing(backbone=True, batch_norm=federation.batch_norm == "shared", head=True)


def _share_by_row(federation: Federation) -> Sharing:
    return replace(_share_all(federation), rows=True)


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
        # Surgical aggregation (Kulkarni et al., ML4H 2024): one head for all findings, each row averaged over the sites
        # that annotate its finding.
        Method("surgical", _share_by_row, _all_findings, union=True),
        # Federated averaging of a network with one head for all findings, blanks masked in the loss.
        Method("masked", _share_all, _all_findings, union=True),
        # The bound that privacy forbids: all images in one place.
        Method("central", _share_nothing, _all_findings, union=True, pooled=True),
    )
}
"""All methods by name."""
