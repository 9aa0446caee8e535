"""A federation in one process: the sites take turns in the loop."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from polyhead.errors import UpdateError
from polyhead.federation.failure import describe_failure
from polyhead.federation.federate import Answer, OnRound, Sites, federate
from polyhead.federation.private_state import PrivateState, check_private, load_private, save_private
from polyhead.federation.secret_draw import public_secret
from polyhead.federation.site import Plan, Site, site_round
from polyhead.federation.snapshot import Snapshot, Store
from polyhead.federation.update import SiteUpdate
from polyhead.training.model import SiteModel, load_state

__all__ = ["Watch", "simulate"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watch:
    """Who is told what a federation does.

    Attributes
    ----------
    on_round
        Gets the rows of a round, before its snapshot is written; and whether it is repeated, having had too few sites.
    on_step
        Called after each optimizer step. KeyboardInterrupt and SystemExit raised by it end the federation there.
    validate
        Returns the mean AUROC of a site's model on its validation images; None if it has no AUROC.
    """

    on_round: OnRound
    on_step: Callable[[], None] | None = None
    validate: Callable[[SiteModel, Site], float | None] | None = None


@dataclass(frozen=True)
class _House:
    """All sites under one roof."""

    sites: Sequence[Site]
    models: Mapping[str, SiteModel]
    plan: Plan
    store: Store
    watch: Watch


def simulate(
    sites: Sequence[Site], models: Mapping[str, SiteModel], plan: Plan, start: Snapshot, store: Store, watch: Watch
) -> Snapshot:
    """Run all rounds of a federation.

    In memory there are the shared state, its sums, and one site's model and private state at a time, however many sites
    there are.

    Parameters
    ----------
    sites
        Those that train; each needs at least two training images.
    models
        Each site's model; the backbone may be the same object for all.
    start
        State to go on from: before the first round, or a snapshot.
    store
        Where the sites' private states lie, and where a snapshot is written after every round.

    Returns
    -------
    Snapshot
        State after the last round.

    Raises
    ------
    RunError
        If too few sites could be counted in every attempt at a round; the state before it is kept.
    DiskError
        If a disk is full; the state before the round is kept.
    """
    if plan.has_noise:
        sites = [one if one.secret else replace(one, secret=public_secret(plan.seed, one.name)) for one in sites]
    house = _House(sorted(sites, key=lambda site: site.name), models, plan, store, watch)
    asked = Sites(
        [site.name for site in house.sites],
        lambda round_, state: _ask(house, round_, state),
        lambda state: _validate(house, state),
    )
    return federate(asked, plan.federation, start, store, watch.on_round, rule=plan.rule, by_row=plan.sharing.rows)


def _ask(house: _House, round_: int, state: Snapshot) -> Iterator[Answer]:
    """Let each site take its part in a round."""
    for site in house.sites:
        began = time.monotonic()
        # Damage to it ends the run here, while the snapshot before is still kept.
        own = load_private(house.store.folder, site.name, state.private[site.name])
        try:
            update, own = _site_round(house, site, round_, state, own)
        except Exception as problem:  # Whatever it is, it ends this site's round, not the others'.
            # The whole of it may hold paths and patients: for the site's own log, not for the table.
            _log.info("round %d, site %s failed: %s", round_, site.name, problem, exc_info=problem)
            yield Answer(site.name, time.monotonic() - began, failure=describe_failure(problem))
            continue
        file = save_private(house.store.folder, site.name, round_ + 1, own)
        yield Answer(site.name, time.monotonic() - began, update, file)


def _site_round(
    house: _House, site: Site, round_: int, state: Snapshot, own: PrivateState
) -> tuple[SiteUpdate, PrivateState]:
    model, on_step = house.models[site.name], house.watch.on_step
    update, own = site_round(site, model, house.plan, round_, state.shared, own, on_step)
    if update.site != site.name:
        raise UpdateError("the update carries another site's name. Send the name that the study gives it.")
    check_private(own)
    return update, own


def _validate(house: _House, state: Snapshot) -> dict[str, float]:
    scores: dict[str, float] = {}
    if house.watch.validate is None:
        return scores
    for site in house.sites:
        own = load_private(house.store.folder, site.name, state.private[site.name])
        load_state(house.models[site.name], {**state.shared, **own.model})
        try:
            score = house.watch.validate(house.models[site.name], site)
        except Exception as problem:  # As in training: one site's failure is not the others'.
            _log.warning(
                "after %d rounds, site %s: not validated, so this state cannot become its best: %s",
                *(state.rounds_done, site.name, problem),
            )
        else:
            scores |= {} if score is None else {site.name: score}
    return scores
