"""A federation as a series of segments: how long one is if nobody says so, and what counts as done."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from polyhead.deployment.agreed import Agreed
from polyhead.errors import RunError
from polyhead.flare import supervisor
from polyhead.flare.supervisor import Patience, Post, run_federation, usual_length


def segment(name: str, begun: float, *ends: float) -> list[dict[str, Any]]:
    first = {"segment": name, "event": "begun", "time": begun}
    return [first, *({"segment": name, "event": "round", "time": end} for end in ends)]


def test_the_first_segment_is_short() -> None:
    assert usual_length([]) == usual_length(segment("first", 0.0)) == 10


@pytest.mark.parametrize(("seconds", "rounds"), [(0.35, 1714), (2.0, 300), (60.0, 10), (400.0, 2), (5000.0, 1)])
def test_later_ones_take_ten_minutes(seconds: float, rounds: int) -> None:
    """The wait for the first answer of the sites is no part of a round."""
    assert usual_length(segment("first", 0.0, *(30.0 + seconds * number for number in range(10)))) == rounds


def test_a_segment_of_one_long_round_is_followed_by_another() -> None:
    assert usual_length(segment("first", 0.0, 900.0)) == 1


def test_the_last_segment_with_a_round_decides() -> None:
    events = [*segment("fast", 0.0, 1.0, 2.0), *segment("slow", 30.0, 50.0, 80.0), *segment("lost", 200.0)]
    assert usual_length(events) == 20


def test_a_clock_that_was_set_back_decides_nothing() -> None:
    assert usual_length(segment("first", 100.0, 50.0, 20.0)) == 10


def test_a_job_that_the_engine_calls_completed_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only rounds that the server's own events count are done (F14)."""
    sites = [SimpleNamespace(name=name, last_connect_time=1.0) for name in "abc"]
    server = SimpleNamespace(
        get_connected_client_list=lambda: sites,
        get_system_info=lambda: SimpleNamespace(server_info=SimpleNamespace(start_time=1.0)),
        submit_job=lambda folder: "job",
        get_job_meta=lambda job: {"status": "FINISHED:COMPLETED"},
        abort_job=lambda job: None,
        close=lambda: None,
    )
    monkeypatch.setattr(supervisor, "new_secure_session", lambda *given, **named: server)
    agreed = Agreed({"federation": {}}, ("a", "b", "c"), "f" * 64)
    post = Post(tmp_path, "coordinator", tmp_path)
    with pytest.raises(RunError, match="after 0 rounds three segments in a row came to nothing"):
        run_federation(post, agreed, "ffl", 0, Patience(), None, lambda event: None)
