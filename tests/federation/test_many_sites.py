"""A hundred sites, one of them hostile in each way in turn; and memory for one of them."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from polyhead.errors import ImageError
from polyhead.federation import simulate as simulate_module
from tests.federation.three_sites import Part, differences, far, plan_for, stub_by_hand, stub_federate, stub_round

ENTRY = "backbone.w"


def _entry(value: Any) -> dict[str, Any]:
    return {ENTRY: value, "backbone.n": torch.tensor(1)}


# What a site may say of its update instead of the truth.
WAYS: list[dict[str, Any]] = [
    {"state": _entry(torch.full((8, 8), math.nan))},
    {"state": _entry(torch.full((8, 8), math.inf))},
    {"state": _entry(torch.full((8, 8), 3e38))},
    {"state": _entry(torch.zeros(64))},
    {"state": _entry(torch.zeros(8, 8, dtype=torch.float64))},
    {"state": _entry(torch.zeros(8, 8).to_sparse())},
    {"state": _entry([0.0] * 64)},
    {"state": _entry(b"cbuiltins\nexit\n(tR.")},
    {"state": {**_entry(torch.zeros(8, 8)), "head.weight": torch.zeros(5)}},
    {"state": {**_entry(torch.zeros(8, 8)), "backbone.n": torch.tensor(-1)}},
    {"state": {ENTRY: torch.zeros(8, 8)}},
    {"state": {}},
    {"state": None},
    {"examples": 0},
    {"examples": -1},
    {"examples": math.nan},
    {"examples": 10**12},
    {"examples": True},
    {"loss": math.nan},
    {"loss": 10**400},
    {"round": 99},
    {"site": "another"},
]


def site_of(round_: int) -> str:
    """Whose turn it is to be hostile; not in order, and never twice."""
    return f"{(7 + 37 * round_) % 100:03}"


def hostile_in_turn(*about: Any) -> Part:
    update, own = stub_round(*about)
    if update.site != site_of(update.round):
        return update, own
    if update.round < len(WAYS):
        return replace(update, **WAYS[update.round]), own
    if update.round == len(WAYS):
        return far(update, about[4]), own
    raise ImageError("cut off")


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["equal", "examples"])
def test_of_a_hundred_sites_one_is_hostile_in_each_way_in_turn(
    weighting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate_module, "site_round", hostile_in_turn)
    rounds = len(WAYS) + 2
    plan = plan_for(rounds=rounds, weighting=weighting)
    end, rows = stub_federate(tmp_path, plan, 100)
    absent = {(round_, site_of(round_)) for round_ in range(rounds)}
    assert differences(end, stub_by_hand(plan, absent, 100)) == []
    assert {(row.round, row.site) for row in rows if row.status != "averaged"} == absent
    assert len({row.status for row in rows}) > len(WAYS) * 2 / 3


# Run by itself. Prints the growth of the peak in KiB; what the imports took would hide it.
MEASURE = """
import json, re, sys
from pathlib import Path
import torch
from polyhead.federation import simulate as module
from polyhead.federation.private_state import PrivateState, save_private
from polyhead.federation.simulate import Watch, simulate
from polyhead.federation.snapshot import Snapshot, Store
from polyhead.federation.update import SiteUpdate
from tests.federation.three_sites import plan_for, stub_sites

SIZE, count, folder = 2**20, int(sys.argv[1]), Path(sys.argv[2])

def big_round(site, model, plan, round_, shared, private, on_step=None):
    number = int(site.name) + round_
    step = 1000.0 if number == 3 else 1 + number / 1000
    own = PrivateState({"head": private.model["head"] + 1}, {"moment": torch.full((SIZE,), float(number))})
    return SiteUpdate(site.name, round_, 10, 0.5, {"w": shared["w"] + step}), own

def kib(field):
    return int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1))

def run(sites, rounds, place):
    store = Store(place, "key")
    own = PrivateState({"head": torch.zeros(4)})
    files = {site.name: save_private(place, site.name, 0, own) for site in sites}
    start = Snapshot(0, {"w": torch.zeros(SIZE)}, files)
    watch = Watch(lambda rows, repeated: None)
    return simulate(sites, dict.fromkeys(files), plan_for(rounds=rounds), start, store, watch)

module.site_round = big_round
run(stub_sites(3), 1, folder / "warm")
sites = stub_sites(count)
Path("/proc/self/clear_refs").write_text("5")
before = kib("VmRSS")
run(sites, 2, folder / "run")
print(json.dumps({"growth": kib("VmHWM") - before}))
"""


def measured(sites: int, folder: Path) -> int:
    command = [sys.executable, "-c", MEASURE, str(sites), str(folder)]
    # Else the allocator keeps some of the tensors that were given back, a different number each time.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_ARENA_MAX": "1"}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, cwd=root, env=environment)
    return int(json.loads(done.stdout)["growth"])


@pytest.mark.slow
def test_memory_is_for_one_site_however_many_there_are(tmp_path: Path) -> None:
    """Shared and private states are 4 MB each; 95 more sites may take the size of one state."""
    few, many = measured(5, tmp_path / "few"), measured(100, tmp_path / "many")
    assert many - few < 4096, f"{few} KiB for 5 sites, {many} KiB for 100"
