"""Names of findings: when do two hospitals mean the same thing?

Two columns match if their canonical names are equal. Spelling (case, underscores, hyphens, spaces) never matters; a
short list of aliases adds the synonyms that public data sets use. A study overrides any of it under
``[findings.aliases]``. Sides and near-synonyms stay apart on purpose: "Pleural Effusion Left" is not "Pleural
Effusion", and "Normal" (a class of children's radiographs) is not "No Finding" (a statement of a report).
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Literal

from polyhead.errors import StudyError

__all__ = [
    "Decision",
    "canonical_name",
    "check_aliases",
    "closest",
    "explain_name",
    "finding_and_site",
    "match_findings",
    "name_at_site",
    "shared_findings",
]

Decision = Literal["as written", "spelling", "built-in alias", "study's alias"]

_BUILT_IN = {
    "effusion": "Pleural Effusion",
    "infiltrate": "Infiltration",
    "infiltrates": "Infiltration",
    "pulmonary fibrosis": "Fibrosis",
    "pulmonary edema": "Edema",
    "oedema": "Edema",
    "pulmonary oedema": "Edema",
    "enlarged heart": "Cardiomegaly",
    "pleural thickening": "Pleural Thickening",
    "no findings": "No Finding",
}


def canonical_name(name: str, aliases: Mapping[str, str] | None = None) -> str:
    """Return the name under which `name` is compared between sites.

    Parameters
    ----------
    name
        A finding as a site spells it.
    aliases
        The study's own synonyms, ``{spelling: name to compare under}``. They win over the built-in ones, so
        ``{"Effusion": "Effusion"}`` keeps effusion apart from pleural effusion.

    Examples
    --------
    >>> canonical_name("pleural_effusion") == canonical_name("Effusion")
    True
    >>> canonical_name("Normal") == canonical_name("No Finding")
    False
    """
    plain = _plain(name)
    own = {_plain(spelling): _plain(target) for spelling, target in (aliases or {}).items()}
    # An alias may lead to a name that has an alias itself, of the study's or built in.
    for _ in range(2):
        if own.get(plain) == plain:
            return _titled(plain)
        plain = own.get(plain, plain)
    return _titled(_plain(_BUILT_IN.get(plain, plain)))


def explain_name(name: str, aliases: Mapping[str, str] | None = None) -> tuple[str, Decision]:
    """Return a finding's canonical name, and what led to it.

    ``as written``: it is the name itself; ``spelling``: but for case, underscores, hyphens and spaces; else an alias,
    built in or the study's own. An alias by which a study keeps two names apart counts, too.
    """
    canonical = canonical_name(name, aliases)
    if _plain(name) in map(_plain, aliases or {}):
        return canonical, "study's alias"
    if canonical == name:
        return canonical, "as written"
    return canonical, "spelling" if canonical == _titled(_plain(name)) else "built-in alias"


def check_aliases(findings: Mapping[str, Iterable[str]], aliases: Mapping[str, str]) -> None:
    """Refuse an alias that applies to no site's finding, or two for one: a slip would change what is matched.

    Raises
    ------
    StudyError
        Naming the alias and the nearest findings.
    """
    known = {name for names in findings.values() for name in names}
    seen: set[str] = set()
    for spelling in aliases:
        if _plain(spelling) not in map(_plain, known):
            raise StudyError(f"key 'findings.aliases': no site has a finding {spelling!r}; {closest(spelling, known)}.")
        if _plain(spelling) in seen:
            raise StudyError(f"key 'findings.aliases': {spelling!r} stands twice, in different spelling. Keep one.")
        seen.add(_plain(spelling))


def match_findings(
    findings: Mapping[str, Iterable[str]], aliases: Mapping[str, str] | None = None
) -> dict[str, dict[str, str]]:
    """Line the sites' findings up by canonical name.

    Parameters
    ----------
    findings
        For each site, the findings it annotates, in its own spelling.
    aliases
        As in `canonical_name`.

    Returns
    -------
    dict
        ``{canonical name: {site: the site's own spelling}}``, in alphabetical order of the canonical names.

    Raises
    ------
    StudyError
        If two findings of one site have the same canonical name.
    """
    matched: dict[str, dict[str, str]] = {}
    for site, names in findings.items():
        for name in names:
            spellings = matched.setdefault(canonical_name(name, aliases), {})
            if site in spellings:
                raise StudyError(
                    f"site {site}: findings {spellings[site]!r} and {name!r} both mean "
                    f"{canonical_name(name, aliases)!r}. Leave one out under 'findings' of the site, or keep them "
                    f"apart in the study: [findings.aliases] with {name!r} = {name!r}."
                )
            spellings[site] = name
    return dict(sorted(matched.items()))


def shared_findings(findings: Mapping[str, Iterable[str]], aliases: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the canonical names that every site annotates, in alphabetical order; empty if there are none."""
    matched = match_findings(findings, aliases)
    return tuple(name for name, spellings in matched.items() if len(spellings) == len(findings))


def name_at_site(finding: str, site: str) -> str:
    """Return what a finding is called where those of several sites stand side by side: ``Edema (harbour)``."""
    return f"{finding} ({site})"


def finding_and_site(name: str) -> tuple[str, str] | None:
    """Undo `name_at_site`; None for any other name. It is never in doubt: names of sites have no brackets."""
    found = re.fullmatch(r"(.+) \(([^()]+)\)", name, re.DOTALL)
    return (found[1], found[2]) if found else None


def closest(name: str, known: Iterable[str]) -> str:
    """Return a hint for a name that was not found: the nearest known ones, or all of them if none is near."""
    by_plain = {_plain(one): one for one in sorted(known)}
    near = [by_plain[plain] for plain in difflib.get_close_matches(_plain(name), by_plain, n=3, cutoff=0.6)]
    return f"closest: {', '.join(near)}" if near else f"known: {', '.join(by_plain.values()) or 'none'}"


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", " ", name).strip().casefold()


def _titled(plain: str) -> str:
    return " ".join(word[:1].upper() + word[1:] for word in plain.split(" "))
