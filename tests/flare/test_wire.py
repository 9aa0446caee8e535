"""What happens on the way between a site and the server: an altered bit, a replay, a cut. Real processes, and TLS.

One federation suffers them one after the other, each in the middle of a site's update. The site may not be left out of
a round: a message that is lost with its line is sent again, on a new one.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

import tests.flare.houses
from polyhead.flare.layout import local_folder
from polyhead.flare.supervisor import Patience
from tests.deployment.houses_by_hand import differences, simulated, write_study
from tests.flare.houses import Houses, build, federation, wait_until
from tests.flare.identity import ports_of, wait_for
from tests.flare.wire import Line, Wire, alter, cut, hangs_up, lay_wire, repeat

pytestmark = pytest.mark.slow
ROUNDS = 40
CUT = 6.0  # seconds
# Seconds after which a site that got no receipt sends its update again, or asks again.
RECEIPT = 4.0
HARMS = {"altered": alter, "repeated": repeat, "cut": cut}


@dataclass
class Wired:
    """A federation whose site b has a wire of its own, and what was seen of each fault on it."""

    houses: Houses
    wire: Wire
    lines: dict[str, Line] = field(default_factory=dict)
    segments: list[int] = field(default_factory=list)
    refused: int = 0
    hung_up: bool = False


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wired]:
    folder = tmp_path_factory.mktemp("wired")
    before, patch = torch.get_num_threads(), pytest.MonkeyPatch()
    # Sums depend on the number of threads: the same here and in the houses.
    torch.set_num_threads(1)
    patch.setenv("OMP_NUM_THREADS", "1")
    # Longer than the cut, and than a site waits between its tries to come back.
    patch.setattr(tests.flare.houses, "PATIENCE", Patience(sites=60, deadline=240, silence=60, start=120))
    houses = build(folder, write_study(folder, ROUNDS))
    wired = Wired(houses, lay_wire(houses.kits.sites["b"]))
    hurry(houses.kits.sites["b"])
    try:
        houses.start("server", *"abc")
        with federation(houses, 0, ROUNDS, ROUNDS) as wired.segments:
            wait_until(houses, 0, 1)
            suffer(wired)
        yield wired
    finally:
        for name in list(houses.running):
            houses.kill(name)
        wired.wire.close()
        patch.undo()
        torch.set_num_threads(before)


def hurry(kit: Path) -> None:
    """Let a site take a message for lost sooner than its kit says."""
    file = local_folder(kit) / "resources.json"
    settings = json.loads(file.read_text())
    assert settings["client"]["communication_timeout"] == 120
    settings["client"]["communication_timeout"] = RECEIPT
    file.write_text(json.dumps(settings))


def suffer(wired: Wired) -> None:
    """Harm b's line in every way, and let it recover in between."""
    wire = wired.wire
    for name, harm in HARMS.items():
        before = len(wire.lines)
        wired.lines[name] = wire.harm(harm)
        wait_for(f"the line is {name}", lambda name=name: bool(wired.lines[name].ended_by))
        if name == "cut":
            time.sleep(CUT)
            wired.refused = wire.refused
            wire.mend()
        rounds = wired.houses.rounds_done(0)
        wait_for("the next rounds", lambda rounds=rounds: wired.houses.rounds_done(0) >= rounds + 2, 300)
        # Meanwhile the site's other process has a line, on which all may go.
        wait_for("a new line", lambda before=before: any(line.sent for line in wire.lines[before:]), 60)
    wired.hung_up = hangs_up(ports_of(wired.houses)[0], bytes(wired.lines["repeated"].sent))


@pytest.mark.parametrize("harm", ["altered", "repeated"])
def test_the_server_ends_a_line_on_which_a_bit_was_altered_or_something_repeated(harm: str, wired: Wired) -> None:
    assert wired.lines[harm].ended_by == "server"


def test_the_server_hangs_up_when_a_recorded_line_is_played_to_it(wired: Wired) -> None:
    assert len(wired.lines["repeated"].sent) > 100_000
    assert wired.hung_up


def test_a_site_tries_until_the_line_is_there_again(wired: Wired) -> None:
    assert wired.lines["cut"].ended_by == "wire"
    assert wired.refused


def test_no_round_and_no_segment_is_lost(wired: Wired) -> None:
    assert wired.segments == [1]
    assert wired.houses.rounds_done(0) == ROUNDS
    assert not wired.houses.absent(0)


def test_nothing_altered_or_repeated_is_averaged(wired: Wired, tmp_path: Path) -> None:
    assert not differences(simulated(wired.houses.study, tmp_path), wired.houses.state(0))
