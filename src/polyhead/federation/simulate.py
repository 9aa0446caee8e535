"""A federation in one process: the paper's loop."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from polyhead.errors import RunError, UpdateError
from polyhead.federation.aggregate import Aggregate, aggregate
from polyhead.federation.failure import describe_failure
from polyhead.federation.private_state import PrivateFile, PrivateState, load_private, save_private
from polyhead.federation.rounds import RoundRow
from polyhead.federation.site import Plan, Site, site_round
from polyhead.federation.snapshot import Snapshot, Store, save_snapshot
from polyhead.federation.update import SiteUpdate, is_finite
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

    on_round: Callable[[list[RoundRow], bool], None]
    on_step: Callable[[], None] | None = None
    validate: Callable[[SiteModel, Site], float | None] | None = None


@dataclass(frozen=True)
class _Loop:
    """What stays the same through all rounds."""

    sites: Sequence[Site]
    models: Mapping[str, SiteModel]
    plan: Plan
    store: Store
    watch: Watch
    sums: dict[str, torch.Tensor] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Attempt:
    """What came of one attempt at a round: each site's row and new private state, and the mean."""

    rows: dict[str, RoundRow]
    private: dict[str, PrivateFile]
    mean: Aggregate


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
    loop = _Loop(sorted(sites, key=lambda site: site.name), models, plan, store, watch)
    state = start
    for round_ in range(state.rounds_done, plan.federation.rounds):
        attempt = _round(loop, round_, state)
        counted = {site: attempt.private[site] for site in attempt.mean.counted}
        # Who was left out goes on from where it was before: as if it had not taken part.
        private = {**state.private, **counted}
        state = Snapshot(round_ + 1, attempt.mean.state, private, state.best, attempt.mean.usual)
        scores = _validate(loop, state)
        watch.on_round([replace(row, validation=scores.get(site)) for site, row in attempt.rows.items()], False)
        state = save_snapshot(state, store, scores if plan.federation.select == "best" else None)
    return state


def _round(loop: _Loop, round_: int, state: Snapshot) -> _Attempt:
    """Attempt a round until enough sites count."""
    # Where nothing is shared nobody waits for another.
    wanted = (loop.plan.federation.min_sites or math.ceil(len(loop.sites) / 2)) if state.shared else 1
    most = loop.plan.federation.round_attempts
    for number in range(1, most + 1):
        attempt = _attempt(loop, round_, state)
        counted = len(attempt.mean.counted)
        if counted >= wanted:
            return attempt
        status = f"repeated: {counted} of {len(loop.sites)} sites"
        loop.watch.on_round(
            [replace(r, status=status) if s in attempt.mean.counted else r for s, r in attempt.rows.items()], True
        )
        _log.warning("round %d, attempt %d of %d: %d sites of %d needed.", round_, number, most, counted, wanted)
    by_default = "" if loop.plan.federation.min_sites else " (by default half of those that train)"
    reasons = "; ".join(f"site {site}: {row.status.rstrip('.')}" for site, row in attempt.rows.items())
    raise RunError(
        f"round {round_}: in the last of {most} attempts {counted} of {len(loop.sites)} sites could be counted, "
        f"and federation.min_sites needs {wanted}{by_default}. {reasons}. "
        "The state before this round is kept; mend the sites, then give the same command again."
    )


def _attempt(loop: _Loop, round_: int, state: Snapshot) -> _Attempt:
    rows: dict[str, RoundRow] = {}
    private: dict[str, PrivateFile] = {}
    updates = _updates(loop, round_, state, rows, private)
    mean = aggregate(
        updates,
        state.shared,
        loop.plan.federation,
        loop.store.folder / "round",
        sites=len(loop.sites),
        expected_round=round_,
        usual=state.usual,
        sums=loop.sums,
    )
    for site, reason in mean.left_out.items():
        rows[site] = replace(rows[site], status=f"left out: {reason}")
    for site, reason in mean.clipped.items():
        rows[site] = replace(rows[site], status=f"clipped: {reason}")
    for row in rows.values():
        if ":" in row.status:
            _tell(loop, row)
    return _Attempt(rows, private, mean)


def _updates(
    loop: _Loop, round_: int, state: Snapshot, rows: dict[str, RoundRow], private: dict[str, PrivateFile]
) -> Iterator[SiteUpdate]:
    """Let each site take its part in a round; note it in `rows` and `private`, and pass its update on."""
    down = _bytes(state.shared)
    status = "averaged" if state.shared else "alone"
    for site in loop.sites:
        began = time.monotonic()
        # Damage to it ends the run here, while the snapshot before is still kept.
        own = load_private(loop.store.folder, site.name, state.private[site.name])
        try:
            update, own = _site_round(loop, site, round_, state.shared, own)
        except Exception as problem:  # Whatever it is, it ends this site's round, not the others'.
            rows[site.name] = _failed(round_, site.name, time.monotonic() - began, problem)
            continue
        private[site.name] = save_private(loop.store.folder, site.name, round_ + 1, own)
        seconds = time.monotonic() - began
        loss = float(update.loss) if is_finite(update.loss) else math.nan
        rows[site.name] = RoundRow(round_, site.name, loss, seconds, _bytes(update.state), down, status)
        yield update


def _site_round(
    loop: _Loop, site: Site, round_: int, shared: Mapping[str, torch.Tensor], own: PrivateState
) -> tuple[SiteUpdate, PrivateState]:
    update, own = site_round(site, loop.models[site.name], loop.plan, round_, shared, own, loop.watch.on_step)
    if update.site != site.name:
        raise UpdateError("the update carries another site's name. Send the name that the study gives it.")
    for name, tensor in own.model.items():
        if not tensor.isfinite().all():
            raise UpdateError(f"{name}, which stays at the site, is not finite. Lower training.learning_rate.")
    return update, own


def _failed(round_: int, site: str, seconds: float, problem: Exception) -> RoundRow:
    # The whole of it may hold paths and patients: for the site's own log, not for the table.
    _log.info("round %d, site %s failed: %s", round_, site, problem, exc_info=problem)
    return RoundRow(round_, site, math.nan, seconds, 0, 0, f"failed: {describe_failure(problem)}")


def _tell(loop: _Loop, row: RoundRow) -> None:
    """Warn of what did not go well; of a site's later rounds only the log is told."""
    level = logging.INFO if row.site in loop.warned else logging.WARNING
    loop.warned.add(row.site)
    _log.log(level, "round %d, site %s: %s", row.round, row.site, row.status)


def _validate(loop: _Loop, state: Snapshot) -> dict[str, float]:
    """Measure sites' AUROCs on their validation images under a new state; empty in rounds without validation."""
    every, last = loop.plan.federation.validate_every, loop.plan.federation.rounds
    if not (every and loop.watch.validate and (state.rounds_done % every == 0 or state.rounds_done == last)):
        return {}
    scores: dict[str, float] = {}
    for site in loop.sites:
        own = load_private(loop.store.folder, site.name, state.private[site.name])
        load_state(loop.models[site.name], {**state.shared, **own.model})
        try:
            score = loop.watch.validate(loop.models[site.name], site)
        except Exception as problem:  # As in training: one site's failure is not the others'.
            _log.warning(
                "after %d rounds, site %s: not validated, so this state cannot become its best: %s",
                *(state.rounds_done, site.name, problem),
            )
        else:
            scores |= {} if score is None else {site.name: score}
    return scores


def _bytes(state: object) -> int:
    """Return the size of a state's tensors; what is no plain tensor, and will be refused, has none."""
    tensors = state.values() if isinstance(state, Mapping) else ()
    plain = (one for one in tensors if type(one) is torch.Tensor and one.layout == torch.strided and not one.is_nested)
    return sum(tensor.nbytes for tensor in plain)
