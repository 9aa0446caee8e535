"""How long a segment of rounds is if nobody says so."""

from typing import Any

import pytest

from polyhead.flare.supervisor import usual_length


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
