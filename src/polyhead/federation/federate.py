"""The loop of a federation: ask the sites, average what they send, write a snapshot, until all rounds are done.

Where the sites are, in this process or in houses of their own, is `Sites`' business; so both give the same bits.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from polyhead.config import Federation
from polyhead.errors import QuorumError, RunError
from polyhead.federation.aggregate import Aggregate, aggregate
from polyhead.federation.private_state import PrivateFile
from polyhead.federation.rounds import RoundRow
from polyhead.federation.server_rule import ServerRule, server_step
from polyhead.federation.snapshot import Snapshot, Store, save_snapshot
from polyhead.federation.transfer import narrowed, widened
from polyhead.federation.update import SiteUpdate, is_finite

__all__ = ["Answer", "OnRound", "Sites", "federate", "is_validated", "state_bytes"]

_log = logging.getLogger(__name__)

OnRound = Callable[[list[RoundRow], bool], None]
"""Gets the rows of a round, before its snapshot is written; and whether it is repeated, having had too few sites."""


@dataclass(frozen=True)
class Answer:
    """What came of asking a site to take its part in a round.

    Attributes
    ----------
    seconds
        Until it answered, or was given up.
    update
        What it sent; None if no update came.
    private
        Its own state after the round; None if no update came.
    failure
        If no update came: cause and remedy, without a value of its data.
    silent
        Whether all its time was waited for nothing.
    """

    site: str
    seconds: float
    update: SiteUpdate | None = None
    private: PrivateFile | None = None
    failure: str = ""
    silent: bool = False


@dataclass(frozen=True)
class Sites:
    """The sites that train, wherever they are.

    Attributes
    ----------
    names
        In alphabetical order.
    ask
        Given a round and the state before it, with the shared entries as they travel, lets each site take its part and
        yields the answers in the order of `names`, so that sums are the same bits in every engine. What it raises ends
        the federation.
    validate
        Returns AUROCs of a state, as it travels, on the sites' validation images, of those sites that have one.
    """

    names: Sequence[str]
    ask: Callable[[int, Snapshot], Iterator[Answer]]
    validate: Callable[[Snapshot], dict[str, float]] | None = None


@dataclass(frozen=True)
class _Loop:
    """What stays the same through all rounds."""

    sites: Sites
    federation: Federation
    store: Store
    on_round: OnRound
    rule: ServerRule | None = None
    by_row: bool = False
    sums: dict[str, torch.Tensor] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Attempt:
    """What came of one attempt at a round: each site's row and new private state, and the mean."""

    rows: dict[str, RoundRow]
    private: dict[str, PrivateFile]
    mean: Aggregate


def federate(
    sites: Sites,
    federation: Federation,
    start: Snapshot,
    store: Store,
    on_round: OnRound,
    until: int | None = None,
    rule: ServerRule | None = None,
    by_row: bool = False,
) -> Snapshot:
    """Run the rounds of a federation, or a segment of them.

    Parameters
    ----------
    start
        State to go on from: before the first round, or a snapshot.
    store
        Where a snapshot is written after every round.
    until
        After how many rounds to stop; by default after all.
    rule
        What the server makes of a round's mean; by default the next state. What it keeps is in `start`.
    by_row
        Whether a shared head is averaged row by row; see `polyhead.federation.sharing.Sharing`.

    Returns
    -------
    Snapshot
        State after the last round.

    Raises
    ------
    QuorumError
        If too few sites could be counted in every attempt at a round; the state before it is kept.
    UpdateError
        If the shared entries hold what cannot travel; see `polyhead.federation.transfer.narrowed`.
    RunError
        If the rule goes beyond all numbers; the state before the round is kept.
    DiskError
        If a disk is full; the state before the round is kept.
    ValueError
        If there is a rule, and `start` has nothing that it keeps: the mean would pass for its work.
    """
    if rule and not start.moments:
        raise ValueError("a rule of the server begins with its first moments")
    loop = _Loop(sites, federation, store, on_round, rule, by_row)
    state = start
    for round_ in range(state.rounds_done, federation.rounds if until is None else min(until, federation.rounds)):
        attempt = _round(loop, round_, state)
        counted = {site: attempt.private[site] for site in attempt.mean.counted}
        # Who was left out goes on from where it was before: as if it had not taken part.
        private = {**state.private, **counted}
        shared, moments = _follow_rule(loop, state, attempt.mean.state)
        state = Snapshot(round_ + 1, shared, private, state.best, attempt.mean.usual, moments)
        scores = _validate(loop, state)
        on_round([replace(row, validation=scores.get(site)) for site, row in attempt.rows.items()], False)
        state = save_snapshot(state, store, scores if federation.select == "best" else None)
    return state


def _follow_rule(
    loop: _Loop, state: Snapshot, mean: dict[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the next state, and what the server's rule keeps; only a round that counts comes here."""
    if loop.rule is None:
        return mean, {}
    began = widened(_as_sent(loop, state).shared, like=state.shared)
    try:
        return server_step(loop.rule, began, mean, state.moments)
    except RunError as problem:
        raise RunError(f"round {state.rounds_done}: {problem}") from problem


def _round(loop: _Loop, round_: int, state: Snapshot) -> _Attempt:
    """Attempt a round until enough sites count."""
    # Where nothing is shared nobody waits for another.
    wanted = (loop.federation.min_sites or math.ceil(len(loop.sites.names) / 2)) if state.shared else 1
    most = loop.federation.round_attempts
    for number in range(1, most + 1):
        attempt = _attempt(loop, round_, state)
        counted = len(attempt.mean.counted)
        if counted >= wanted:
            return attempt
        status = f"repeated: {counted} of {len(loop.sites.names)} sites"
        loop.on_round(
            [replace(r, status=status) if s in attempt.mean.counted else r for s, r in attempt.rows.items()], True
        )
        _log.warning("round %d, attempt %d of %d: %d sites of %d needed.", round_, number, most, counted, wanted)
    by_default = "" if loop.federation.min_sites else " (by default half of those that train)"
    reasons = "; ".join(f"site {site}: {row.status.rstrip('.')}" for site, row in attempt.rows.items())
    raise QuorumError(
        f"round {round_}: in the last of {most} attempts {counted} of {len(loop.sites.names)} sites could be counted, "
        f"and federation.min_sites needs {wanted}{by_default}. {reasons}. "
        "The state before this round is kept; mend the sites, then give the same command again."
    )


def _attempt(loop: _Loop, round_: int, state: Snapshot) -> _Attempt:
    rows: dict[str, RoundRow] = {}
    private: dict[str, PrivateFile] = {}
    sent = _as_sent(loop, state)
    updates = _updates(loop, round_, sent, rows, private)
    mean = aggregate(
        updates,
        widened(sent.shared, like=state.shared),
        loop.federation,
        loop.store.folder / "round",
        sites=len(loop.sites.names),
        expected_round=round_,
        usual=state.usual,
        sums=loop.sums,
        by_row=loop.by_row,
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
    """Ask the sites; note each answer in `rows` and `private`, and pass its update on."""
    down = state_bytes(state.shared)
    status = "averaged" if state.shared else "alone"
    for answer in loop.sites.ask(round_, state):
        site, seconds, update = answer.site, answer.seconds, answer.update
        if update is None or answer.private is None:
            rows[site] = RoundRow(round_, site, math.nan, seconds, 0, 0, f"failed: {answer.failure}")
            continue
        private[site] = answer.private
        loss = math.nan if update.loss is None or not is_finite(update.loss) else float(update.loss)
        rows[site] = RoundRow(round_, site, loss, seconds, state_bytes(update.state), down, status)
        yield update


def _tell(loop: _Loop, row: RoundRow) -> None:
    """Warn of what did not go well; of a site's later rounds only the log is told."""
    level = logging.INFO if row.site in loop.warned else logging.WARNING
    loop.warned.add(row.site)
    _log.log(level, "round %d, site %s: %s", row.round, row.site, row.status)


def _validate(loop: _Loop, state: Snapshot) -> dict[str, float]:
    """Measure sites' AUROCs on their validation images under a new state; empty in rounds without validation."""
    if loop.sites.validate is None or not is_validated(loop.federation, state.rounds_done):
        return {}
    return loop.sites.validate(_as_sent(loop, state))


def _as_sent(loop: _Loop, state: Snapshot) -> Snapshot:
    """Return a state as the sites get to see it; what is kept of it stays in full precision."""
    return replace(state, shared=narrowed(state.shared, loop.federation.transfer))


def is_validated(federation: Federation, rounds_done: int) -> bool:
    """Tell whether the state after so many rounds is measured on the sites' validation images."""
    every, last = federation.validate_every, federation.rounds
    return bool(every and rounds_done and (rounds_done % every == 0 or rounds_done == last))


def state_bytes(state: object) -> int:
    """Return the size of a state's tensors; what is no plain tensor, and will be refused, has none."""
    tensors = state.values() if isinstance(state, Mapping) else ()
    plain = (one for one in tensors if type(one) is torch.Tensor and one.layout == torch.strided and not one.is_nested)
    return sum(tensor.nbytes for tensor in plain)
