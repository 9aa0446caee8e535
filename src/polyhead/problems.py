"""What a check of tables and images finds, for a person and for a machine."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

__all__ = ["Problem", "Severity", "first_named"]

Severity = Literal["error", "warning", "note"]

# So many of one kind are named one by one; the rest is a number.
_NAMED = 1000


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a site, or worth knowing.

    Attributes
    ----------
    severity
        ``error``: training must not begin; ``warning``: it may, and something is lost; ``note``: what a policy did.
    kind
        A short fixed name such as ``label`` or ``patient-in-two-splits``; holds nothing of the site's.
    text
        Where (file, line, column), what was found, what is allowed and what to do.
    count
        Number of labels, images or patients concerned.
    """

    severity: Severity
    kind: str
    text: str
    count: int = 1


def first_named(problems: Iterable[Problem], what: str) -> Iterator[Problem]:
    """Yield the first 1,000 problems of one kind, and one that counts all others, of `what`."""
    left = iter(problems)
    yield from islice(left, _NAMED)
    if rest := list(left):
        text = f"and so on, {len(rest):,} {what} more."
        yield Problem(rest[0].severity, rest[0].kind, text, sum(problem.count for problem in rest))
