"""A federation as a series of short jobs, each a segment of rounds from the last snapshot.

A site that was lost, or is late, takes part from the next segment on; a server that was killed loses at most the round
it was in. Whether a segment ended is read in our own events; the engine's word is only a hint that it died.
"""

import logging
import math
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from nvflare.fuel.flare_api.api_spec import JobNotFound, NoConnection, SessionClosed
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

from polyhead.deployment.agreed import Agreed
from polyhead.deployment.coordinator import EVENTS, Segment, store_of
from polyhead.deployment.events import last_of, read_events
from polyhead.deployment.results import begin_run, evaluation_events, unreleased
from polyhead.errors import RunError
from polyhead.flare.jobs import write_job
from polyhead.flare.processes import silenced

__all__ = ["Patience", "Post", "Tell", "run_federation", "run_study", "session_of", "usual_length"]

_log = logging.getLogger(__name__)
_GLANCE = 0.5
_ENDED = ("FINISHED", "ABANDONED", "FAILED")
# How often sites that were away are asked for what they owe after the last round.
_TRIES = 3
# Rounds of the first segment, and seconds that later ones should take.
_FIRST, _SEGMENT = 10, 600.0

Tell = Callable[[Mapping[str, Any]], None]
"""Gets each of our own events once; those of a federation with its method and seed."""


@dataclass(frozen=True)
class Patience:
    """How long what is waited for, in seconds.

    Attributes
    ----------
    sites
        For sites to connect before a segment begins without them.
    deadline
        For a site in a round.
    silence
        For a sign of life of a site in a round.
    start
        For the first event of a segment; and for one beyond a round's deadline, before the segment is given up.
    """

    sites: float = 60.0
    deadline: float = 3600.0
    silence: float = 30.0
    start: float = 120.0


@dataclass(frozen=True)
class Post:
    """Where a supervisor stands: the coordinator's kit and name, and the server's folder of states."""

    admin_kit: Path
    admin_name: str
    states: Path


@dataclass(frozen=True)
class _Submitted:
    """A job, and when the server began to which it was given."""

    name: str
    server_began: float


@contextmanager
def session_of(post: Post) -> Iterator[Session]:
    """Open a session with the server, and close it whatever happens: an open one keeps the process alive for ever."""
    try:
        with silenced():
            session = new_secure_session(post.admin_name, str(post.admin_kit), timeout=30.0)
    except NoConnection as problem:
        raise RunError(
            f"the server does not answer ({problem}). Start it; or this kit is of another federation: take its own."
        ) from problem
    try:
        yield session
    finally:
        session.close()


@dataclass(frozen=True)
class _Work:
    """Who is told of which events."""

    post: Post
    agreed: Agreed
    patience: Patience
    events: Path
    about: Mapping[str, Any]
    tell: Tell

    @property
    def least(self) -> int:
        """With how many sites a segment begins at least."""
        return self.agreed.federation.min_sites or math.ceil(len(self.agreed.sites) / 2)


def run_study(post: Post, agreed: Agreed, out: Path, patience: Patience, length: int | None, tell: Tell) -> Path:
    """Run every method with every seed, let the sites evaluate, and return the report; what is done is not done again.

    Sites that are away at the end are named in the report; the same call later asks them again.

    Parameters
    ----------
    out
        The coordinator's own run directory.
    length
        Rounds of a segment, at most; None for as many as take some ten minutes: a start costs some ten seconds, and a
        lost site waits for the next.

    Raises
    ------
    RunError
        As `run_federation`; if the evaluation fails; if `out` is of another study.
    """
    begin_run(agreed, out)
    for _ in range(_TRIES):
        for seed, method in product(agreed.settings["seeds"], agreed.settings["methods"]):
            run_federation(post, agreed, method, seed, patience, length, tell)
        if not unreleased(agreed, post.states):
            break
        work = _Work(post, agreed, patience, evaluation_events(post.states), {}, tell)
        last = _run(work, Segment(f"evaluation-{secrets.token_hex(4)}", "", 0, 0), 1)
        if last and last["event"] == "failed":
            raise RunError(f"evaluation: {last['reason']}")
    # What draws takes seconds to import, for which no other command should wait.
    from polyhead.deployment.gathering import gather

    return gather(agreed, post.states, out)


def run_federation(
    post: Post, agreed: Agreed, method: str, seed: int, patience: Patience, length: int | None, tell: Tell
) -> int:
    """Submit segments until all rounds are done and the sites have finished; return after how many segments they were.

    A site that is away after the last round is waited for once more, and then left for another call.

    Raises
    ------
    RunError
        If a segment failed for a reason that another would not mend, or three in a row came to nothing.
    """
    events = store_of(agreed, post.states, method, seed).folder / EVENTS
    work = _Work(post, agreed, patience, events, {"method": method, "seed": seed}, tell)
    fruitless, number, late, rounds = 0, 0, 0, agreed.federation.rounds
    done = _rounds_done(read_events(events))
    while done < rounds or (_unfinished(agreed, events) and late < 2):
        number += 1
        late += done == rounds
        before = done
        until = min(done + (length or usual_length(read_events(events))), rounds)
        segment = Segment(f"{method}-{seed}-{secrets.token_hex(4)}", method, seed, until)
        last = _run(work, segment, work.least if done < rounds else 1)
        if last and last["event"] == "failed" and not last["again"]:
            raise RunError(f"segment {segment.name}: {last['reason']}")
        done = max(done, _rounds_done(read_events(events)))
        late += before < done == rounds
        fruitless = 0 if done > before or done == rounds else fruitless + 1
        if fruitless == 3:
            raise RunError(f"after {done} rounds three segments in a row came to nothing. Look at the server's log.")
    return number


def _rounds_done(events: list[dict[str, Any]]) -> int:
    return max((event["round"] + 1 for event in events if event["event"] == "round"), default=0)


def usual_length(events: Sequence[Mapping[str, Any]]) -> int:
    """Return how many rounds take some ten minutes, by those of the last segment that had any; 10 before the first."""
    newest = next((event["segment"] for event in reversed(events) if event["event"] == "round"), None)
    ends = [event["time"] for event in events if event["event"] == "round" and event["segment"] == newest]
    if len(ends) == 1:
        # Of a lone round only its segment's begin is known, which is some seconds too early.
        ends = [*(e["time"] for e in events if e["event"] == "begun" and e["segment"] == newest), *ends]
    seconds = (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else 0.0
    # A clock may have been set back meanwhile.
    return max(1, round(_SEGMENT / seconds)) if seconds > 0 else _FIRST


def _unfinished(agreed: Agreed, events: Path) -> bool:
    last = {e["site"]: e["event"] for e in read_events(events) if e["event"] in ("finished", "unfinished")}
    return any(last.get(site) != "finished" for site in agreed.sites)


def _run(work: _Work, segment: Segment, least: int) -> Mapping[str, Any] | None:
    """Run a segment; return its last event, if there is any."""
    patience = work.patience
    with tempfile.TemporaryDirectory() as folder, session_of(work.post) as session:
        _wait_for_sites(session, len(work.agreed.sites), least, patience)
        began = _server_began(session)
        job = session.submit_job(str(write_job(Path(folder), segment, patience.deadline, patience.silence, least)))
        _log.info("segment %s is job %s.", segment.name, job)
        try:
            return _watch(work, session, segment, _Submitted(job, began))
        except BaseException:
            # Nobody would listen to it, and it would keep the next segment away.
            with suppress(Exception):
                session.abort_job(job)
            raise


def _wait_for_sites(session: Session, sites: int, least: int, patience: Patience) -> None:
    began = time.monotonic()
    while (here := len(session.get_connected_client_list())) < sites:
        waited = time.monotonic() - began
        if waited > patience.sites and here >= least:
            _log.warning("%d of %d sites are connected; the segment begins without the others.", here, sites)
            return
        if waited > 10 * patience.sites:
            raise RunError(f"{here} of {sites} sites are connected, and {least} are needed. Start the others.")
        time.sleep(_GLANCE)


def _watch(work: _Work, session: Session, segment: Segment, job: _Submitted) -> Mapping[str, Any] | None:
    """Wait for a segment's end, its death, or too long a silence."""
    told, heard, patience = 0, time.monotonic(), work.patience
    while True:
        # It may have had its last word just before it ended.
        over = _is_over(session, job)
        events = [event for event in read_events(work.events) if event.get("segment") == segment.name]
        for event in events[told:]:
            work.tell({**work.about, **event})
            heard = time.monotonic()
        told = len(events)
        last = last_of(events, segment.name)
        if last and last["event"] in ("ended", "failed"):
            return last
        if over or time.monotonic() - heard > patience.start + (patience.deadline if last else 0):
            _log.warning("segment %s died; another begins from the last snapshot.", segment.name)
            with suppress(Exception):
                session.abort_job(job.name)
            return last
        time.sleep(_GLANCE)


def _is_over(session: Session, job: _Submitted) -> bool:
    try:
        status = str(session.get_job_meta(job.name).get("status", ""))
        # A server that was started anew knows the job, and calls it running for ever.
        return status.startswith(_ENDED) or _server_began(session) != job.server_began
    except JobNotFound:
        return True
    except (NoConnection, SessionClosed):
        return False


def _server_began(session: Session) -> float:
    return float(session.get_system_info().server_info.start_time)
