"""A federation as a series of short jobs, each a segment of rounds from the last snapshot.

A site that was lost, or is late, takes part from the next segment on; a server that was killed loses at most the round
it was in. Whether a segment ended is read in our own events; the engine's word is only a hint that it died.
"""

import logging
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvflare.fuel.flare_api.api_spec import JobNotFound, NoConnection, SessionClosed
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

from polyhead.deployment.coordinator import Segment
from polyhead.deployment.events import last_of, read_events
from polyhead.errors import RunError
from polyhead.flare.jobs import write_job

__all__ = ["Patience", "Post", "run_federation", "session_of"]

_log = logging.getLogger(__name__)
_GLANCE = 0.5
_ENDED = ("FINISHED", "ABANDONED", "FAILED")


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
    """Where a supervisor stands: the coordinator's kit and name, and the server's file of events."""

    admin_kit: Path
    admin_name: str
    events: Path


@dataclass(frozen=True)
class _Submitted:
    """A job, and when the server began to which it was given."""

    name: str
    server_began: float


@contextmanager
def session_of(post: Post) -> Iterator[Session]:
    """Open a session with the server, and close it whatever happens: an open one keeps the process alive for ever."""
    try:
        session = new_secure_session(post.admin_name, str(post.admin_kit), timeout=30.0)
    except NoConnection as problem:
        raise RunError(
            f"the server does not answer ({problem}). Start it; or this kit is of another federation: take its own."
        ) from problem
    try:
        yield session
    finally:
        session.close()


def run_federation(
    post: Post, method: str, seed: int, rounds: int, length: int, sites: int, least: int, patience: Patience
) -> int:
    """Submit segments until all rounds are done; return after how many segments they were.

    Parameters
    ----------
    rounds, length
        Of the federation, and at most of a segment.
    sites, least
        How many sites there are, and with how many a segment begins at least.

    Raises
    ------
    RunError
        If a segment failed for a reason that another would not mend, or three in a row came to nothing.
    """
    fruitless, done, number = 0, 0, 0
    while done < rounds:
        number += 1
        before = done
        segment = Segment(f"{method}-{seed}-{secrets.token_hex(4)}", method, seed, min(done + length, rounds))
        last = _run(post, segment, sites, least, patience)
        if last and last["event"] == "failed" and not last["again"]:
            raise RunError(f"segment {segment.name}: {last['reason']}")
        done = max(done, _rounds_done(last))
        fruitless = 0 if done > before else fruitless + 1
        if fruitless == 3:
            raise RunError(f"after {done} rounds three segments in a row came to nothing. Look at the server's log.")
    return number


def _rounds_done(event: Mapping[str, Any] | None) -> int:
    if event is None:
        return 0
    if event["event"] == "round":
        return int(event["round"]) + 1
    return int(event.get("rounds_done", event.get("round", 0)))


def _run(post: Post, segment: Segment, sites: int, least: int, patience: Patience) -> Mapping[str, Any] | None:
    """Run a segment; return its last event, if there is any."""
    with tempfile.TemporaryDirectory() as folder, session_of(post) as session:
        _wait_for_sites(session, sites, least, patience)
        began = _server_began(session)
        job = session.submit_job(str(write_job(Path(folder), segment, patience.deadline, patience.silence, least)))
        _log.info("segment %s is job %s.", segment.name, job)
        return _watch(post, session, segment, _Submitted(job, began), patience)


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


def _watch(
    post: Post, session: Session, segment: Segment, job: _Submitted, patience: Patience
) -> Mapping[str, Any] | None:
    """Wait for a segment's end, its death, or too long a silence."""
    last, heard = None, time.monotonic()
    while True:
        now = last_of(read_events(post.events), segment.name)
        if now != last:
            last, heard = now, time.monotonic()
            _log.info("segment %s: %s, round %s", segment.name, now and now["event"], now and now.get("round", "-"))
        if last and last["event"] in ("ended", "failed"):
            return last
        silent = time.monotonic() - heard > patience.start + (patience.deadline if last else 0)
        if silent or _is_over(session, job):
            # It may have had its last word meanwhile.
            last = last_of(read_events(post.events), segment.name)
            if not (last and last["event"] in ("ended", "failed")):
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
