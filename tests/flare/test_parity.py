"""Hospitals in houses of their own, with certificates and TLS between them: the same bits as in one process.

Whatever dies meanwhile: what counted is what `simulate` gives where the same sites are absent from the same rounds.
Starting a segment takes most of the time, so faults that can be told apart by their events share a federation.
"""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment.houses_by_hand import differences, simulated, write_study
from tests.flare.houses import PATIENCE, Houses, federation, one_thread, open_houses, wait_until
from tests.flare.identity import wait_for

pytestmark = pytest.mark.slow
ROUNDS, LENGTH, WHEN = 36, 15, 4
SITES, SERVER = 1, 2  # seeds of the federations in which they are at fault


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Houses]:
    folder = tmp_path_factory.mktemp("houses")
    study = write_study(folder, ROUNDS)
    study.write_text(study.read_text().replace("methods =", "seeds = [0, 1, 2]\nmethods ="))
    with one_thread(), open_houses(folder, study) as opened:
        yield opened


def hold_against_simulate(houses: Houses, seed: int, folder: Path) -> None:
    assert houses.rounds_done(seed) == ROUNDS
    wanted = simulated(houses.study, folder / "simulated", houses.absent(seed), seed)
    assert not differences(wanted, houses.state(seed))


def absences(houses: Houses, seed: int, site: str) -> set[int]:
    return {round_ for round_, absent in houses.absent(seed) if absent == site}


def test_undisturbed(houses: Houses, tmp_path: Path) -> None:
    with federation(houses, 0, ROUNDS, ROUNDS) as segments:
        pass
    assert segments == [1]
    assert not houses.absent(0)
    hold_against_simulate(houses, 0, tmp_path)


def test_a_frozen_site_a_killed_process_and_a_house_that_went_down_are_left_out_and_return(
    houses: Houses, tmp_path: Path
) -> None:
    with federation(houses, SITES, ROUNDS, LENGTH) as segments:
        wait_until(houses, SITES, WHEN)
        houses.signal_job("a", signal.SIGSTOP)
        wait_for("a is left out", lambda: absences(houses, SITES, "a"))
        houses.signal_job("a", signal.SIGCONT)
        wait_for("a is back", lambda: houses.rounds_done(SITES) > 1 + max(absences(houses, SITES, "a")))
        houses.signal_job("b", signal.SIGKILL)
        wait_until(houses, SITES, LENGTH + WHEN)
        houses.kill("c")
        houses.start("c")
    # The server still names c when the third begins; that waits for a newer sign of life, or a fourth would be needed.
    assert segments == [3]
    frozen, killed, down = (sorted(absences(houses, SITES, site)) for site in "abc")
    for absent in (frozen, killed, down):
        assert absent == list(range(absent[0], absent[-1] + 1))
    # Each in its turn, and each came back: the frozen one in the same segment, the others with the next one.
    assert WHEN - 1 <= frozen[0] <= frozen[-1] < killed[0] <= killed[-1] < LENGTH
    assert LENGTH + WHEN <= down[0] + 1 <= down[-1] + 1 <= 2 * LENGTH
    hold_against_simulate(houses, SITES, tmp_path)


def test_whatever_dies_on_the_server_another_segment_follows_and_nothing_is_lost(
    houses: Houses, tmp_path: Path
) -> None:
    with federation(houses, SERVER, ROUNDS, ROUNDS) as segments:
        wait_until(houses, SERVER, WHEN)
        houses.signal_job("server", signal.SIGKILL)
        wait_until(houses, SERVER, 2 * WHEN)
        houses.kill("server")
        houses.start("server")
        wait_until(houses, SERVER, 3 * WHEN)
        assert not houses.absent(SERVER)
        for site in "abc":
            houses.kill(site)
        time.sleep(PATIENCE.silence + 2)
        houses.start(*"abc")
    assert segments == [4]
    hold_against_simulate(houses, SERVER, tmp_path)
