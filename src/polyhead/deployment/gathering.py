"""The coordinator's run directory: what the sites released, the rounds as the server's events tell them, a report."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl

from polyhead.atomic import write_atomically
from polyhead.deployment.agreed import Agreed
from polyhead.deployment.coordinator import EVENTS, store_of
from polyhead.deployment.events import read_events
from polyhead.deployment.question import IDLE
from polyhead.deployment.results import begin_run, evaluation_events, unreleased
from polyhead.evaluation import COMPARISONS, METRICS
from polyhead.federation.rounds import RoundRow, append_rounds
from polyhead.report import write_report

__all__ = ["gather"]

_HOME = "stays at the hospital"
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def gather(agreed: Agreed, folder: Path, out: Path) -> Path:
    """Write the coordinator's run directory from the server's events, and return its report.

    Raises
    ------
    RunError
        If the directory holds another study's.
    DiskError
        If the disk is full.
    """
    begin_run(agreed, out)
    write_atomically(out / "study.toml", "".join(f"{line}\n" for line in _study_lines(agreed)))
    (out / "rounds.csv").unlink(missing_ok=True)
    for method, seed in product(agreed.settings["methods"], agreed.settings["seeds"]):
        append_rounds(out, method, seed, list(_rows(agreed, folder, method, seed)))
    released = {e["site"]: e for e in read_events(evaluation_events(folder)) if e["event"] == "released"}
    for name, columns in (("metrics", METRICS), ("comparisons", COMPARISONS)):
        rows = [{"site": site, "metric": "auroc", **row} for site in sorted(released) for row in released[site][name]]
        write_atomically(out / f"{name}.csv", pl.DataFrame(rows, schema=columns).write_csv())
    nothing = {site: "has released nothing." for site, event in released.items() if not event["metrics"]}
    silent = {site: f"has not released its results: {why}" for site, why in unreleased(agreed, folder).items()}
    write_atomically(out / "at_home.json", json.dumps({"silent": nothing | silent}, indent=2) + "\n")
    return write_report(out)


def _rows(agreed: Agreed, folder: Path, method: str, seed: int) -> list[RoundRow]:
    """Return the rows of all rounds that counted, and of attempts at them; a server that went back did them again."""
    rows: list[RoundRow] = []
    finished: dict[str, RoundRow] = {}
    for event in read_events(store_of(agreed, folder, method, seed).folder / EVENTS):
        told = [RoundRow(**{**row, "loss": _number(row["loss"])}) for row in event.get("rows", ())]
        if event["event"] == "finished":
            finished |= {row.site: row for row in reversed(told) if row.site not in finished}
        elif event["event"] == "begun":
            rows = [row for row in rows if row.round < event["rounds_done"] or row.status == IDLE]
        else:
            rows += told
    return [*rows, *finished.values()]


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _study_lines(agreed: Agreed) -> Iterator[str]:
    yield "# What all hospitals agreed on; where each has its data is its own affair."
    if agreed.weights:
        yield f"# Initial weights: SHA-256 {agreed.weights.sha256}"
    tables = {key: value for key, value in agreed.settings.items() if isinstance(value, dict)}
    yield from _plain_lines({key: value for key, value in agreed.settings.items() if key not in tables})
    for site in agreed.sites:
        yield from ("", "[[site]]", *_plain_lines({"name": site, "manifest": _HOME}))
    for key, table in tables.items():
        yield from _table_lines(key, table)


def _table_lines(path: str, table: Mapping[str, Any]) -> Iterator[str]:
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    yield from ("", f"[{path}]", *_plain_lines({key: value for key, value in table.items() if key not in inner}))
    for key, value in inner.items():
        yield from _table_lines(f"{path}.{key}", value)


def _plain_lines(settings: Mapping[str, Any]) -> Iterator[str]:
    for key, value in settings.items():
        if value is not None:
            yield f"{key if _BARE.fullmatch(key) else _shown(key)} = {_shown(value)}"


def _shown(value: Any) -> str:
    # Text, numbers and lists read the same in JSON and TOML, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
