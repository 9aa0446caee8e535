"""What happens on the way between a site and the server: an altered bit, a replay, a cut. Real processes, and TLS.

One federation suffers them one after the other, each in the middle of a site's update. The site may not be left out of
a round: a message that is lost with its line is sent again, on a new one.
"""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from polyhead.flare.layout import local_folder
from polyhead.flare.supervisor import Patience
from tests.deployment.houses_by_hand import differences, simulated, write_study
from tests.flare.houses import Houses, build, ended, federation, one_thread, wait_until
from tests.flare.identity import ports_of, wait_for
from tests.flare.wire import Suffered, cut, hold_refused, lay_wire, suffer

pytestmark = pytest.mark.slow
ROUNDS = 40
CUT = 6.0  # seconds
# After a minute without a sign of life the server no longer counts a site as connected, and forgets it.
LONG, ROUNDS_LONG = 75.0, 6
# Seconds after which a site that got no receipt sends its update again, or asks again.
RECEIPT = 4.0


@dataclass
class Wired:
    """A federation whose site b has a wire of its own, and what was seen of each fault on it."""

    houses: Houses
    suffered: Suffered
    segments: list[int]


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wired]:
    folder = tmp_path_factory.mktemp("wired")
    # Longer than the cut, and than a site waits between its tries to come back.
    patience = Patience(sites=60, deadline=240, silence=60, start=120)
    with one_thread(), ended(build(folder, write_study(folder, ROUNDS), patience)) as houses:
        hurry(houses.kits.sites["b"])

        def go_on() -> None:
            rounds = houses.rounds_done(0)
            wait_for("the next rounds", lambda: houses.rounds_done(0) >= rounds + 2, 300)

        with closing(lay_wire(houses.kits.sites["b"])) as wire:
            houses.start("server", *"abc")
            with federation(houses, 0, ROUNDS, ROUNDS) as segments:
                wait_until(houses, 0, 1)
                suffered = suffer(wire, ports_of(houses)[0], CUT, go_on)
            yield Wired(houses, suffered, segments)


def hurry(kit: Path) -> None:
    """Let a site take a message for lost sooner than its kit says."""
    file = local_folder(kit) / "resources.json"
    settings = json.loads(file.read_text())
    assert settings["client"]["communication_timeout"] == 120
    settings["client"]["communication_timeout"] = RECEIPT
    file.write_text(json.dumps(settings))


def test_whatever_is_done_to_a_line_is_refused_and_the_site_comes_back(wired: Wired) -> None:
    hold_refused(wired.suffered)


def test_no_round_and_no_segment_is_lost(wired: Wired) -> None:
    assert wired.segments == [1]
    assert wired.houses.rounds_done(0) == ROUNDS
    assert not wired.houses.absent(0)


def test_nothing_altered_or_repeated_is_averaged(wired: Wired, tmp_path: Path) -> None:
    assert not differences(simulated(wired.houses.study, tmp_path), wired.houses.state(0))


def test_a_line_that_is_cut_for_longer_than_a_minute_costs_no_round(tmp_path: Path) -> None:
    """Both sites are needed: the round is given up and its segment ends; the site comes in anew, with the next one."""
    study = write_study(tmp_path, ROUNDS_LONG, "ab", settings="min_sites = 2")
    patience = Patience(sites=240, deadline=240, silence=20, start=120)
    with (
        one_thread(),
        ended(build(tmp_path, study, patience)) as houses,
        closing(lay_wire(houses.kits.sites["b"])) as wire,
    ):
        houses.start("server", *"ab")
        with federation(houses, 0, ROUNDS_LONG, ROUNDS_LONG) as segments:
            wait_until(houses, 0, 1)
            line = wire.harm(cut)
            time.sleep(LONG)
            missed = houses.rounds_done(0)
            refused = wire.refused
            wire.mend()
        assert line.ended_by == "wire"
        assert refused
        assert missed < ROUNDS_LONG
        assert segments[0] > 1
        assert houses.rounds_done(0) == ROUNDS_LONG
        assert not houses.absent(0)
        assert not differences(simulated(study, tmp_path / "simulated"), houses.state(0))
