"""The engine's own line, with our kits and the settings of our houses, while it is altered, repeated, replayed and cut.

`test_wire.py` does the same to a whole federation.
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from polyhead.flare.kits import Server, provision
from tests.flare.houses import ADMIN, free_ports
from tests.flare.identity import wait_for
from tests.flare.wire import Suffered, Wire, hold_refused, suffer

pytestmark = pytest.mark.slow
CUT = 5.0  # seconds


@dataclass
class Wired:
    """A server, a site and a wire between them, and what was seen of each fault."""

    folder: Path
    wire: Wire
    suffered: Suffered | None = None

    def said(self, name: str) -> list[list[str]]:
        """Every whole line that one end printed, in words."""
        text = (self.folder / f"{name}.txt").read_text()
        return [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n") and line[0].isdigit()]


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wired]:
    folder, ports = tmp_path_factory.mktemp("line"), free_ports(2)
    kits = provision(folder / "kits", "{}", ["a"], Server("localhost", *ports), ADMIN)
    wired = Wired(folder, Wire(ports[0]))

    def go_on() -> None:
        done = len(wired.said("a"))
        wait_for("the next updates", lambda: len(wired.said("a")) > done + 1, 300)

    running = []
    try:
        for name, kit, port in (("server", kits.server, ports[0]), ("a", kits.sites["a"], wired.wire.port)):
            command = [sys.executable, "-m", "tests.flare.peer", str(kit), str(port)]
            with (folder / f"{name}.txt").open("wb") as file, (folder / f"{name}.log").open("wb") as log:
                running.append(subprocess.Popen(command, stdout=file, stderr=log, cwd=Path(__file__).parents[2]))
        wait_for("something arrives", lambda: len(wired.said("a")) > 1, 300)
        wired.suffered = suffer(wired.wire, ports[0], CUT, go_on)
        go_on()
        yield wired
    finally:
        for one in running:
            one.kill()
            one.wait()
        wired.wire.close()


def test_whatever_is_done_to_a_line_is_refused_and_the_site_comes_back(wired: Wired) -> None:
    assert wired.suffered
    hold_refused(wired.suffered)


def test_what_arrives_is_what_was_sent_and_nothing_is_missing(wired: Wired) -> None:
    """An update whose receipt was lost comes twice, as its site sends it again; one that was replayed never comes."""
    arrived = wired.said("server")
    assert all(right == "True" for _, right in arrived)
    numbers = [int(number) for number, _ in arrived]
    assert numbers == sorted(numbers)
    confirmed = [int(number) for (number,) in wired.said("a")]
    assert confirmed == list(range(len(confirmed)))
    assert set(confirmed) <= set(numbers)
