"""A wire between one site and the server that a test can harm: it passes bytes on, and knows not what they say."""

import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.flare.identity import wait_for

# A site's update is a burst of some hundred kilobytes; questions for work, and signs of life, are far shorter.
_MIDDLE, _PAUSE = 100_000, 0.15
_MOST = 2**16


@dataclass(eq=False)
class Line:
    """A connection of the site, and that to the server which goes with it."""

    site: socket.socket
    server: socket.socket
    sent: bytearray = field(default_factory=bytearray)
    burst: int = 0
    last: float = 0.0
    ended_by: str = ""

    def end(self, who: str) -> None:
        """Close both connections; who was the first to end it is remembered."""
        self.ended_by = self.ended_by or who
        for one in (self.site, self.server):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


Harm = Callable[["Wire", Line, bytes], bytes]
"""Gets bytes from the middle of an update before the server does, and returns what to pass on in their place."""


def alter(wire: "Wire", line: Line, data: bytes) -> bytes:
    """Flip a bit."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def repeat(wire: "Wire", line: Line, data: bytes) -> bytes:
    """Say the same again."""
    return data + data


def cut(wire: "Wire", line: Line, data: bytes) -> bytes:
    """Drop all lines, and refuse new ones."""
    wire.cut()
    return b""


class Wire:
    """Listens on a port of 127.0.0.1, and passes on what comes to the server's; harms when told to."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.lines: list[Line] = []
        self.refused = 0
        self._whole, self._over = True, False
        self._harm: Harm | None = None
        self._harmed = threading.Event()
        self._where: list[Line] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def harm(self, harm: Harm, seconds: float = 300) -> Line:
        """Harm the next update in its middle, once; return the line on which it came when that is done."""
        self._harmed.clear()
        self._harm = harm
        assert self._harmed.wait(seconds), f"no update within {seconds:g} s"
        (line,) = self._where
        return line

    def cut(self) -> None:
        """Drop all lines, and refuse new ones."""
        self._whole = False
        for line in list(self.lines):
            line.end("wire")

    def mend(self) -> None:
        self._whole = True

    def close(self) -> None:
        self._over = True
        self._listener.close()
        self.cut()

    def _listen(self) -> None:
        with suppress(OSError):
            while not self._over:
                site, _ = self._listener.accept()
                if not self._whole:
                    self.refused += 1
                    site.close()
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self._server_port))
                except OSError:
                    site.close()
                    continue
                line = Line(site, server)
                self.lines.append(line)
                for up in (True, False):
                    threading.Thread(target=self._carry, args=(line, up), daemon=True).start()

    def _carry(self, line: Line, up: bool) -> None:
        source, target = (line.site, line.server) if up else (line.server, line.site)
        near, far = ("site", "server") if up else ("server", "site")
        while data := _received(source):
            try:
                target.sendall(self._harmed_or_not(line, data) if up else data)
            except OSError:
                line.end(far)
                return
        line.end(near)

    def _harmed_or_not(self, line: Line, data: bytes) -> bytes:
        line.sent += data
        now = time.monotonic()
        line.burst = len(data) + (line.burst if now - line.last < _PAUSE else 0)
        line.last = now
        with self._lock:
            if line.burst < _MIDDLE or self._harm is None:
                return data
            harm, self._harm = self._harm, None
            self._where = [line]
            try:
                return harm(self, line, data)
            finally:
                self._harmed.set()


def _received(source: socket.socket) -> bytes:
    try:
        return source.recv(_MOST)
    except OSError:
        return b""


HARMS = {"altered": alter, "repeated": repeat, "cut": cut}


@dataclass
class Suffered:
    """What was seen of each harm: the line on which it came, tries refused meanwhile, and what a replay came to."""

    lines: dict[str, Line]
    refused: int
    hung_up: bool


def suffer(wire: Wire, server_port: int, seconds: float, go_on: Callable[[], None]) -> Suffered:
    """Harm a site's line in every way, and let it recover in between; at last play what was repeated to the server.

    Parameters
    ----------
    seconds
        How long all lines are cut at least: until the site has tried to come back.
    go_on
        Waits until some more was said from now on.
    """
    lines, refused = {}, 0
    for name, harm in HARMS.items():
        before = len(wire.lines)
        lines[name] = wire.harm(harm)
        wait_for(f"the line is {name}", lambda name=name: bool(lines[name].ended_by))
        if name == "cut":
            time.sleep(seconds)
            # How soon a site tries again is the engine's affair.
            wait_for("a try is refused", lambda: wire.refused > 0, 120)
            refused = wire.refused
            wire.mend()
        go_on()
        # Where a site's other process has a line, all may go on that.
        wait_for("a new line", lambda before=before: any(line.sent for line in wire.lines[before:]), 60)
    return Suffered(lines, refused, hangs_up(server_port, bytes(lines["repeated"].sent)))


def hold_refused(suffered: Suffered) -> None:
    """Hold that the server ended each line that was harmed, and that the site tried until it was there again."""
    assert suffered.lines["altered"].ended_by == "server"
    assert suffered.lines["repeated"].ended_by == "server"
    assert len(suffered.lines["repeated"].sent) > 100_000
    assert suffered.hung_up
    assert suffered.lines["cut"].ended_by == "wire"
    assert suffered.refused


def hangs_up(port: int, sent: bytes) -> bool:
    """Play a recorded line to the server from its first byte on, on a new one; return whether it hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        with suppress(ConnectionError):
            line.sendall(sent)
        try:
            while line.recv(2**16):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
    return True


def lay_wire(kit: Path) -> Wire:
    """Lay a wire between a site's kit and its server."""
    file = kit / "startup" / "fed_client.json"
    text = file.read_text()
    (port,) = {int(found) for found in re.findall(r'"target": "localhost:(\d+)"', text)}
    wire = Wire(port)
    file.write_text(text.replace(f"localhost:{port}", f"localhost:{wire.port}"))
    return wire
