"""Findings that mean the same at several sites, how that was decided, and names that only look alike."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from polyhead.findings import Decision, canonical_name, explain_name, match_findings

__all__ = ["Match", "Matches", "NearMiss", "Spelling", "find_matches"]

# Lower, and "Pneumonia" resembles "Pneumothorax".
_ALIKE = 0.8


@dataclass(frozen=True)
class Spelling:
    """A finding as a site spells it, and what led from there to its canonical name."""

    name: str
    decided_by: Decision


@dataclass(frozen=True)
class Match:
    """A canonical name, with the spelling of each site that annotates it; of one site only if none matches."""

    canonical: str
    spellings: Mapping[str, Spelling]


@dataclass(frozen=True)
class NearMiss:
    """Two findings of two sites that look alike but count as different."""

    site: str
    finding: str
    other_site: str
    other_finding: str


@dataclass(frozen=True)
class Matches:
    """All canonical names in alphabetical order, and the near misses."""

    matches: tuple[Match, ...]
    near_misses: tuple[NearMiss, ...]


def find_matches(findings: Mapping[str, Sequence[str]], aliases: Mapping[str, str]) -> Matches:
    """Line the sites' findings up by name.

    Raises
    ------
    StudyError
        As from `polyhead.findings.match_findings`.
    """
    matched = match_findings(findings, aliases)
    matches = tuple(
        Match(canonical, {site: Spelling(name, explain_name(name, aliases)[1]) for site, name in spellings.items()})
        for canonical, spellings in matched.items()
    )
    return Matches(matches, tuple(_near_misses(findings, matched, aliases)))


def _near_misses(
    findings: Mapping[str, Sequence[str]], matched: Mapping[str, Mapping[str, str]], aliases: Mapping[str, str]
) -> list[NearMiss]:
    """Compare the names of each two sites that have no partner at the other."""
    found = []
    for site, other in combinations(findings, 2):
        alone = [name for name in findings[site] if other not in matched[canonical_name(name, aliases)]]
        other_alone = [name for name in findings[other] if site not in matched[canonical_name(name, aliases)]]
        found += [
            NearMiss(site, name, other, other_name)
            for name, other_name in product(alone, other_alone)
            if _alike(canonical_name(name, aliases), canonical_name(other_name, aliases))
        ]
    return found


def _alike(name: str, other: str) -> bool:
    """Say whether a person may mean the same by both: similar letters, or the words of one are among the other's."""
    name, other = name.casefold(), other.casefold()
    words, others = set(name.split()), set(other.split())
    return words <= others or others <= words or difflib.SequenceMatcher(None, name, other).ratio() >= _ALIKE
