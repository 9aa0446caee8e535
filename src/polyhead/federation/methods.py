"""The methods that can be compared: one loop, with another choice of what is shared and of which findings.

A method is two small functions, and a few more where it needs them. To add one, write them and put it into `METHODS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from polyhead.config import Federation, Privacy, StudyConfig, Training
from polyhead.config import Findings as Settings
from polyhead.errors import StudyError
from polyhead.federation.server_rule import ServerRule
from polyhead.federation.sharing import NOTHING, Sharing
from polyhead.federation.site import Plan
from polyhead.findings import canonical_name, closest, match_findings, shared_findings
from polyhead.training.backbone import build_backbone
from polyhead.training.model import batch_norm_names

__all__ = ["METHODS", "Method", "choose_methods", "common_names", "lacking", "plan_for", "refuse_settings"]

Findings = Mapping[str, Sequence[str]]


def _no_pull(federation: Federation) -> float:
    return 0.0


def _no_rule(federation: Federation) -> None:
    return None


def _nothing_wrong(study: StudyConfig) -> str:
    return ""


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
    proximal, rule
        The pull on what is shared, and what the server makes of a mean; see `polyhead.federation.site.Plan`.
    fault
        Says why the method would not be what its name says under a study's settings, and what to do; blank if it is.
    union
        Its head has the findings of all sites, so each must know the others'; those that a site does not annotate it
        calls by their canonical names.
    pooled
        The images of all sites are brought to one place, which privacy forbids; see `polyhead.federation.pool`.
    """

    name: str
    sharing: Callable[[Federation], Sharing]
    findings: Callable[[Findings, Settings], dict[str, tuple[str, ...]]]
    proximal: Callable[[Federation], float] = _no_pull
    rule: Callable[[Federation], ServerRule | None] = _no_rule
    fault: Callable[[StudyConfig], str] = _nothing_wrong
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


def plan_for(method: Method, seed: int, federation: Federation, training: Training, privacy: Privacy) -> Plan:
    """Return what server and sites do under a method with a seed; the same in one process and between houses."""
    sharing, proximal, rule = method.sharing(federation), method.proximal(federation), method.rule(federation)
    return Plan(seed, federation, training, sharing, privacy, proximal, rule)


def refuse_settings(names: Sequence[str], study: StudyConfig) -> None:
    """Refuse settings of a study under which one of some methods would carry a wrong name.

    Raises
    ------
    StudyError
        Naming the method and the key; or if a backbone has to be built for it, and there is no such backbone.
    """
    for name in names:
        if name in METHODS and (fault := METHODS[name].fault(study)):
            raise StudyError(f"method {name!r}: {fault}")


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


def _share_without_batch_norm(federation: Federation) -> Sharing:
    return replace(_share_backbone(federation), batch_norm=False)


def _share_under_a_fixed_head(federation: Federation) -> Sharing:
    return replace(_share_backbone(federation), fixed_head=True)


def _pull(federation: Federation) -> float:
    return federation.proximal


def _momentum(federation: Federation) -> ServerRule:
    return ServerRule("momentum", federation.server_learning_rate, federation.server_momentum)


def _adam(federation: Federation) -> ServerRule:
    rate, epsilon = federation.server_adam_learning_rate, federation.server_adam_epsilon
    return ServerRule("adam", rate, federation.server_momentum, epsilon)


def _the_same_as_ffl(study: StudyConfig) -> str:
    if study.federation.batch_norm == "private" and "ffl" in study.methods:
        return (
            "is 'ffl' under batch_norm = 'private', which the study sets: the two would be one training, done twice. "
            "Leave one out, or set batch_norm = 'shared' under [federation]."
        )
    if batch_norm_names(build_backbone(study.model, seed=0)):
        return ""
    found = "norm = 'group' under [model] replaces them" if study.model.norm == "group" else study.model.backbone
    return (
        f"keeps BatchNorm layers at the sites, and the backbone has none ({found}): it would be 'ffl'. Leave the "
        "method out, set norm = 'batch', or choose a backbone with BatchNorm."
    )


def _no_way_to_pull(study: StudyConfig) -> str:
    if study.federation.local_steps > 1:
        return ""
    return (
        "pulls back what has moved since a round began, and with key 'federation.local_steps' at 1 a round's only step "
        "is taken from there: it would be 'ffl'. Set local_steps to 2 or more, or leave the method out."
    )


def _never_trained_head(study: StudyConfig) -> str:
    if study.federation.finetune != "none":
        return ""
    return (
        "trains no head in its rounds, and key 'federation.finetune' is 'none', so no head would ever be trained. Set "
        "finetune = 'head' or 'full', which every method of the study then gets; or leave the method out."
    )


def _rows_of_few(study: StudyConfig) -> str:
    if study.federation.aggregation != "mean":
        return (
            "averages each row of the head over the sites that annotate its finding, often one or two, and key "
            f"'federation.aggregation' is {study.federation.aggregation!r}, which needs every site's value. Set "
            "aggregation = 'mean', or leave the method out."
        )
    return _beside_noise(study, "a site says of which findings it has annotated images")


def _all_images_leave(study: StudyConfig) -> str:
    return _beside_noise(study, "all images leave their sites")


def _beside_noise(study: StudyConfig, what: str) -> str:
    if not study.privacy.noise:
        return ""
    return (
        f"does not go with key 'privacy.noise': {what}, which no noise covers. Set noise = 0, or leave the method out."
    )


METHODS = {
    method.name: method
    for method in (
        # Each site alone, in the same loop, from the same initial weights, for the same number of steps.
        Method("local", _share_nothing, _own_findings),
        # Federated averaging of the whole network (McMahan et al., 2017) on the matching findings.
        Method("conventional", _share_all, _common_findings),
        # Flexible federated learning (Tayebi Arasteh et al., Sci Rep 13:6046, 2023).
        Method("ffl", _share_backbone, _own_findings),
        # Its BatchNorm layers stay private (Li et al., ICLR 2021).
        Method("fedbn", _share_without_batch_norm, _own_findings, fault=_the_same_as_ffl),
        # Pulled back to where the round began (Li et al., MLSys 2020).
        Method("fedprox", _share_backbone, _own_findings, proximal=_pull, fault=_no_way_to_pull),
        # One random head for all while the backbone trains, each site's own in the end (Oh et al., ICLR 2022).
        Method("fedbabu", _share_under_a_fixed_head, _own_findings, fault=_never_trained_head),
        # The server goes on with momentum (Hsu et al., 2019), or with Adam (Reddi et al., ICLR 2021).
        Method("fedavgm", _share_backbone, _own_findings, rule=_momentum),
        Method("fedadam", _share_backbone, _own_findings, rule=_adam),
        # Surgical aggregation (Kulkarni et al., ML4H 2024): one head for all findings, each row averaged over the sites
        # that annotate its finding.
        Method("surgical", _share_by_row, _all_findings, fault=_rows_of_few, union=True),
        # Federated averaging of a network with one head for all findings, blanks masked in the loss.
        Method("masked", _share_all, _all_findings, union=True),
        # The bound that privacy forbids: all images in one place.
        Method("central", _share_nothing, _all_findings, fault=_all_images_leave, union=True, pooled=True),
    )
}
"""All methods by name."""
