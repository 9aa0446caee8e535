"""What becomes of the sites' updates: a mean, or one that a faulty site cannot move far.

Equal weights let every hospital count the same, so a small one is heard; weights by examples make the mean that of
all images, so a large hospital decides, and the number of its training images becomes known to the server.

The weighted mean is taken as updates arrive: one running sum in float64, whatever the number of sites. A head may be
averaged row by row, each over the sites that annotate its finding (surgical aggregation). The median and
the trimmed mean (Yin et al., ICML 2018) need all values of a parameter at once, so they read them piece by piece.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import EllipsisType
from typing import Literal

import numpy as np
import torch

from polyhead.federation.flat import unflatten
from polyhead.federation.update import HEAD, SiteUpdate

__all__ = ["ReadPiece", "coordinate_median", "trimmed_mean", "weighted_mean"]

ReadPiece = Callable[[str, int, int], torch.Tensor]
"""An update that is read again and again: an entry's values from one place to another, flattened as `current` lies."""

# All of an entry, or a row of it.
_Place = EllipsisType | int

# Bytes of the pieces that are sorted together; sorting needs about as much again.
_PIECES = 2**23


def weighted_mean(
    updates: Iterable[SiteUpdate],
    current: Mapping[str, torch.Tensor],
    weighting: Literal["equal", "examples"],
    sums: dict[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Average checked updates entry by entry.

    Parameters
    ----------
    updates
        Consumed one by one; each is held only while it is added. Sorted by site, the result does not depend on the
        order in which sites are named. Either all or none choose rows of the head.
    current
        The shared entries that the sites started from.
    weighting
        ``equal`` or ``examples``.
    sums
        Where to add up: empty, or from an earlier round and written over. To be handed fresh memory by the system takes
        as long as the adding.

    Returns
    -------
    dict
        The mean, in the types of `current`; integers (BatchNorm's counters) are rounded. `current` itself, copied, if
        there was no update; a row of the head that no update counts for likewise.
    """
    sums = {} if sums is None else sums
    totals: Counter[tuple[str, _Place]] = Counter()
    for update in updates:
        weight = 1 if weighting == "equal" else update.examples
        for name, tensor in update.state.items():
            if name not in sums:
                sums[name] = torch.empty_like(tensor, dtype=torch.float64)
            for place in _places(name, update):
                _add(sums[name][place], tensor[place], weight, first=not totals[name, place])
                totals[name, place] += weight
    return {name: _mean(sums.get(name), tensor, name, totals) for name, tensor in current.items()}


def coordinate_median(updates: Sequence[ReadPiece], current: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Take the median of every parameter over the updates: the mean of the middle two if their number is even.

    Parameters, order and types are those of `trimmed_mean`.
    """
    return _mean_of_the_middle(updates, current, (len(updates) - 1) // 2)


def trimmed_mean(
    updates: Sequence[ReadPiece], current: Mapping[str, torch.Tensor], trim: float
) -> dict[str, torch.Tensor]:
    """Average every parameter over the updates without its smallest and its largest values.

    Parameters
    ----------
    updates
        Checked; each counts the same, and their order changes nothing. They are read in pieces: beside the result, the
        memory needed depends neither on their number nor on the size of a tensor.
    current
        The shared entries that the sites started from; finite, integers from 0 to 2**53.
    trim
        Share of the values dropped at each end, 0 to below 0.5, rounded down: of three sites, 0.2 drops none.

    Returns
    -------
    dict
        The mean, taken in float64 and rounded once to the types of `current`. `current` itself, copied, if there was no
        update.
    """
    return _mean_of_the_middle(updates, current, math.floor(trim * len(updates)))


def _mean_of_the_middle(
    updates: Sequence[ReadPiece], current: Mapping[str, torch.Tensor], dropped: int
) -> dict[str, torch.Tensor]:
    if not updates:
        return {name: tensor.clone() for name, tensor in current.items()}
    length = max(1, _PIECES // (8 * len(updates)))
    mean = {}
    for name, tensor in current.items():
        values = torch.empty(tensor.numel(), dtype=tensor.dtype)
        for start in range(0, len(values), length):
            stop = min(start + length, len(values))
            values[start:stop] = _middle_of_piece([read(name, start, stop) for read in updates], dropped, tensor.dtype)
        mean[name] = unflatten(values, like=tensor)
    return mean


def _middle_of_piece(pieces: Sequence[torch.Tensor], dropped: int, dtype: torch.dtype) -> torch.Tensor:
    # Every type that is averaged, integers up to 2**53 too, has its exact float64.
    rows = np.empty((len(pieces), len(pieces[0])))
    for row, piece in zip(rows, pieces, strict=True):
        row[:] = piece.double().numpy()
    rows.sort(axis=0)
    middle = rows[dropped : len(rows) - dropped]
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    # Row by row, from zero: another order of summands would round differently, and of 0.0 and -0.0, which sort alike,
    # the order of sites would decide.
    for row in middle:
        total.add_(torch.from_numpy(row))
    return _divide(total, len(middle), dtype)


def _places(name: str, update: SiteUpdate) -> Sequence[_Place]:
    """Return what of an entry counts: all of it, or some rows of a head."""
    if update.rows is None or not name.startswith(HEAD):
        return (...,)
    return [row for row, counts in enumerate(update.rows) if counts]


def _add(into: torch.Tensor, tensor: torch.Tensor, weight: int, *, first: bool) -> None:
    if not first:
        into.add_(tensor, alpha=weight)
    elif weight == 1:
        into.copy_(tensor)
    else:
        into.copy_(tensor).mul_(weight)


def _mean(
    total: torch.Tensor | None, current: torch.Tensor, name: str, weights: Mapping[tuple[str, _Place], int]
) -> torch.Tensor:
    """Return the mean of an entry; what no update counted for stays as it is."""
    if total is not None and (whole := weights.get((name, ...))):
        return _divide(total, whole, current.dtype)
    mean = current.clone()
    if total is not None and name.startswith(HEAD):
        for row in range(len(current)):
            if weight := weights.get((name, row)):
                mean[row] = _divide(total[row], weight, current.dtype)
    return mean


def _divide(total: torch.Tensor, by: int, dtype: torch.dtype) -> torch.Tensor:
    """Divide in float64 and round once, to `dtype`; in one pass over the memory where the type allows it."""
    if dtype.is_floating_point:
        return torch.div(total, by, out=torch.empty_like(total, dtype=dtype))
    return (total / by).round().to(dtype)
