"""Server or site in the foreground of a terminal: quiet, until it is told to stop or has to give up."""

import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from polyhead.errors import RunError
from polyhead.flare.preflight import Kit
from polyhead.flare.processes import end, remove_jobs, start
from polyhead.stopping import gently

__all__ = ["OUTPUT", "Tell", "serve", "take_part"]

OUTPUT = "output.txt"
"""Where the engine's own words of the last start go, in a kit."""

Tell = Callable[[str], None]
"""Told what a person should know."""

_GLANCE = 0.5
_AT_ONCE = 2**20
# A fault that no waiting mends is believed when it was seen so often.
_ENOUGH = 3
_TWIN = "is here already, and gave a sign of life"


@dataclass(frozen=True)
class _Signs:
    """Words of the engine, in small letters, that say how it goes.

    Attributes
    ----------
    ready
        It works.
    lasting
        It never will, and why.
    passing
        Why it does not yet; it is said if what runs gives up.
    patience
        Seconds until it is given up if it neither works nor says why not.
    otherwise
        What is said then.
    """

    ready: str
    lasting: Mapping[str, str]
    passing: Mapping[str, str]
    patience: float
    otherwise: str


_ASKED = ("gracefully shutdown.", "about to shutdown.")


def serve(kit: Kit, tell: Tell, patience: float = 60.0) -> None:
    """Run the server until it is stopped.

    Parameters
    ----------
    patience
        Seconds until it must listen.

    Raises
    ------
    RunError
        If it does not begin to listen, or ends by itself.
    KeyboardInterrupt, SystemExit
        After Ctrl-C, or SIGTERM: it has ended.
    """
    remove_jobs(kit.folder)
    _refuse_busy(kit.port)
    signs = _Signs(
        "server started",
        {},
        {},
        *(patience, f"the server did not begin to listen within {patience:g} s; see {kit.folder / OUTPUT}."),
    )
    _stay(kit, signs, f"listening on port {kit.port}. Ctrl-C stops the server.", tell)


def take_part(kit: Kit, tell: Tell, patience: float = 600.0) -> None:
    """Run a site until it is stopped, or the coordinator ends the federation.

    Parameters
    ----------
    patience
        Seconds until the server must have answered for the first time.

    Raises
    ------
    RunError
        If it cannot connect, or ends by itself.
    KeyboardInterrupt, SystemExit
        After Ctrl-C, or SIGTERM: it has ended.
    """
    server = f"{kit.host}:{kit.port}"
    foreign = (
        f"the server at {server} is of another federation: its certificate is not from this kit's authority. Use the "
        "kits of one day for server and sites, and see that nothing between them opens TLS."
    )
    remove_jobs(kit.folder)
    _look_for(kit, tell)
    signs = _Signs(
        "successfully registered client",
        {
            "certificate_verify_failed": foreign,
            "certificate verify failed": foreign,
            "unable to get local issuer": foreign,
        },
        {_TWIN: f"site {kit.name} is connected from elsewhere. Only one house may use its kit: end one of the two."},
        patience,
        f"no server answered at {server} within {patience:g} s. See that it runs, and that a firewall lets TCP out "
        f"to port {kit.port}.",
    )
    _stay(kit, signs, f"connected to {server} as {kit.name}. Ctrl-C stops the site.", tell)


def _refuse_busy(port: int) -> None:
    """Refuse a port that somebody listens on: the engine would share it, and each site reach one or the other."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("", port))
        except OSError as problem:
            raise RunError(
                f"port {port}: {problem.strerror}. Another server runs, or another program: end it, or make kits with "
                "another --port."
            ) from problem


def _look_for(kit: Kit, tell: Tell) -> None:
    """Refuse a host that nobody knows, and say if nobody answers there yet: the engine says neither."""
    for tried in range(1, _ENOUGH + 1):
        try:
            socket.create_connection((kit.host, kit.port), timeout=10).close()
            return
        except socket.gaierror as problem:
            if tried == _ENOUGH:
                raise RunError(
                    f"host {kit.host} is unknown here ({problem.strerror}). See that its name can be resolved, "
                    "or ask for kits with another --host."
                ) from problem
            time.sleep(_GLANCE * 4)
        except OSError as problem:
            tell(f"no server at {kit.host}:{kit.port} yet ({problem.strerror or 'no answer'}); trying on.")
            return


def _stay(kit: Kit, signs: _Signs, ready: str, tell: Tell) -> None:
    with (kit.folder / OUTPUT).open("wb") as log, _hang_up(), gently(lambda text: tell("stopping ...")) as stop_here:
        process = start(kit.folder, log)
        heard = _Heard(kit.folder / OUTPUT, (signs.ready, *signs.lasting, *signs.passing, *_ASKED))
        try:
            if _wait(heard, process, signs, stop_here):
                tell(ready)
                while process.poll() is None:
                    stop_here()
                    time.sleep(_GLANCE)
            _judge_end(kit, heard, signs)
        finally:
            end(process, kit.folder)


def _wait(heard: "_Heard", process: "subprocess.Popen[bytes]", signs: _Signs, stop_here: Callable[[], None]) -> bool:
    """Wait until it works, and return True; or it ended, and return False."""
    began = time.monotonic()
    while process.poll() is None:
        stop_here()
        times = heard.times()
        if times[signs.ready]:
            return True
        for fault, why in signs.lasting.items():
            if times[fault] >= _ENOUGH:
                raise RunError(why)
        if time.monotonic() - began > signs.patience:
            raise RunError(signs.otherwise)
        time.sleep(_GLANCE)
    return False


def _judge_end(kit: Kit, heard: "_Heard", signs: _Signs) -> None:
    """Tell an end that was asked for from one that was not."""
    times = heard.times()
    for fault, why in {**signs.lasting, **signs.passing}.items():
        if times[fault] and not times[signs.ready]:
            raise RunError(why)
    if not any(times[asked] for asked in _ASKED):
        raise RunError(f"what ran from {kit.folder} ended by itself; {kit.folder / OUTPUT} says why.")


class _Heard:
    """How often the engine said what matters, from its start on, however much else it says."""

    def __init__(self, output: Path, phrases: Iterable[str]) -> None:
        self._output = output
        self._times: Counter[str] = Counter()
        self._phrases = {phrase: phrase.encode() for phrase in phrases}
        self._read, self._last = 0, b""

    def times(self) -> Counter[str]:
        """Read on, and return how often each phrase came so far, in capitals or not."""
        with self._output.open("rb") as file:
            file.seek(self._read)
            while part := file.read(_AT_ONCE):
                self._read += len(part)
                self._count(part.lower())
        return self._times

    def _count(self, part: bytes) -> None:
        for phrase, wanted in self._phrases.items():
            # Of what came before, one byte too little for the whole phrase: what lies on both sides counts once.
            before = self._last[max(0, len(self._last) - len(wanted) + 1) :]
            self._times[phrase] += (before + part).count(wanted)
        self._last = (self._last + part)[-max(map(len, self._phrases.values())) :]


@contextmanager
def _hang_up() -> Iterator[None]:
    """Let the end of a terminal stop what runs in it, unless it was started to outlive it."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGHUP)
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
