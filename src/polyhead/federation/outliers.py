"""Updates that lie far from the rest.

A site whose training broke down, or that means harm, sends an update far from the backbone that all started from. How
far is too far depends on model, learning rate and round; the sites themselves say it: most of them train in earnest, so
the median of their distances is the scale of the round.

Weights and BatchNorm's statistics are measured apart: the statistics move much further in a round, so that in a common
distance weights could be anything. Statistics are measured in standard deviations, since most sites' may have settled
while those of a hospital with other patients always move: one deviation is never too far, whatever is usual.

Of one or two updates none can be told to be the odd one. In a round that has no more, because others failed, the scale
is that of the round before; in a federation of two there is none.
"""

import math
import statistics
from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch

from polyhead.federation.flat import flatten
from polyhead.federation.update import SiteUpdate, refused, shown

__all__ = ["Distance", "distance", "finite_distance", "too_far", "usual_distance"]

# Values that are looked at together: they, and their squares in float64, stay in the processor's cache.
_PIECE = 2**16


class Distance(NamedTuple):
    """How far a state is from another; both at least 0, rounded to nine digits.

    Attributes
    ----------
    weights
        Euclidean, over all floating entries but the following.
    statistics
        Of BatchNorm's running means and deviations, in units of the channel's deviation: the root of the mean square
        over all channels. 0 where none are shared.
    """

    weights: float
    statistics: float


def distance(state: Mapping[str, torch.Tensor], current: Mapping[str, torch.Tensor]) -> Distance:
    """Return how far a state is from the current one.

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
    measured = [name for name in sorted(current) if current[name].is_floating_point()]
    prefixes = [name.removesuffix("running_var") for name in measured if name.endswith("running_var")]
    layers = [layer for layer in prefixes if f"{layer}running_mean" in current]
    moments = {f"{layer}{moment}" for layer in layers for moment in ("running_mean", "running_var")}
    weights = sum(_squares(state[name], current[name]) for name in measured if name not in moments)
    moved = [_deviations(layer, state, current) for layer in layers]
    channels = torch.cat(moved) if moved else torch.zeros(1, dtype=torch.float64)
    return Distance(_root(weights), _root(channels.mean().item()))


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


def usual_distance(distances: Collection[Distance], before: Distance | None = None) -> Distance | None:
    """Return the scale by which a round's distances are judged.

    Parameters
    ----------
    distances
        Those of the round's sound updates.
    before
        The scale of the round before; None in the first.

    Returns
    -------
    Distance
        The median of each; with two distances or fewer, `before`.
    """
    return Distance(*map(statistics.median, zip(*distances, strict=True))) if len(distances) > 2 else before


def too_far(distances: Mapping[str, Distance], scale: Distance | None, factor: float) -> dict[str, float]:
    """Find the updates that lie too far from the current backbone.

    Parameters
    ----------
    distances
        Each site's finite distance, of the updates of one round that are otherwise sound.
    scale
        What a distance usually is; None: nobody is too far. Weights of 0 tell nothing: most did not move. Statistics
        are usual up to one deviation over `factor`.
    factor
        The largest distance allowed, in units of `scale`; above 1.

    Returns
    -------
    dict
        For each site beyond it, its distance in units of `scale`: the larger of the two.
    """
    if scale is None:
        return {}
    found = {site: _relative(distance, scale, factor) for site, distance in distances.items()}
    return {site: relative for site, relative in found.items() if relative > factor}


def _relative(distance: Distance, scale: Distance, factor: float) -> float:
    weights = distance.weights / scale.weights if scale.weights > 0 else 0.0
    return max(weights, distance.statistics / max(scale.statistics, 1 / factor))


def _deviations(layer: str, state: Mapping[str, torch.Tensor], current: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the squared moves of a BatchNorm layer's means and deviations, in units of the variance of the channel."""
    variance = current[f"{layer}running_var"].double()
    # A channel that is silent has no scale of its own.
    unit = variance + variance.mean() / 1000 + torch.finfo(torch.float32).tiny
    mean = state[f"{layer}running_mean"].double() - current[f"{layer}running_mean"].double()
    deviation = state[f"{layer}running_var"].double().sqrt() - variance.sqrt()
    return torch.cat([mean.square() / unit, deviation.square() / unit])


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
