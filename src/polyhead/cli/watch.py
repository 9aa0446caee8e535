"""What a coordinator sees of a federation that runs: rounds done, who counts, and why not."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.progress import Progress, TaskID

from polyhead.printable import printable

__all__ = ["watch"]

_COUNTED = ("averaged", "clipped", "alone")


def watch(
    progress: Progress, sites: tuple[str, ...], rounds: int, say: Callable[[str], None]
) -> Callable[[Mapping[str, Any]], None]:
    """Return what is told every event of the server; it draws bars, and says what changes.

    A bar is drawn for the method and seed at work, and for each site: the rounds in which it counted.

    Parameters
    ----------
    rounds
        Of one method with one seed.
    """
    bars: dict[str, TaskID] = {}
    away: dict[str, str] = {}
    now, last = [""], [""]

    def begin(what: str) -> None:
        for bar in bars.values():
            progress.remove_task(bar)
        bars.clear()
        for name in ("", *sites):
            bars[name] = progress.add_task(f"  {name}" if name else what, total=rounds)
        now[0] = what

    def told(event: Mapping[str, Any]) -> None:
        what = _work_of(event)
        if what and what != now[0]:
            begin(what)
        kind = event["event"]
        if kind == "begun" and what:
            progress.update(bars[""], completed=event.get("rounds_done", 0))
        elif kind == "round":
            progress.update(bars[""], completed=event["round"] + 1)
            for row in event["rows"]:
                if row["status"].startswith(_COUNTED):
                    progress.advance(bars[row["site"]])
        for line in _lines(event, what, rounds, away):
            # A segment begins with as many rounds as the one before it ended with.
            if line != last[0]:
                say(printable(line))
            last[0] = line

    return told


def _work_of(event: Mapping[str, Any]) -> str:
    """Return the method and seed of an event; blank for the evaluation, which is of all."""
    return f"{event['method']}, seed {event['seed']}" if "method" in event else ""


def _lines(event: Mapping[str, Any], what: str, rounds: int, away: dict[str, str]) -> list[str]:
    """Say what a person wants to know of an event; `away` holds who does not count, and why."""
    kind = event["event"]
    if kind == "begun":
        return [f"{what}: {event['rounds_done']} of {rounds} rounds are done." if what else "evaluation at the sites."]
    if kind == "ended":
        return [f"{what}: {event['rounds_done']} of {rounds} rounds are done."] if what else []
    if kind == "failed":
        return [f"{what or 'evaluation'}: {event['reason']}"]
    if kind in ("unfinished", "unreleased"):
        return [f"{event['site']}: {event['reason']}"]
    if kind == "released":
        came = f"{len(event['metrics'])} results came." if event["metrics"] else "releases nothing."
        return [f"{event['site']}: {came}"]
    return [line for row in event.get("rows", ()) for line in _changes(event, row, away)]


def _changes(event: Mapping[str, Any], row: Mapping[str, Any], away: dict[str, str]) -> list[str]:
    site, status = row["site"], row["status"]
    # From 0, as in rounds.csv, where whoever reads this looks next.
    where = f"round {row['round']}, {site}"
    if status.startswith(_COUNTED):
        return [f"{where}: is back."] if away.pop(site, "") else []
    if site in away:
        return []
    away[site] = status
    return [f"{where}: {status}"]
