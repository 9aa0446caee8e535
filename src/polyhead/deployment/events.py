"""What a federation's server did, in a file of its own: one JSON object a line.

Who waits for a segment of rounds believes this file and nothing else: it is written after an update was counted and
averaged, by the code that did it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyhead.atomic import append_durably
from polyhead.errors import RunError
from polyhead.limited_file import read_limited

__all__ = ["append_event", "last_of", "missed_sites", "read_events"]

_MOST_BYTES = 2**28


def append_event(file: Path, event: Mapping[str, Any]) -> None:
    """Add an event; on return it is on disk.

    Raises
    ------
    DiskError
        If the disk is full.
    """
    # The line before may have been cut off by a kill.
    append_durably(file, f"\n{json.dumps(dict(event), allow_nan=False)}\n")


def read_events(file: Path) -> list[dict[str, Any]]:
    """Return all events that are whole; none if there is no file.

    Raises
    ------
    RunError
        If the file cannot be read.
    """
    if not file.exists():
        return []
    found = []
    for line in read_limited(file, RunError, _MOST_BYTES).split(b"\n"):
        try:
            event = json.loads(line) if line else None
        except ValueError:
            continue
        if isinstance(event, dict):
            found.append(event)
    return found


def last_of(events: Sequence[Mapping[str, Any]], segment: str) -> Mapping[str, Any] | None:
    """Return the last event of a segment, if it has any."""
    return next((event for event in reversed(events) if event.get("segment") == segment), None)


def missed_sites(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return when each site that failed when it was last asked did so, by the server's clock."""
    missed: dict[str, float] = {}
    for event in events:
        if event["event"] in ("round", "repeated"):
            missed = {row["site"]: event["time"] for row in event["rows"] if row["status"].startswith("failed")}
        elif event["event"] in ("finished", "unfinished"):
            missed.pop(event["site"], None)
            missed |= {event["site"]: event["time"]} if event["event"] == "unfinished" else {}
    return missed
