"""What a check of tables and images finds, for a person and for a machine."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Problem", "Severity"]

Severity = Literal["error", "warning", "note"]


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
