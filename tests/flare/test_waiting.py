"""Before a segment begins its sites are waited for: those that are there, not those that the server still names."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from polyhead.deployment.agreed import Agreed
from polyhead.deployment.events import append_event
from polyhead.errors import RunError
from polyhead.flare import supervisor
from polyhead.flare.line import Line
from polyhead.flare.supervisor import Patience, Post, _wait_for_sites, _Work

AGREED = Agreed({"federation": {}}, ("a", "b", "c"), "f" * 64)


class Clock:
    """Time passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Listed:
    """A server that names c until it is dropped; a and b give a sign of life every ten seconds, c once it is back."""

    def __init__(self, clock: Clock, back: float = 1e9, dropped: float = 60.0) -> None:
        self._clock, self._back, self._dropped = clock, back, dropped

    def get_connected_client_list(self) -> list[Any]:
        now = 1000.0 + self._clock.now
        signs = {"a": now - now % 10, "b": now - (now + 5) % 10}
        if self._clock.now >= self._back:
            signs["c"] = 1000.0 + self._back
        elif self._clock.now < self._dropped:
            signs["c"] = 985.0
        return [SimpleNamespace(name=name, last_connect_time=sign) for name, sign in signs.items()]


def line(clock: Clock, **about: float) -> Line:
    return Line(Listed(clock, **about), 60.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(supervisor, "time", clock)
    return clock


@pytest.fixture
def work(tmp_path: Path) -> _Work:
    post = Post(tmp_path, "coordinator", tmp_path)
    return _Work(post, AGREED, Patience(sites=40.0), tmp_path / "events.jsonl", {}, lambda event: None)


def tell(work: _Work, event: str, c: str = "", **about: Any) -> None:
    """Let the server have written an event at 996 s; in a round a and b counted."""
    rows = [{"site": site, "status": "averaged"} for site in "ab"] + [{"site": "c", "status": c}]
    append_event(work.events, {"time": 996.0, "event": event, **({"rows": rows} if c else {}), **about})


@pytest.mark.parametrize("event", ["round", "repeated"])
def test_a_site_that_was_missed_is_waited_for_though_the_server_names_it(event: str, work: _Work, clock: Clock) -> None:
    tell(work, event, "failed: it gives no sign of life.")
    _wait_for_sites(work, line(clock, back=30.0), 2)
    assert clock.now == 30.0


def test_a_site_that_did_not_finish_is_waited_for_and_one_that_did_is_not(work: _Work, clock: Clock) -> None:
    tell(work, "round", "averaged")
    tell(work, "unfinished", site="c", reason="gone")
    _wait_for_sites(work, line(clock, back=30.0), 1)
    assert clock.now == 30.0
    tell(work, "finished", site="c")
    clock.now = 0.0
    _wait_for_sites(work, line(clock), 1)
    assert clock.now == 0.0


def test_nobody_is_waited_for_who_counted_in_the_last_round(work: _Work, clock: Clock) -> None:
    tell(work, "round", "failed: it gives no sign of life.")
    tell(work, "round", "averaged")
    _wait_for_sites(work, line(clock), 2)
    assert clock.now == 0.0


def test_it_is_not_waited_for_longer_than_for_any_other(work: _Work, clock: Clock) -> None:
    tell(work, "round", "failed: it gives no sign of life.")
    _wait_for_sites(work, line(clock), 2)
    assert 40.0 < clock.now <= 41.0


def test_if_it_is_needed_the_segment_does_not_begin_without_it(work: _Work, clock: Clock) -> None:
    tell(work, "round", "failed: it gives no sign of life.")
    with pytest.raises(RunError, match="2 of 3 sites are connected, and 3 are needed"):
        _wait_for_sites(replace(work, patience=Patience(sites=4.0)), line(clock), 3)
