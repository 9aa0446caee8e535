"""Updates that lie far from the rest.

A site whose training broke down, or that means harm, sends an update far from the backbone that all started from. How
far is too far depends on model, learning rate and round; the sites themselves say it: most of them train in earnest, so
the median of their distances is the scale of the round.

Weights and BatchNorm's statistics are measured apart: the statistics move much further in a round, so that in a common
distance weights could be anything.

Of one or two updates none can be told to be the odd one. In a round that has no more, because others failed, the scale
is that of the last round that had; in a federation of two there is none.
"""

import math
import statistics
from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch

from polyhead.federation.flat import flatten
from polyhead.federation.update import SiteUpdate, is_statistic, refused, shown

__all__ = ["Distance", "distance", "finite_distance", "median_distance", "too_far"]

# Values that are looked at together: they, and their squares in float64, stay in the processor's cache.
_PIECE = 2**16


class Distance(NamedTuple):
    """Euclidean distances of two states; at least 0, rounded to nine digits.

    Attributes
    ----------
    weights
        Over all floating entries but the following.
    statistics
        Over BatchNorm's running means and variances; 0 where none are shared.
    """

    weights: float
    statistics: float


def distance(state: Mapping[str, torch.Tensor], current: Mapping[str, torch.Tensor]) -> Distance:
    """Return how far two states are from each other.

    Parameters
    ----------
    state, current
        With the same names, shapes and types; integers (BatchNorm's counters) are left out. Differences are taken in
        the type of the entries, at least float32, and squares added up in float64.

    Returns
    -------
    Distance
        Not finite if an entry is not, or if it overflows. Rounded, so that how tensors lie in memory decides nothing.
    """
    weights = moments = 0.0
    for name in sorted(current):
        if current[name].is_floating_point():
            squares = _squares(state[name], current[name])
            if is_statistic(name):
                moments += squares
            else:
                weights += squares
    return Distance(_root(weights), _root(moments))


def finite_distance(update: SiteUpdate, current: Mapping[str, torch.Tensor]) -> Distance:
    """Return the distance of an update, else checked, from the backbone it started from.

    One pass over the values measures it and tells whether all are finite.

    Raises
    ------
    UpdateError
        Naming the site and the entry that is not finite; or that the distance is not.
    """
    found = distance(update.state, current)
    if all(map(math.isfinite, found)):
        return found
    for name, tensor in sorted(update.state.items()):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise refused(update, f"{shown(name)} holds a value that is not finite. Lower the learning rate.")
    raise refused(update, "too far: the distance from the current backbone is not finite. Lower the learning rate.")


def median_distance(distances: Collection[Distance]) -> Distance | None:
    """Return the scale of a round: the median of each distance, over its sound updates; None for two or fewer."""
    if len(distances) <= 2:
        return None
    return Distance(*map(statistics.median, zip(*distances, strict=True)))


def too_far(distances: Mapping[str, Distance], scale: Distance | None, factor: float) -> dict[str, float]:
    """Find the updates that lie too far from the current backbone.

    Parameters
    ----------
    distances
        Each site's finite distance, of the updates of one round that are otherwise sound.
    scale
        What a distance usually is; None: nobody is too far. A part of it that is 0 tells nothing: most did not move.
    factor
        The largest distance allowed, in units of `scale`; above 1.

    Returns
    -------
    dict
        For each site beyond it, its distance in units of `scale`: the larger of the two.
    """
    if scale is None:
        return {}
    found = {site: _relative(distance, scale) for site, distance in distances.items()}
    return {site: relative for site, relative in found.items() if relative > factor}


def _relative(distance: Distance, scale: Distance) -> float:
    return max((part / usual for part, usual in zip(distance, scale, strict=True) if usual > 0), default=0.0)


def _root(squares: float) -> float:
    return float(f"{math.sqrt(squares):.9g}")


def _squares(tensor: torch.Tensor, start: torch.Tensor) -> float:
    """Return the sum of squared differences, in pieces: whole tensors would go through memory three times."""
    ends, starts = flatten(tensor, like=tensor), flatten(start, like=tensor)
    dtype = torch.promote_types(start.dtype, torch.float32)
    differences = torch.empty(min(_PIECE, len(ends)), dtype=dtype)
    exact = torch.empty_like(differences, dtype=torch.float64)
    total = 0.0
    for begin in range(0, len(ends), _PIECE):
        piece = ends[begin : begin + _PIECE].to(dtype)
        difference = torch.sub(piece, starts[begin : begin + _PIECE].to(dtype), out=differences[: len(piece)])
        double = exact[: len(piece)].copy_(difference)
        total += torch.dot(double, double).item()
    return total
