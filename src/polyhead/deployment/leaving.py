"""What will leave a house, before anything does: for the person who has to agree to it."""

from collections.abc import Iterator
from dataclasses import dataclass

from polyhead.deployment.agreed import Agreed, head_findings, plan_of
from polyhead.federation.start import initial_shared
from polyhead.federation.transfer import narrowed

__all__ = ["Leaving", "heads_that_leave", "what_leaves"]


@dataclass(frozen=True)
class Leaving:
    """What leaves a site in each round of a method: how many tensors, and their bytes; 0 where each trains alone."""

    method: str
    tensors: int
    bytes: int


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
