"""What a server asks of one site, and what a site answers, when the two are in houses of their own."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from polyhead.deployment.release import Release
from polyhead.federation.update import SiteUpdate

__all__ = ["FINISHED", "IDLE", "READY", "UNFINISHED", "WORDS", "Content", "Question", "Reply"]

READY, IDLE, FINISHED, UNFINISHED = "ready", "no training images", "finished", "not finished"

WORDS = {"join": (READY, IDLE), "round": (), "finish": (FINISHED,), "evaluate": (UNFINISHED,)}
"""What a site can be asked, and what it may answer in a word."""

Content = SiteUpdate | Release | str
"""An update, results, or one of `WORDS`."""


@dataclass(frozen=True)
class Question:
    """What a server asks of one site.

    Attributes
    ----------
    agreement
        Hash of the server's agreement.
    method, seed
        Of the study; blank and 0 where it is about all of them.
    round
        Number of the round, from 0; to finish, after how many rounds.
    own
        After how many rounds the site's own state counts; 0 is the one that it begins with.
    kept
        Which of its states may still be asked for.
    shared
        The shared entries.
    kind
        ``join``: does the site take part in rounds? ``round``; ``finish``: make the model and its predictions, which
        stay; ``evaluate``: measure all of them, and send what may leave.
    """

    agreement: str
    method: str
    seed: int
    round: int
    own: int
    kept: tuple[int, ...]
    shared: Mapping[str, torch.Tensor]
    kind: str = "round"


@dataclass(frozen=True)
class Reply:
    """What came of asking a site.

    Attributes
    ----------
    seconds
        Until it answered, or was given up.
    content
        None if no answer came.
    failure
        If none came: cause and remedy, without a value of its data.
    silent
        Whether all its time was waited for nothing.
    """

    site: str
    seconds: float
    content: Content | None = None
    failure: str = ""
    silent: bool = False
