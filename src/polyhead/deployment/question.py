"""What a server asks of one site, when the two are in houses of their own."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

__all__ = ["Question"]


@dataclass(frozen=True)
class Question:
    """What a server asks of one site.

    Attributes
    ----------
    agreement
        Hash of the server's agreement.
    method, seed
        Of the study.
    round
        Number of the round, from 0.
    own
        After how many rounds the site's own state counts; 0 is the one that it begins with.
    kept
        Which of its states may still be asked for.
    shared
        The shared entries.
    """

    agreement: str
    method: str
    seed: int
    round: int
    own: int
    kept: tuple[int, ...]
    shared: Mapping[str, torch.Tensor]
