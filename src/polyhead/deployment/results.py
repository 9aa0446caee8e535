"""The server's side of the evaluation: every site measures its models at home, and says what its policy allows."""

import json
import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from itertools import product
from pathlib import Path

from polyhead.atomic import write_atomically
from polyhead.deployment.agreed import Agreed
from polyhead.deployment.coordinator import EVENTS, Carry, store_of
from polyhead.deployment.events import append_event, read_events
from polyhead.deployment.question import UNFINISHED, Question
from polyhead.deployment.release import Release
from polyhead.errors import PolyheadError, RunError
from polyhead.federation.run_lock import locked, signed
from polyhead.json_file import read_object

__all__ = ["begin_run", "evaluation_events", "run_evaluation", "unreleased"]

_REMEDY = "Choose another folder."
_NEVER = "was not asked yet."


def begin_run(agreed: Agreed, out: Path) -> None:
    """Make the coordinator's run directory, or go on with it, before hours are spent on what it could not hold.

    Raises
    ------
    RunError
        If it holds another study's.
    DiskError
        If the disk is full.
    """
    file = out / "environment.json"
    if file.exists() and read_object(file, _REMEDY).get("agreement") != agreed.sha256:
        raise RunError(f"{out}: holds a run of another study. {_REMEDY}")
    about = {"polyhead": version("polyhead"), "python": platform.python_version(), "agreement": agreed.sha256}
    write_atomically(file, json.dumps(about, indent=2) + "\n")


def evaluation_events(folder: Path) -> Path:
    """Return the file of the events of the evaluation, below the server's states."""
    return folder / "evaluation" / EVENTS


def run_evaluation(agreed: Agreed, name: str, folder: Path, carry: Carry) -> None:
    """Ask every site that has released nothing yet to measure its models; what comes is in the events.

    Parameters
    ----------
    name
        By which its events are known.
    folder
        Where the server keeps its states.
    """
    file = evaluation_events(folder)

    def tell(event: Mapping[str, object]) -> None:
        append_event(file, {"time": round(time.time(), 3), "segment": name, **event})

    try:
        with locked(file.parent) as lock, signed(lock):
            tell({"event": "begun"})
            question = Question(agreed.sha256, "", 0, 0, 0, (), {}, "evaluate")
            for reply in carry(dict.fromkeys(unreleased(agreed, folder), question)):
                tell(_event(agreed, folder, reply.site, reply.content, reply.failure))
            tell({"event": "ended"})
    except PolyheadError as problem:
        tell({"event": "failed", "reason": str(problem), "again": False})


def _event(agreed: Agreed, folder: Path, site: str, content: object, failure: str) -> dict[str, object]:
    if isinstance(content, Release):
        return {
            "event": "released",
            "site": site,
            "metrics": list(content.metrics),
            "comparisons": list(content.comparisons),
        }
    if content == UNFINISHED:
        failure = "its models or predictions are missing or were changed. It is asked for them again."
        for method, seed in product(agreed.settings["methods"], agreed.settings["seeds"]):
            again = {"time": round(time.time(), 3), "event": "unfinished", "site": site, "reason": failure}
            append_event(store_of(agreed, folder, method, seed).folder / EVENTS, again)
    return {"event": "unreleased", "site": site, "reason": failure}


def unreleased(agreed: Agreed, folder: Path) -> dict[str, str]:
    """Return the sites that have not released yet, each with the last reason; one whose policy says nothing has."""
    left = dict.fromkeys(agreed.sites, _NEVER)
    for event in read_events(evaluation_events(folder)):
        if event["event"] == "released":
            left.pop(event["site"], None)
        elif event["event"] == "unreleased" and event["site"] in left:
            left[event["site"]] = event["reason"]
    return left
