"""A process that trains one job after the other for `polyhead.workers`; ``python -m polyhead.worker DESCRIPTOR``.

Both speak JSON, a line a message: orders come by standard input, and what there is to tell goes to the descriptor. So
nothing is unpickled, and nothing that a library prints is taken for a message. The end of standard input is the end of
the process that gives orders, and of this one, at once: what is on disk is good at any moment.
"""

import fcntl
import io
import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from rich.console import Console
from rich.progress import Progress

from polyhead import errors
from polyhead.config import StudyConfig
from polyhead.environment import keep_inputs
from polyhead.errors import PolyheadError
from polyhead.federation.methods import METHODS
from polyhead.federation.rounds import RoundRow
from polyhead.job import Job, RoundTable, run_job
from polyhead.sites import SiteSource, open_site, read_site
from polyhead.training.device import resolve_device, use_threads

__all__ = ["error_of", "main", "words_of"]

_TOLD_EVERY = 0.2  # seconds
_OURS = "polyhead"

Message = dict[str, Any]


def main() -> None:
    """Obey orders until there are none; never returns."""
    status = 1
    try:
        _obey(_Line(int(sys.argv[1])))
        status = 0
    except SystemExit:
        status = 128 + signal.SIGTERM
    except BaseException:
        traceback.print_exc()
    finally:
        # Not by return: Python's own end would trip over the thread that waits for orders.
        os._exit(status)


def _obey(line: "_Line") -> None:
    begin = line.orders.get()
    use_threads(begin["threads"])
    run = Path(begin["run"])
    with (run / "study.toml").open("rb") as held:
        # Whoever goes on with the run waits for it. If that is someone already, this process is late and does nothing.
        fcntl.flock(held, fcntl.LOCK_SH)
        if os.getppid() == begin["parent"]:
            _work(line, run, StudyConfig.model_validate_json(begin["study"]))


def _work(line: "_Line", run: Path, study: StudyConfig) -> None:
    # What there is to say of the sites was said; without any handler Python would say it again, here.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        sources = _open_sites(run, study)
    except Exception as problem:
        line.tell(kind="failed", **words_of(problem))
        return
    logging.getLogger().addHandler(_Teller(line))
    logging.getLogger(_OURS).setLevel(logging.INFO)
    device, table = resolve_device(study.training.device), RoundTable(line.append, line.trim, line.mend)
    while True:
        line.tell(kind="ready")
        order = line.orders.get()
        job = Job(study, run, device, order["key"], METHODS[order["method"]], order["seed"], table)
        _run(line, job, sources)


def _open_sites(run: Path, study: StudyConfig) -> list[SiteSource]:
    """Open the sites as the other process did, by its pixel caches; tables that changed in between are refused."""
    manifests = {site.name: read_site(site) for site in study.site}
    keep_inputs(run / "inputs.json", study, manifests)
    return [open_site(site, manifests[site.name], study, lambda done, total: None) for site in study.site]


def _run(line: "_Line", job: Job, sources: Sequence[SiteSource]) -> None:
    progress = Progress(console=Console(file=io.StringIO(), record=True, width=1000, color_system=None))
    over = threading.Event()
    showing = threading.Thread(target=_show, args=(line, progress, over), daemon=True)
    showing.start()
    try:
        run_job(job, sources, progress)
    except Exception as problem:
        line.tell(kind="failed", **words_of(problem))
    finally:
        over.set()
        showing.join()


def _show(line: "_Line", progress: Progress, over: threading.Event) -> None:
    """Tell of progress now and then, not at every step."""
    last: Message = {}
    while True:
        ended = over.wait(_TOLD_EVERY)
        tasks = [(task.description, task.completed, task.total) for task in progress.tasks]
        shown: Message = {"tasks": tasks[:1], "text": progress.console.export_text().rstrip("\n")}
        if shown != last or ended:
            line.tell(kind="shown", **shown)
        if ended:
            return
        last = {**shown, "text": ""}


class _Line:
    """The way to and from the process that gives orders."""

    def __init__(self, descriptor: int) -> None:
        self.orders: SimpleQueue[Message] = SimpleQueue()
        self._out = os.fdopen(descriptor, "w", encoding="utf-8")
        # Held again by the same thread where a signal comes while it tells: who handles the signal tells of that.
        self._one_at_a_time = threading.RLock()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for text in sys.stdin:
            order = json.loads(text)
            if order.get("stop"):
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                self.orders.put(order)
        os._exit(0)

    def tell(self, **message: object) -> None:
        text = json.dumps(message) + "\n"
        with self._one_at_a_time:
            self._out.write(text)
            self._out.flush()

    def append(self, run: Path, method: str, seed: int, rows: Sequence[RoundRow]) -> None:
        self._have_done("append", method, seed, [asdict(row) for row in rows])

    def trim(self, run: Path, method: str, seed: int, rounds_done: int) -> None:
        self._have_done("trim", method, seed, rounds_done)

    def mend(self, run: Path, method: str, seed: int, rounds: int) -> None:
        self._have_done("mend", method, seed, rounds)

    def _have_done(self, what: str, method: str, seed: int, argument: object) -> None:
        """Let the other process write to the table of all jobs; go on when it has."""
        self.tell(kind="rounds", what=what, method=method, seed=seed, argument=argument)
        answer = self.orders.get()
        if answer["failed"]:
            raise error_of(answer["failed"])


class _Teller(logging.Handler):
    """Sends records to where the run's log and the terminal are."""

    def __init__(self, line: _Line) -> None:
        super().__init__()
        self.line = line

    def emit(self, record: logging.LogRecord) -> None:
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
        about = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname}
        text = {"msg": record.getMessage(), "exc_text": trace, "created": record.created}
        self.line.tell(kind="log", record={**about, **text})


def words_of(problem: Exception) -> Message:
    """Return an error as JSON can hold it."""
    system = (problem.errno, problem.strerror, problem.filename) if isinstance(problem, OSError) else None
    trace = (
        None
        if isinstance(problem, PolyheadError | OSError)
        else logging.Formatter().formatException((type(problem), problem, problem.__traceback__))
    )
    return {"error": type(problem).__name__, "text": str(problem), "system": system, "trace": trace}


def error_of(words: Mapping[str, Any]) -> Exception:
    """Return the error that `words_of` told of; one that is nobody's mistake as a RuntimeError with its name."""
    if words["error"] in errors.__all__:
        error: Exception = getattr(errors, words["error"])(words["text"])
        return error
    if words["system"] and words["system"][0]:
        return OSError(*words["system"])
    fault = RuntimeError(f"{words['error']}: {words['text']}")
    # For --debug; run.log has it, too.
    fault.add_note(str(words["trace"]))
    return fault


if __name__ == "__main__":
    main()
