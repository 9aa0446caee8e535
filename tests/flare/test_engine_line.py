"""The engine's own line, with our kits and the settings of our houses, while it is altered, repeated, replayed and cut.

`test_wire.py` does the same to a whole federation.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from polyhead.flare.kits import Server, provision
from tests.flare.houses import ADMIN, free_ports
from tests.flare.identity import wait_for
from tests.flare.wire import Line, Wire, alter, cut, hangs_up, repeat

pytestmark = pytest.mark.slow
HARMS = {"altered": alter, "repeated": repeat, "cut": cut}
CUT = 5.0  # seconds


@dataclass
class Wired:
    """A server, a site and a wire between them, and what was seen of each fault."""

    folder: Path
    port: int
    wire: Wire
    lines: dict[str, Line] = field(default_factory=dict)
    refused: int = 0
    hung_up: bool = False

    def said(self, name: str) -> list[list[str]]:
        """Every whole line that one end printed, in words."""
        text = (self.folder / f"{name}.txt").read_text()
        return [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n") and line[0].isdigit()]


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wired]:
    folder, ports = tmp_path_factory.mktemp("line"), free_ports(2)
    kits = provision(folder / "kits", "{}", ["a"], Server("localhost", *ports), ADMIN)
    wired = Wired(folder, ports[0], Wire(ports[0]))
    running = []
    try:
        for name, kit, port in (("server", kits.server, ports[0]), ("a", kits.sites["a"], wired.wire.port)):
            command = [sys.executable, "-m", "tests.flare.peer", str(kit), str(port)]
            with (folder / f"{name}.txt").open("wb") as file, (folder / f"{name}.log").open("wb") as log:
                running.append(subprocess.Popen(command, stdout=file, stderr=log, cwd=Path(__file__).parents[2]))
        wait_for("something arrives", lambda: len(wired.said("a")) > 1, 300)
        for name, harm in HARMS.items():
            wired.lines[name] = wired.wire.harm(harm)
            wait_for(f"the line is {name}", lambda name=name: bool(wired.lines[name].ended_by))
            if name == "cut":
                time.sleep(CUT)
                wired.refused = wired.wire.refused
                wired.wire.mend()
            done = len(wired.said("a"))
            wait_for("the next updates", lambda done=done: len(wired.said("a")) > done + 1, 300)
        wired.hung_up = hangs_up(wired.port, bytes(wired.lines["repeated"].sent))
        done = len(wired.said("a"))
        wait_for("the next updates", lambda: len(wired.said("a")) > done + 1, 300)
        yield wired
    finally:
        for one in running:
            one.kill()
            one.wait()
        wired.wire.close()


@pytest.mark.parametrize("harm", ["altered", "repeated"])
def test_the_server_ends_a_line_on_which_a_bit_was_altered_or_something_repeated(harm: str, wired: Wired) -> None:
    assert wired.lines[harm].ended_by == "server"


def test_the_server_hangs_up_when_a_recorded_line_is_played_to_it(wired: Wired) -> None:
    assert len(wired.lines["repeated"].sent) > 100_000
    assert wired.hung_up


def test_a_site_tries_until_the_line_is_there_again(wired: Wired) -> None:
    assert wired.lines["cut"].ended_by == "wire"
    assert wired.refused


def test_what_arrives_is_what_was_sent_and_nothing_is_missing(wired: Wired) -> None:
    """An update whose receipt was lost comes twice, as its site sends it again; one that was replayed never comes."""
    arrived = wired.said("server")
    assert all(right == "True" for _, right in arrived)
    numbers = [int(number) for number, _ in arrived]
    assert numbers == sorted(numbers)
    confirmed = [int(number) for (number,) in wired.said("a")]
    assert confirmed == list(range(len(confirmed)))
    assert set(confirmed) <= set(numbers)
