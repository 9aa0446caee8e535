"""D01: a disk that becomes full, at whatever file, ends a run with one line; with room it goes on as if it had not."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_kill import contents
from tests.whole_runs import Runs, runs

__all__ = ["runs"]

# Every kind of file, in the order of a run: one that is full at one of them comes past those before.
KINDS = (
    *("study.toml", "settings.json", "inputs.json", "sources.json", "environment.json", "sites.csv"),
    *("sites/a/private-0.safetensors", "round-0.json", "rounds.csv", "shared-1.safetensors", "round-2.json"),
    *("sites/a/private-3.safetensors", "b/test.parquet", "a/backbone.safetensors", "b/model.json", "done.json"),
    *("metrics.csv", "report.html"),
)
BYTES = re.compile(r"the disk is full: [\d,]+ bytes are needed, [\d,]+ bytes are free\. Make room there")


def the_one_line(done: dict[str, Any]) -> str:
    """Return what a failed command said, which must be one line and an exit code of 1.

    The log alone stops nothing: that its lines are lost is told before whatever comes to an end later.
    """
    said = re.sub(r"WARNING +\S+/run\.log: cannot be written .*; lines of the log are lost.*\n", "", done["stderr"])
    assert (done["status"], said.count("\n")) == (1, 1), said
    assert said.startswith("error: ")
    return said


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_kind_of_file_is_told_in_a_line_and_costs_nothing(runs: Runs) -> None:
    out = runs.folder / "kinds"
    for place, kind in enumerate(KINDS):
        name = kind.rpartition("/")[2]
        match = rf"{kind.removesuffix(name)}\.?{re.escape(name)}"
        fault = {"folder": str(out), "match": match, "number": 1, "do": ("half", "full")[place % 2]}
        said = the_one_line(runs.run(out, fault=fault, patch="report is short"))
        assert re.search(rf"{out}/(\S+/)?{re.escape(kind)}: cannot be written", said), said
        assert BYTES.search(said), said
    assert runs.run(out, patch="report is short")["status"] == 0
    assert contents(out) == runs.expected


@pytest.mark.slow
def test_a_disk_that_is_full_from_any_write_on_is_told_in_a_line_and_costs_nothing(runs: Runs) -> None:
    """Each start gets three writes further than the one before."""
    out = runs.folder / "every"
    number, done = -1, {"status": 1}
    while done["status"]:
        number += 3
        done = runs.run(out, fault={"folder": str(out), "number": number, "do": "half"}, patch="report is short")
        if done["status"]:
            first = done["operations"][number - 1][1].endswith("run.log")
            assert done["stderr"].count("lines of the log are lost") == first, done["stderr"]
            assert BYTES.search(the_one_line(done))
    assert number > 15
    assert contents(out) == runs.expected


@pytest.mark.parametrize("operation", ["open", "fsync", "replace", "mkdir", "pwrite"])
def test_whatever_a_full_disk_refuses_is_told_in_a_line(runs: Runs, operation: str) -> None:
    """A new name, a folder and what a file system writes late need room, too."""
    out = runs.folder / operation
    for number in (1, 4):
        fault = {"folder": str(out), "operations": [operation], "number": number, "do": "full"}
        done = runs.run(out, fault=fault)
        if operation != "pwrite" or number == 1:
            assert re.search(rf"{out}\S*: .*([Mm]ake room|Make it writable)", the_one_line(done))
    assert runs.run(out, patch="report is short")["status"] == 0
    assert contents(out) == runs.expected


def test_a_log_that_finds_no_room_is_told_once_and_stops_nothing(runs: Runs) -> None:
    out = runs.folder / "log"
    done = runs.run(out, fault={"folder": str(out), "match": r"run\.log", "number": 1, "do": "half"})
    assert (done["status"], done["stderr"].count("\n")) == (0, 1)
    assert f"{out}/run.log: cannot be written (No space left on device); lines of the log are lost" in done["stderr"]
    assert contents(out) == runs.expected


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "polyhead-test", place], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.slow
def test_a_disk_that_really_is_full_is_told_in_a_line_and_costs_nothing(runs: Runs, disk: Path) -> None:
    out, failed = disk / "run", 0
    for room in (0, 10_000, 300_000, 1_200_000, 2**24):
        (disk / "others").write_bytes(bytes(max(0, free(disk) + size_of(disk / "others") - room)))
        done = runs.run(out)
        if done["status"]:
            failed += 1
            assert re.search(r"cannot be written|the disk is full", the_one_line(done))
    assert failed >= 3
    assert done["status"] == 0, done["stderr"]
    assert contents(out) == runs.expected


def free(disk: Path) -> int:
    status = subprocess.run(["stat", "-f", "-c", "%f %S", disk], capture_output=True, text=True, check=True)
    blocks, size = map(int, status.stdout.split())
    return blocks * size


def size_of(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
