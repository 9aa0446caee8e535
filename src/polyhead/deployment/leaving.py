"""What will leave a house, before anything does: for the person who has to agree to it."""

from collections.abc import Iterator
from dataclasses import dataclass

from polyhead.accountant import epsilon_of, most_repeats
from polyhead.config import Training
from polyhead.deployment.agreed import Agreed, head_findings, plan_of
from polyhead.federation.start import initial_shared
from polyhead.federation.transfer import narrowed
from polyhead.privacy_cost import costly, steps_of

__all__ = ["Cost", "Leaving", "heads_that_leave", "what_it_costs", "what_leaves"]


@dataclass(frozen=True)
class Leaving:
    """What leaves a site in each round of a method: how many tensors, and their bytes; 0 where each trains alone."""

    method: str
    tensors: int
    bytes: int


@dataclass(frozen=True)
class Cost:
    """What a whole study as agreed costs a site's patients, over all methods that share and all seeds.

    Attributes
    ----------
    epsilon, delta
        Of all its rounds.
    rounds
        How many these are.
    allowed
        After how many of them the site's own limit is reached; `rounds` if it is not.
    """

    epsilon: float
    delta: float
    rounds: int
    allowed: int


def what_it_costs(agreed: Agreed, patients: int, limit: float | None) -> Cost | None:
    """Return what a study costs a site with so many patients to train on; None if there is no noise to count with.

    Raises
    ------
    StudyError
        If the library that computes it is not installed.
    """
    privacy, federation = agreed.privacy, agreed.federation
    repeats = len(costly(agreed.settings["methods"], federation)) * len(agreed.settings["seeds"])
    if not (privacy.noise and repeats):
        return None
    training = Training.model_validate(agreed.settings["training"])
    one, rounds = steps_of(1, patients, federation, training, privacy), repeats * federation.rounds
    allowed = rounds if limit is None else most_repeats(one, rounds, privacy.delta, limit)
    whole = steps_of(rounds, patients, federation, training, privacy)
    return Cost(epsilon_of([whole], privacy.delta), privacy.delta, rounds, allowed)


def what_leaves(agreed: Agreed) -> Iterator[Leaving]:
    """Say for each method of an agreement what leaves a site in a round, beside images counted and mean loss."""
    for method in agreed.settings["methods"]:
        sharing = plan_of(agreed, method, agreed.settings["seeds"][0]).sharing
        shared = initial_shared(agreed.model, sharing, 0, head_findings(agreed, method))
        tensors = narrowed(shared, agreed.federation.transfer).values()
        yield Leaving(method, len(tensors), sum(one.numel() * one.element_size() for one in tensors))


def heads_that_leave(agreed: Agreed) -> dict[str, tuple[str, ...]]:
    """Return the methods whose head is shared, each with the canonical names of its findings."""
    methods = agreed.settings["methods"]
    shared = [method for method in methods if plan_of(agreed, method, agreed.settings["seeds"][0]).sharing.head]
    return {method: head_findings(agreed, method) for method in shared}
