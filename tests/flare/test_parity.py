"""Hospitals in houses of their own end with the same bits as in one process."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch

from polyhead.events import read_events
from polyhead.flare.supervisor import Patience, run_federation
from tests.flare.houses import Houses, open_houses, write_study
from tests.flare.reference import State, deployed, simulated

pytestmark = pytest.mark.slow
PATIENCE = Patience(sites=60, deadline=60, silence=10, start=90)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sums depend on the number of threads: the same here and in the houses."""
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def differing(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if one[name].dtype != other[name].dtype or not torch.equal(one[name], other[name])]


def differences(one: State, other: State) -> list[str]:
    """Name every entry in which two federations are not bit for bit the same."""
    found = [f"shared: {name}" for name in differing(one[0], other[0])]
    for site in one[1]:
        found += [f"{site}: {name}" for name in differing(one[1][site].model, other[1][site].model)]
        found += [f"{site}: {name}" for name in differing(one[1][site].optimizer, other[1][site].optimizer)]
    return found


def run(houses: Houses, rounds: int, length: int) -> int:
    return run_federation(houses.post(), "ffl", 0, rounds, length, 3, 2, PATIENCE)


def test_backbone_and_heads_equal_those_of_simulate_bit_for_bit(tmp_path: Path) -> None:
    study = write_study(tmp_path, rounds=3)
    wanted = simulated(study, tmp_path / "simulated")
    with open_houses(tmp_path, study) as houses:
        segments = run(houses, rounds=3, length=2)
        found = deployed(houses)
        rows = [row for event in read_events(houses.post().events) for row in event.get("rows", [])]
    assert segments == 2
    assert not differences(wanted, found)
    assert [(row["round"], row["site"], row["status"]) for row in rows] == [
        (round_, site, "averaged") for round_ in range(3) for site in "abc"
    ]
