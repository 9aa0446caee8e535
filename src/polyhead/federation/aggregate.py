"""The weighted mean of the sites' updates.

Equal weights let every hospital count the same, so a small one is heard; weights by examples make the mean that of
all images, so a large hospital decides, and the number of its training images becomes known to the server.

The mean is taken as updates arrive: one running sum in float64, whatever the number of sites.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from polyhead.errors import UpdateError

__all__ = ["SiteUpdate", "check_update", "weighted_mean"]


@dataclass(frozen=True)
class SiteUpdate:
    """What a site sends after a round; this and nothing else.

    Attributes
    ----------
    site, round
        Whose update of which round (from 0).
    examples
        Number of the site's training images.
    loss
        Mean training loss of the round.
    state
        The shared entries of the site's model after local training.
    """

    site: str
    round: int
    examples: int
    loss: float
    state: dict[str, torch.Tensor]


def weighted_mean(
    updates: Iterable[SiteUpdate],
    current: Mapping[str, torch.Tensor],
    weighting: Literal["equal", "examples"],
    sums: dict[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Average updates entry by entry.

    Parameters
    ----------
    updates
        Consumed one by one; each is held only while it is added. Sorted by site, the result does not depend on the
        order in which sites are named.
    current
        The shared entries that the sites started from: the names, shapes and types an update must have.
    weighting
        ``equal`` or ``examples``.
    sums
        Where to add up: empty, or from an earlier round and written over. To be handed fresh memory by the system takes
        as long as the adding.

    Returns
    -------
    dict
        The mean, in the types of `current`; integers (BatchNorm's counters) are rounded. `current` itself, copied, if
        there was no update.

    Raises
    ------
    UpdateError
        If an update does not fit or is not finite; site and entry are named.
    """
    sums = {} if sums is None else sums
    total = 0
    for update in updates:
        check_update(update, current)
        weight = 1 if weighting == "equal" else update.examples
        for name, tensor in update.state.items():
            if total:
                sums[name].add_(tensor, alpha=weight)
            else:
                sums[name] = _begin(sums.get(name), tensor, weight)
        total += weight
    if not total:
        return {name: tensor.clone() for name, tensor in current.items()}
    return {name: _divide(sums[name], total, tensor.dtype) for name, tensor in current.items()}


def check_update(update: SiteUpdate, current: Mapping[str, torch.Tensor]) -> None:
    """Refuse an update that cannot be averaged.

    Raises
    ------
    UpdateError
        Naming the site and what is wrong: other entries, shapes or types than `current`, a value that is not finite,
        or a number of examples that is not positive.
    """
    where = f"site {update.site}, round {update.round}"
    unexpected = sorted(set(update.state) ^ set(current))
    if unexpected:
        kind = "missing" if unexpected[0] in current else "not to be shared"
        raise UpdateError(f"{where}: {len(unexpected)} entries differ from the shared ones; {unexpected[0]} is {kind}.")
    if update.examples < 1:
        raise UpdateError(f"{where}: {update.examples} examples. At least 1 is needed to count.")
    if not math.isfinite(update.loss):
        raise UpdateError(f"{where}: the loss is {update.loss}. Lower the learning rate, or check the images.")
    for name, tensor in update.state.items():
        wanted = current[name]
        if tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
            raise UpdateError(
                f"{where}: {name} is {tensor.dtype} {tuple(tensor.shape)} instead of "
                f"{wanted.dtype} {tuple(wanted.shape)}. Site and server must run the same study."
            )
        # A sum is finite only if every summand is, and is several times cheaper than asking each. Sums that overflow
        # (1e38) have no place among weights either.
        if tensor.is_floating_point() and not math.isfinite(tensor.sum().item()):
            raise UpdateError(f"{where}: {name} holds a value that is not finite. Lower the learning rate.")


def _begin(into: torch.Tensor | None, tensor: torch.Tensor, weight: int) -> torch.Tensor:
    first = tensor.to(torch.float64, copy=True) if into is None else into.copy_(tensor)
    return first if weight == 1 else first.mul_(weight)


def _divide(total: torch.Tensor, by: int, dtype: torch.dtype) -> torch.Tensor:
    """Divide in float64 and round once, to `dtype`; in one pass over the memory where the type allows it."""
    if dtype.is_floating_point:
        return torch.div(total, by, out=torch.empty_like(total, dtype=dtype))
    return (total / by).round().to(dtype)
