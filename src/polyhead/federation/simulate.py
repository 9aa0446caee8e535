"""A federation in one process: the paper's loop."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from polyhead.federation.aggregate import SiteUpdate, weighted_mean
from polyhead.federation.rounds import RoundRow
from polyhead.federation.site import Plan, PrivateState, Site, site_round
from polyhead.federation.snapshot import Snapshot, save_snapshot
from polyhead.training.model import SiteModel

__all__ = ["simulate"]

# So much work may be lost when a run is interrupted; writing optimizer states after every short round would cost more.
_SECONDS_BETWEEN_SNAPSHOTS = 30.0


def simulate(
    sites: Sequence[Site],
    models: Mapping[str, SiteModel],
    plan: Plan,
    start: Snapshot,
    folder: Path,
    on_round: Callable[[RoundRow], None],
) -> Snapshot:
    """Run all rounds of a federation.

    Parameters
    ----------
    sites
        Those that train; each needs at least two training images.
    models
        Each site's model; the backbone may be the same object for all.
    start
        State to go on from: before the first round, or a snapshot.
    folder
        Where snapshots are kept.
    on_round
        Told of every site's round.

    Returns
    -------
    Snapshot
        State after the last round.
    """
    state = start
    sums: dict[str, torch.Tensor] = {}
    saved = time.monotonic()
    for round_ in range(state.rounds_done, plan.federation.rounds):
        private = dict(state.private)
        updates = _updates(sites, models, plan, round_, state.shared, private, on_round)
        shared = weighted_mean(updates, state.shared, plan.federation.weighting, sums)
        state = Snapshot(round_ + 1, shared, private)
        if time.monotonic() - saved > _SECONDS_BETWEEN_SNAPSHOTS:
            save_snapshot(state, folder)
            saved = time.monotonic()
    return state


def _updates(
    sites: Sequence[Site],
    models: Mapping[str, SiteModel],
    plan: Plan,
    round_: int,
    shared: Mapping[str, torch.Tensor],
    private: dict[str, PrivateState],
    on_round: Callable[[RoundRow], None],
) -> Iterator[SiteUpdate]:
    """Let each site take its part in a round, put its new private state into `private`, and pass its update on."""
    status = "averaged" if shared else "alone"
    for site in sorted(sites, key=lambda site: site.name):
        began = time.monotonic()
        update, private[site.name] = site_round(site, models[site.name], plan, round_, shared, private[site.name])
        seconds = time.monotonic() - began
        on_round(RoundRow(round_, site.name, update.loss, seconds, _bytes(update.state), _bytes(shared), status))
        yield update


def _bytes(state: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in state.values())
