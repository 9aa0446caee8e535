"""Hospitals in houses of their own, with certificates and TLS between them: the same bits as in one process.

Whatever dies meanwhile: what counted is what `simulate` gives where the same sites are absent from the same rounds.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.deployment.houses_by_hand import differences, simulated, write_study
from tests.flare.houses import PATIENCE, Houses, federation, open_houses, wait_until

pytestmark = pytest.mark.slow
ROUNDS, LENGTH, WHEN = 40, 25, 6


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Houses]:
    folder = tmp_path_factory.mktemp("houses")
    # Sums depend on the number of threads: the same here and in the houses.
    before, os.environ["OMP_NUM_THREADS"] = torch.get_num_threads(), "1"
    torch.set_num_threads(1)
    study = write_study(folder, ROUNDS)
    study.write_text(study.read_text().replace("methods =", f"seeds = {list(range(8))}\nmethods ="))
    try:
        with open_houses(folder, study) as opened:
            yield opened
    finally:
        torch.set_num_threads(before)
        del os.environ["OMP_NUM_THREADS"]


def hold_against_simulate(houses: Houses, seed: int, folder: Path) -> None:
    assert houses.rounds_done(seed) == ROUNDS
    wanted = simulated(houses.study, folder / "simulated", houses.absent(seed), seed)
    assert not differences(wanted, houses.state(seed))


def test_undisturbed(houses: Houses, tmp_path: Path) -> None:
    with federation(houses, 0, ROUNDS, LENGTH) as segments:
        pass
    assert segments == [2]
    assert not houses.absent(0)
    hold_against_simulate(houses, 0, tmp_path)


def test_the_others_go_on_without_a_site_whose_process_was_killed_and_it_returns(
    houses: Houses, tmp_path: Path
) -> None:
    with federation(houses, 1, ROUNDS, LENGTH):
        wait_until(houses, 1, WHEN)
        houses.signal_job("b", signal.SIGKILL)
    absent = houses.absent(1)
    assert {site for _, site in absent} == {"b"}
    assert max(round_ for round_, _ in absent) == LENGTH - 1
    hold_against_simulate(houses, 1, tmp_path)


def test_the_others_go_on_without_a_house_that_went_down_and_it_returns(houses: Houses, tmp_path: Path) -> None:
    with federation(houses, 2, ROUNDS, LENGTH):
        wait_until(houses, 2, WHEN)
        houses.kill("b")
        houses.start("b")
    absent = houses.absent(2)
    assert {site for _, site in absent} == {"b"}
    assert max(round_ for round_, _ in absent) == LENGTH - 1
    hold_against_simulate(houses, 2, tmp_path)


def test_a_frozen_site_is_left_out_and_comes_back_in_the_same_segment(houses: Houses, tmp_path: Path) -> None:
    with federation(houses, 3, ROUNDS, LENGTH):
        wait_until(houses, 3, WHEN)
        houses.signal_job("b", signal.SIGSTOP)
        wait_until(houses, 3, WHEN + 5)
        houses.signal_job("b", signal.SIGCONT)
    absent = houses.absent(3)
    assert {site for _, site in absent} == {"b"}
    assert max(round_ for round_, _ in absent) < LENGTH - 1
    hold_against_simulate(houses, 3, tmp_path)


def test_killed_on_the_server_a_segment_is_followed_by_another_and_nothing_is_lost(
    houses: Houses, tmp_path: Path
) -> None:
    with federation(houses, 4, ROUNDS, LENGTH):
        wait_until(houses, 4, WHEN)
        houses.signal_job("server", signal.SIGKILL)
    assert not houses.absent(4)
    hold_against_simulate(houses, 4, tmp_path)


def test_a_server_that_went_down_and_is_started_again_goes_on(houses: Houses, tmp_path: Path) -> None:
    with federation(houses, 5, ROUNDS, LENGTH):
        wait_until(houses, 5, WHEN)
        houses.kill("server")
        houses.start("server")
    assert not houses.absent(5)
    hold_against_simulate(houses, 5, tmp_path)


def test_with_all_sites_down_the_state_is_kept_until_they_are_back(houses: Houses, tmp_path: Path) -> None:
    with federation(houses, 6, ROUNDS, LENGTH):
        wait_until(houses, 6, WHEN)
        for site in "abc":
            houses.kill(site)
        time.sleep(PATIENCE.silence + 2)
        houses.start(*"abc")
    hold_against_simulate(houses, 6, tmp_path)
