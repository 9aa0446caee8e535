"""Real radiographs, four hospitals with their own labels, in houses of their own: the same bits as in one process."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.deployment.houses_by_hand import differences, simulated
from tests.flare.houses import Houses, federation, one_thread, open_houses

pytestmark = [pytest.mark.slow, pytest.mark.data]
SITES = ("guangzhou", "hannover", "nih-a", "nih-b")
SIZES = {"train": 32, "val": 8, "test": 8}
ROUNDS = 3
SETTINGS = f"""
[model]
backbone = "resnet10"
width = 0.125
image_size = 64
[federation]
rounds = {ROUNDS}
local_steps = 2
[training]
batch_size = 8
device = "cpu"
"""


def write_sites(folder: Path, real_data: Callable[[str], Path]) -> Path:
    """Give each hospital the first images of its real table, and a folder of its own for the cache; write the study."""
    parts = ""
    for site in SITES:
        real = real_data(site)
        table = pl.read_csv(real, infer_schema=False)
        few = pl.concat(table.filter(pl.col("split") == split).head(size) for split, size in SIZES.items())
        (folder / site).mkdir()
        few.write_csv(folder / site / "manifest.csv")
        (folder / site / "site.toml").write_text(f"images = {json.dumps(str(real.parent))}\n")
        parts += f'[[site]]\nname = "{site}"\nmanifest = "{site}/manifest.csv"\n'
    file = folder / "study.toml"
    file.write_text(f'name = "real"\nmethods = ["ffl"]\n{parts}{SETTINGS}')
    return file


@pytest.fixture
def houses(tmp_path: Path, real_data: Callable[[str], Path]) -> Iterator[Houses]:
    study = write_sites(tmp_path, real_data)
    with one_thread(), open_houses(tmp_path, study) as opened:
        yield opened


def test_it_equals_simulate(houses: Houses, tmp_path: Path) -> None:
    with federation(houses, 0, ROUNDS, ROUNDS):
        pass
    assert houses.rounds_done(0) == ROUNDS
    assert not houses.absent(0)
    assert not differences(simulated(houses.study, tmp_path / "simulated"), houses.state(0))
