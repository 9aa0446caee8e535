"""A coordinator is told of every change once, and of nothing else."""

from typing import Any

from rich.console import Console
from rich.progress import Progress

from polyhead.cli.watch import watch

WORK = {"method": "ffl", "seed": 3}


def round_(number: int, **statuses: str) -> dict[str, Any]:
    rows = [{"round": number, "site": site, "status": status} for site, status in statuses.items()]
    return {**WORK, "event": "round", "round": number, "rows": rows}


def told(*events: dict[str, Any]) -> tuple[list[str], dict[str, float]]:
    """Return what is said of events, and how far each bar is in the end."""
    said: list[str] = []
    progress = Progress(console=Console(quiet=True))
    tell = watch(progress, ("a", "b"), 4, said.append)
    for event in events:
        tell(event)
    return said, {task.description.strip(): task.completed for task in progress.tasks}


def test_a_site_that_is_away_is_named_once_with_the_reason_and_again_when_it_is_back() -> None:
    gone = "failed: it gives no sign of life."
    said, bars = told(
        {**WORK, "event": "begun", "rounds_done": 0},
        round_(0, a="averaged", b="averaged"),
        round_(1, a="averaged", b=gone),
        round_(2, a="clipped: too far", b=gone),
        round_(3, a="averaged", b="averaged"),
        {**WORK, "event": "ended", "rounds_done": 4},
    )
    assert said == [
        "ffl, seed 3: 0 of 4 rounds are done.",
        f"round 1, b: {gone}",
        "round 3, b: is back.",
        "ffl, seed 3: 4 of 4 rounds are done.",
    ]
    assert bars == {"ffl, seed 3": 4, "a": 4, "b": 2}


def test_bars_are_of_the_method_at_work() -> None:
    _, bars = told(
        round_(0, a="averaged", b="averaged"), {"event": "begun", "method": "local", "seed": 0, "rounds_done": 0}
    )
    assert bars == {"local, seed 0": 0, "a": 0, "b": 0}


def test_between_two_segments_the_rounds_that_are_done_are_said_once() -> None:
    said, bars = told(
        {**WORK, "event": "begun", "rounds_done": 0},
        *(round_(number, a="averaged", b="averaged") for number in range(2)),
        {**WORK, "event": "ended", "rounds_done": 2},
        {**WORK, "event": "begun", "rounds_done": 2},
        *(round_(number, a="averaged", b="averaged") for number in range(2, 4)),
        {**WORK, "event": "ended", "rounds_done": 4},
    )
    assert said == [f"ffl, seed 3: {done} of 4 rounds are done." for done in (0, 2, 4)]
    assert bars == {"ffl, seed 3": 4, "a": 4, "b": 4}


def test_words_of_a_site_cannot_command_the_terminal() -> None:
    said, _ = told({**WORK, "event": "begun", "rounds_done": 0}, round_(0, a="failed: \x1b[2J", b="averaged"))
    assert said[-1] == "round 0, a: failed: \\x1b[2J"


def test_the_evaluation_is_told_site_by_site() -> None:
    said, _ = told(
        {"event": "begun"},
        {"event": "released", "site": "a", "metrics": [{}, {}], "comparisons": []},
        {"event": "released", "site": "b", "metrics": [], "comparisons": []},
        {"event": "unreleased", "site": "b", "reason": "it was away."},
        {"event": "ended"},
    )
    assert said == ["evaluation at the sites.", "a: 2 results came.", "b: releases nothing.", "b: it was away."]
