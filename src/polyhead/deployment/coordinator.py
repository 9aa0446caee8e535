"""The server's side of a deployed federation: a segment of rounds, from the last snapshot, and the end of them.

Nothing here knows how a question reaches a site. What an engine has to bring is one function, `Carry`.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from polyhead.deployment.agreed import Agreed, head_findings, model_of, plan_of
from polyhead.deployment.events import append_event, read_events
from polyhead.deployment.question import FINISHED, IDLE, READY, Question, Reply
from polyhead.errors import PolyheadError, QuorumError, RunError
from polyhead.federation.federate import Answer, Sites, federate
from polyhead.federation.private_state import PrivateFile
from polyhead.federation.rounds import RoundRow
from polyhead.federation.run_lock import locked, signed
from polyhead.federation.server_rule import first_moments
from polyhead.federation.site import Plan
from polyhead.federation.snapshot import Snapshot, Store, load_snapshot, save_snapshot
from polyhead.federation.snapshot_manifest import manifest_rounds, read_manifest
from polyhead.federation.start import part_model, server_model
from polyhead.federation.transfer import narrowed
from polyhead.federation.update import SiteUpdate

__all__ = ["EVENTS", "Carry", "Segment", "run_segment", "store_of"]

EVENTS = "events.jsonl"
"""Name of the file of events, in the store."""

Carry = Callable[[Mapping[str, Question]], Iterator[Reply]]
"""Carries a question to each of some sites at once, and yields a reply of each, in the order of their names."""

# A site that was silent in so many rounds of a segment in a row is not waited for until the next segment.
_MOST_MISSES = 2


@dataclass(frozen=True)
class Segment:
    """Some rounds of a federation, in one go; after the last of all, each site finishes.

    Attributes
    ----------
    name
        Its own, by which its events are known.
    method
        Of the study; blank if the sites are to evaluate, after all methods and seeds.
    until
        After how many rounds of the federation it ends.
    """

    name: str
    method: str
    seed: int
    until: int


@dataclass(frozen=True)
class _Server:
    agreed: Agreed
    segment: Segment
    plan: Plan
    store: Store
    carry: Carry
    misses: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)


def store_of(agreed: Agreed, folder: Path, method: str, seed: int) -> Store:
    """Return where a server keeps the state of a method with a seed."""
    return Store(folder / method / f"seed-{seed}", f"{agreed.sha256}/{method}/{seed}")


def run_segment(agreed: Agreed, segment: Segment, folder: Path, carry: Carry) -> None:
    """Run a segment; how it went is in the events.

    Parameters
    ----------
    folder
        Where the server keeps its states.

    Raises
    ------
    StudyError
        If the study has no such method or seed.
    """
    # What names no method of the study becomes no folder.
    plan = plan_of(agreed, segment.method, segment.seed)
    store = store_of(agreed, folder, segment.method, segment.seed)
    server = _Server(agreed, segment, plan, store, carry)
    try:
        # A segment that was given up may not be dead.
        with locked(store.folder) as lock, signed(lock):
            _run(server)
    except PolyheadError as problem:
        # Sites that were lost can only come back with another segment.
        again = isinstance(problem, QuorumError)
        _tell(server, {"event": "failed", "reason": str(problem), "again": again})


def _run(server: _Server) -> None:
    state = _start(server)
    _tell(server, {"event": "begun", "rounds_done": state.rounds_done})
    rules = server.agreed.federation
    if state.rounds_done < min(server.segment.until, rules.rounds):
        names = _join(server, state)

        def on_round(rows: list[RoundRow], repeated: bool) -> None:
            _tell_round(server, rows, repeated)

        sites = Sites(names, lambda round_, now: _ask(server, names, round_, now))
        state = federate(sites, rules, state, server.store, on_round, server.segment.until, server.plan.rule)
    if state.rounds_done == rules.rounds:
        _finish(server, state)
    _tell(server, {"event": "ended", "rounds_done": state.rounds_done})


def _start(server: _Server) -> Snapshot:
    found = load_snapshot(server.store, server.agreed.sites)
    if found is not None:
        return found
    agreed, segment, plan = server.agreed, server.segment, server.plan
    model = server_model(model_of(agreed), segment.seed, head_findings(agreed, segment.method))
    shared, _ = part_model(model, plan.sharing)
    private = dict.fromkeys(agreed.sites, PrivateFile(0, None))
    begin = Snapshot(0, shared, private, moments=first_moments(plan.rule, model, shared))
    return save_snapshot(begin, server.store)


def _question(server: _Server, kind: str, site: str, state: Snapshot, kept: Mapping[str, set[int]]) -> Question:
    return Question(
        *(server.agreed.sha256, server.segment.method, server.segment.seed, state.rounds_done),
        state.private[site].rounds_done,
        tuple(sorted(kept.get(site, ()))),
        {} if kind == "join" else state.shared,
        kind,
    )


def _join(server: _Server, state: Snapshot) -> list[str]:
    """Ask every site whether it trains, and return the names of those that do; who does not answer is counted."""
    idle = set(told := _told_idle(server))
    for reply in server.carry({site: _question(server, "join", site, state, {}) for site in server.agreed.sites}):
        if reply.content == IDLE:
            idle.add(reply.site)
        elif reply.content == READY:
            idle.discard(reply.site)
        _note(server, reply)
    rows = [RoundRow(0, site, math.nan, 0.0, 0, 0, IDLE) for site in sorted(idle - told)]
    if rows:
        _tell(server, {"event": "idle", "rows": _plain(rows)})
    names = [site for site in server.agreed.sites if site not in idle]
    if not names:
        raise RunError("no site has two training images: there is nothing to train on.")
    return names


def _told_idle(server: _Server) -> set[str]:
    events = read_events(server.store.folder / EVENTS)
    return {row["site"] for event in events if event["event"] == "idle" for row in event["rows"]}


def _note(server: _Server, reply: Reply) -> None:
    server.misses[reply.site] = server.misses[reply.site] + 1 if reply.silent else 0
    server.reasons[reply.site] = reply.failure


def _ask(server: _Server, names: Sequence[str], round_: int, state: Snapshot) -> Iterator[Answer]:
    """Ask every site that trains but those that are suspended."""
    kept = _kept(server.store)
    asked = {
        site: _question(server, "round", site, state, kept) for site in names if server.misses[site] < _MOST_MISSES
    }
    replies = server.carry(asked)
    for site in names:
        if site not in asked:
            yield Answer(site, 0.0, failure=f"not asked until the next segment: {server.reasons[site]}", silent=True)
            continue
        reply = next(replies)
        _note(server, reply)
        if isinstance(reply.content, SiteUpdate):
            yield Answer(site, reply.seconds, reply.content, PrivateFile(round_ + 1, None))
        else:
            yield Answer(site, reply.seconds, failure=reply.failure, silent=reply.silent)


def _finish(server: _Server, state: Snapshot) -> None:
    """Ask every site to make its model and predictions, which stay with it; who has them says so at once."""
    kept, rules = _kept(server.store), server.agreed.federation
    sent = replace(state, shared=narrowed(state.shared, rules.transfer))
    asked = {site: _question(server, "finish", site, sent, kept) for site in server.agreed.sites}
    idle = _told_idle(server)
    for reply in server.carry(asked):
        if reply.content == FINISHED:
            trained = rules.finetune != "none" and reply.site not in idle
            rows = [RoundRow(rules.rounds, reply.site, math.nan, reply.seconds, 0, 0, "alone")] if trained else []
            _tell(server, {"event": "finished", "site": reply.site, "seconds": reply.seconds, "rows": _plain(rows)})
        else:
            _tell(server, {"event": "unfinished", "site": reply.site, "reason": reply.failure})


def _kept(store: Store) -> dict[str, set[int]]:
    """Return which private states of each site the snapshots name that could still be gone back to."""
    kept: dict[str, set[int]] = {}
    for rounds_done in manifest_rounds(store.folder):
        manifest = read_manifest(store.folder, rounds_done, store.key)
        for site, own in (*manifest.private.items(), *((s, best.private) for s, best in manifest.best.items())):
            kept.setdefault(site, set()).add(own.rounds_done)
    return kept


def _tell_round(server: _Server, rows: list[RoundRow], repeated: bool) -> None:
    _tell(server, {"event": "repeated" if repeated else "round", "round": rows[0].round, "rows": _plain(rows)})


def _plain(rows: list[RoundRow]) -> list[dict[str, object]]:
    return [{name: _finite(value) for name, value in asdict(row).items()} for row in rows]


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tell(server: _Server, event: Mapping[str, object]) -> None:
    about = {"time": round(time.time(), 3), "segment": server.segment.name}
    append_event(server.store.folder / EVENTS, {**about, **event})
