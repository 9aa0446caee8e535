"""Updates that lie far from the rest.

A site whose training broke down, or that means harm, sends an update far from the backbone that all started from. How
far is too far depends on model, learning rate and round; the sites themselves say it: most of them train in earnest, so
the median of their distances is the scale of the round.

Of one or two updates none can be told to be the odd one, so nobody is.
"""

import math
import statistics
from collections.abc import Mapping

import torch

from polyhead.federation.flat import flatten
from polyhead.federation.update import SiteUpdate, refused, shown

__all__ = ["distance", "finite_distance", "too_far"]

# Values that are looked at together: they, and their squares in float64, stay in the processor's cache.
_PIECE = 2**16


def distance(state: Mapping[str, torch.Tensor], current: Mapping[str, torch.Tensor]) -> float:
    """Return the Euclidean distance of two states over all floating entries, BatchNorm's statistics included.

    Parameters
    ----------
    state, current
        With the same names, shapes and types; integers (BatchNorm's counters) are left out. Differences are taken in
        the type of the entries, at least float32, and squares added up in float64.

    Returns
    -------
    float
        At least 0; not finite if an entry is not, or if the distance overflows. Rounded to nine digits, so that how
        tensors lie in memory decides nothing.
    """
    squares = sum(_squares(state[name], current[name]) for name in sorted(current) if current[name].is_floating_point())
    return float(f"{math.sqrt(squares):.9g}")


def finite_distance(update: SiteUpdate, current: Mapping[str, torch.Tensor]) -> float:
    """Return the distance of an update, else checked, from the backbone it started from.

    One pass over the values measures it and tells whether all are finite.

    Raises
    ------
    UpdateError
        Naming the site and the entry that is not finite; or that the distance is not.
    """
    found = distance(update.state, current)
    if math.isfinite(found):
        return found
    for name, tensor in sorted(update.state.items()):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise refused(update, f"{shown(name)} holds a value that is not finite. Lower the learning rate.")
    raise refused(update, "too far: the distance from the current backbone is not finite. Lower the learning rate.")


def too_far(distances: Mapping[str, float], factor: float) -> dict[str, float]:
    """Find the updates that lie too far from the current backbone.

    Parameters
    ----------
    distances
        Each site's finite distance, of the updates of one round that are otherwise sound.
    factor
        The largest distance allowed, in medians of `distances`; above 1.

    Returns
    -------
    dict
        For each site beyond it, its distance in medians. Empty for two sites or fewer, and if the median is 0: most did
        not move, which gives no scale.
    """
    if len(distances) <= 2:
        return {}
    median = statistics.median(distances.values())
    if median == 0:
        return {}
    return {site: found / median for site, found in distances.items() if found > factor * median}


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
