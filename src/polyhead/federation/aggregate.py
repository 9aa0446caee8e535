"""From a round's updates to the next backbone: each is checked, bad ones are left out, the rest is averaged.

Updates are taken as they come and one at a time. While they are checked and added up they are also put on disk, if a
later one can change what becomes of them; usually none does, and they are not read again.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from polyhead.config import Federation
from polyhead.errors import UpdateError
from polyhead.federation.flat import flatten, unflatten
from polyhead.federation.means import ReadPiece, coordinate_median, trimmed_mean, weighted_mean
from polyhead.federation.outliers import Distance, finite_distance, too_far, usual_distance
from polyhead.federation.spool import clear_spool, read_piece, spool_state
from polyhead.federation.transfer import widened
from polyhead.federation.update import SiteUpdate, check_finite, check_update, counted_rows, reason_of, shown

__all__ = ["Aggregate", "aggregate"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Aggregate:
    """What a round came to.

    Attributes
    ----------
    state
        The shared entries for the next round; a copy of the current ones if no update counted.
    counted
        The sites whose updates are in it, in order of arrival.
    left_out
        The other sites that sent something, each with the reason.
    clipped
        Those of `counted` whose step was shortened, each with the reason.
    usual
        The scale by which distances were judged, for the next round; None if they decide nothing.
    """

    state: dict[str, torch.Tensor]
    counted: tuple[str, ...]
    left_out: dict[str, str]
    clipped: dict[str, str]
    usual: Distance | None


@dataclass(frozen=True)
class _Sound:
    """An update that passed the checks, without its tensors: they are added up, or on disk, or both."""

    update: SiteUpdate
    distance: Distance
    read: ReadPiece | None


@dataclass(frozen=True)
class _Round:
    """How a round is judged, and what has come of it so far."""

    current: Mapping[str, torch.Tensor]
    federation: Federation
    spool: Path
    number: int | None
    measure: bool
    usual: Distance | None
    by_row: bool
    sound: dict[str, _Sound] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def robust(self) -> bool:
        return self.federation.aggregation != "mean"


def aggregate(
    updates: Iterable[SiteUpdate],
    current: Mapping[str, torch.Tensor],
    federation: Federation,
    spool: Path,
    sites: int,
    expected_round: int | None = None,
    usual: Distance | None = None,
    sums: dict[str, torch.Tensor] | None = None,
    by_row: bool = False,
) -> Aggregate:
    """Check a round's updates and average those that are sound.

    Parameters
    ----------
    updates
        As they travelled, sorted by site; of two from one site the second is dropped. The next is asked for when the
        one before is dealt with: its tensors may then be written over.
    current
        The shared entries that the sites started from, finite, on the CPU, and in the precision of the mean.
    federation
        ``transfer``, ``aggregation``, ``trim``, ``weighting``, ``distance_rule`` and ``distance_factor`` are read.
    spool
        Folder for the updates of this round. Nothing is written there if the mean is the weighted one and distances
        decide nothing; afterwards it is gone, unless other files were in it.
    sites
        How many sites take part at most; with two or fewer, distances decide nothing.
    expected_round
        The round under way; None if any will do.
    usual
        What the round before found usual for a distance; see `polyhead.federation.outliers.usual_distance`.
    sums
        Memory to use again; see `polyhead.federation.means.weighted_mean`.
    by_row
        Whether a shared head is averaged row by row; then not by a robust mean, which would need every site's row.

    Returns
    -------
    Aggregate
        As if the sites left out had not been there. Whether enough counted is for the caller to say.

    Raises
    ------
    DiskError
        If an update cannot be put on disk.
    """
    measure = federation.distance_rule != "off" and sites > 2 and bool(current)
    round_ = _Round(current, federation, spool, expected_round, measure, usual, by_row)
    sums = {} if sums is None else sums
    clear_spool(spool)
    try:
        mean = None
        if round_.robust:
            for _ in _sound_updates(updates, round_):
                pass
        else:
            mean = weighted_mean(_sound_updates(updates, round_), current, federation.weighting, sums)
        return _conclude(round_, mean, sums)
    finally:
        clear_spool(spool)


def _sound_updates(updates: Iterable[SiteUpdate], round_: _Round) -> Iterator[SiteUpdate]:
    """Pass on the updates that are sound by themselves; put them on disk if they may be needed again."""
    for update in updates:
        name = _name(update)
        if name in round_.sound or name in round_.left_out:
            _log.warning("site %s, round %s: sent another update; only the first is looked at.", name, round_.number)
            continue
        try:
            wide, found = _check(update, round_)
        except UpdateError as problem:
            _leave_out(round_, update, reason_of(update, problem))
            continue
        read = _keep(wide, round_) if round_.measure or round_.robust else None
        round_.sound[name] = _Sound(replace(update, state={}), found, read)
        yield wide


def _check(update: SiteUpdate, round_: _Round) -> tuple[SiteUpdate, Distance]:
    """Return the update in the types of the current backbone, and its distance from it; 0 if it decides nothing."""
    check_update(update, round_.current, round_.number, round_.federation.transfer, round_.by_row)
    wide = replace(update, state=widened(update.state, like=round_.current))
    wide = counted_rows(wide, round_.current)
    if round_.measure:
        return wide, finite_distance(wide, round_.current)
    check_finite(wide)
    return wide, Distance(0.0, 0.0)


def _keep(update: SiteUpdate, round_: _Round) -> ReadPiece:
    spooled = spool_state(round_.spool, len(round_.sound), update.state, round_.current)
    return partial(read_piece, spooled)


def _conclude(round_: _Round, mean: dict[str, torch.Tensor] | None, sums: dict[str, torch.Tensor]) -> Aggregate:
    """Judge the distances, now that all are known; average again if they changed anything."""
    factor = round_.federation.distance_factor
    distances = {name: sound.distance for name, sound in round_.sound.items()}
    usual = usual_distance(distances.values(), round_.usual) if round_.measure else None
    far = too_far(distances, usual, factor)
    counted, clipped = dict(round_.sound), {}
    for name, times in far.items():
        reason = f"too far: {_number(times)} times the usual distance (allowed: {factor:g})"
        if round_.federation.distance_rule == "clip":
            clipped[name] = reason
            counted[name] = _clip(counted[name], round_.current, factor / times)
        else:
            _leave_out(round_, counted.pop(name).update, reason)
    if mean is None or far:
        mean = _average_again(list(counted.values()), round_, sums)
    return Aggregate(mean, tuple(counted), round_.left_out, clipped, usual)


def _average_again(counted: Sequence[_Sound], round_: _Round, sums: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Average updates from the disk."""
    federation, current = round_.federation, round_.current
    reads = [sound.read for sound in counted if sound.read]
    if federation.aggregation == "median":
        return coordinate_median(reads, current)
    if federation.aggregation == "trimmed_mean":
        return trimmed_mean(reads, current, federation.trim)
    whole = (
        replace(sound.update, state=_read_state(read, current)) for sound, read in zip(counted, reads, strict=True)
    )
    return weighted_mean(whole, current, federation.weighting, sums)


def _read_state(read: ReadPiece, current: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: unflatten(read(name, 0, tensor.numel()), like=tensor) for name, tensor in current.items()}


def _clip(sound: _Sound, current: Mapping[str, torch.Tensor], share: float) -> _Sound:
    """Shorten an update's step to a share of its length; its counters, which no distance measures, stay."""
    read = sound.read
    if read is None:
        return sound

    def read_clipped(name: str, start: int, stop: int) -> torch.Tensor:
        sent = read(name, start, stop)
        if not sent.is_floating_point():
            return sent
        begin = flatten(current[name], like=current[name])[start:stop].double()
        return (begin + share * (sent.double() - begin)).to(sent.dtype)

    return replace(sound, read=read_clipped)


def _leave_out(round_: _Round, update: SiteUpdate, reason: str) -> None:
    # The caller tells people, once for a site that is left out of every round.
    round_.left_out[_name(update)] = reason


def _name(update: SiteUpdate) -> str:
    """Return the site's name as it may be printed; what is no name cannot be mistaken for a site's."""
    return shown(update.site) if isinstance(update.site, str) else f"({shown(update.site)})"


def _number(times: float) -> str:
    return f"{times:.1f}" if times < 1e6 else f"{times:.3g}"
