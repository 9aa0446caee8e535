"""D03, S04: a file of a run that was cut off, changed or replaced costs work at most, never a result, and is named."""

import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.test_kill import contents
from tests.whole_runs import Runs, runs

__all__ = ["runs"]

OUTSIDE = b"somebody's own notes\n"


def cut_to(part: Callable[[int], int]) -> Callable[[Path], None]:
    return lambda file: os.truncate(file, part(file.stat().st_size))


def flip_a_bit(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    chance = random.Random(file.name)  # noqa: S311
    raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    file.write_bytes(raw)


def become_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def become_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def become_a_link(file: Path, to: bytes = OUTSIDE) -> None:
    file.unlink()
    outside(file).write_bytes(to)
    file.symlink_to(outside(file))


def become_a_link_to_a_copy(file: Path) -> None:
    become_a_link(file, file.read_bytes())


def outside(file: Path) -> Path:
    return next(folder for folder in file.parents if folder.name.startswith("run-")).with_suffix(".outside")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": cut_to(lambda _: 0),
    "half": cut_to(lambda size: size // 2),
    "short": cut_to(lambda size: max(size - 1, 0)),
    "bit": flip_a_bit,
    "folder": become_a_folder,
    "pipe": become_a_pipe,
    "link": become_a_link,
    "copy": become_a_link_to_a_copy,
}

# What `polyhead run`, given again, does with each damage, in the order above.
#   T  exit code 0: a warning names the file, or what is made again; all files are as if nothing had been
#   S  exit code 0: all files are as if nothing had been; the file is written at every start, or not needed any longer
#   O  exit code 0: all other files are; the file itself says the same as before, or what only it can know
#   L  exit code 0, a warning names the file: what only it knew is lost; all other files are as if nothing had been
#   R  exit code 1 or 2, before any training; one line names the file and what to do, and that helps
#   ?  R or O, depending on the bit
#   .  not tried: like another file of its kind
FINISHED = {
    "study.toml": "RRO?RRRS",
    "settings.json": "RRO?RRRS",
    "environment.json": "RRO?.RRS",
    "inputs.json": "RRS?RR.S",
    "sources.json": ".S..RSS.",
    "sites.csv": "S..SR..S",
    "rounds.csv": "LLO?RRRS",
    "run.log": "S.S.RRR.",
    ".lock": "S...RRRR",
    "state/ffl/seed-0/done.json": "TTOTRTTS",
    "models/ffl/seed-0/a/backbone.safetensors": "T..T..TS",
    "models/ffl/seed-0/b/head.safetensors": ".T..RT..",
    "models/ffl/seed-0/b/model.json": "..TT.T..",
    "predictions/ffl/seed-0/a/val.parquet": "T..TR...",
    "predictions/ffl/seed-0/b/test.parquet": "..TT.TTS",
    "metrics.csv": ".S.SRSS.",
    "comparisons.csv": "S..SR...",
    "report.html": "S..SRSSS",
}

# The same for a run that was killed right before it wrote round-3.json.
KILLED = {
    "state/ffl/seed-0/round-2.json": ".T.TRT..",
    "state/ffl/seed-0/shared-2.safetensors": "T..TRT..",
    "state/ffl/seed-0/sites/a/private-2.safetensors": "..TTRTT.",
    "state/ffl/seed-0/round-1.json": "S.......",
    "rounds.csv": "LL..R...",
    ".lock": ".S.S....",
}


def cases(table: dict[str, str]) -> list[Any]:
    return [
        pytest.param(name, damage, expected, id=f"{name.replace('/', '-')}-{damage}")
        for name, row in table.items()
        for damage, expected in zip(DAMAGES, row, strict=True)
        if expected != "."
    ]


@pytest.fixture(scope="module")
def killed(runs: Runs) -> Path:
    out = runs.folder / "killed"
    assert runs.at(out, r"round-3\.json", signal.SIGKILL)["status"] == -signal.SIGKILL
    return out


@pytest.mark.slow
@pytest.mark.parametrize(("name", "damage", "expected"), cases(FINISHED))
def test_a_damaged_file_of_a_finished_run(runs: Runs, name: str, damage: str, expected: str) -> None:
    hold(runs, runs.folder / "undisturbed", name, damage, expected)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "damage", "expected"), cases(KILLED))
def test_a_damaged_file_of_a_killed_run(runs: Runs, killed: Path, name: str, damage: str, expected: str) -> None:
    hold(runs, killed, name, damage, expected)


def hold(runs: Runs, run: Path, name: str, damage: str, expected: str) -> None:
    """Damage a file of a copy of a run, give the same command again, and hold what comes against the table."""
    out = runs.folder / f"run-{random.randbytes(4).hex()}"  # noqa: S311
    shutil.copytree(run, out, symlinks=True)
    DAMAGES[damage](out / name)
    kept = outside(out / name).read_bytes() if damage in ("link", "copy") else b""
    done = runs.run(out, patch="report is short")
    said = done["stderr"]
    assert "Traceback" not in said
    if expected == "?":
        expected = "R" if done["status"] else "O"
    if expected == "R":
        check_refusal(runs, run, out, name, done)
    else:
        assert done["status"] == 0, said
        if expected in "TL":
            assert "WARNING" in said
            assert name in said or "is trained again" in said
        changed = {key for key, value in runs.expected.items() if contents(out).get(key) != value}
        assert changed <= ({name} if expected in "OL" else set())
        assert contents(out).keys() == runs.expected.keys()
    if kept:
        assert outside(out / name).read_bytes() == kept
    shutil.rmtree(out)


def check_refusal(runs: Runs, run: Path, out: Path, name: str, done: dict[str, Any]) -> None:
    """One line names the file, before any training, and says what helps, which does."""
    assert done["status"] in (1, 2)
    error, *more = [line for line in done["stderr"].splitlines() if line.startswith("error: ")]
    assert not more
    if name in ("study.toml", "settings.json", "inputs.json"):
        # A change of one letter can make another sound file of it: then the run is another's, and is not gone on with.
        assert f"{out / name}: " in error or f"{out}: " in error
        assert "Remove it" in error or "Copy the study file" in error or "begin anew with --restart" in error
    else:
        assert f"error: {out / name}" in error
        assert "emove it" in error or "Remove the file" in error
    if name != "run.log":
        log = (out / "run.log").read_text()
        assert "rounds are done" not in log.removeprefix((run / "run.log").read_text())
    (out / name).rmdir() if (out / name).is_dir() else (out / name).unlink()
    if name == "study.toml":
        shutil.copy(runs.study, out / name)
    elif name == "settings.json":
        shutil.copy(run / name, out / name)
    assert runs.run(out, patch="report is short")["status"] == 0
    changed = {key for key, value in runs.expected.items() if contents(out).get(key) != value}
    assert changed <= ({name} if name == "rounds.csv" else set())


@pytest.mark.slow
def test_when_every_snapshot_is_damaged_nothing_is_removed_and_what_is_advised_helps(runs: Runs, killed: Path) -> None:
    out = runs.folder / "run-none"
    shutil.copytree(killed, out)
    for number in (1, 2):
        flip_a_bit(out / f"state/ffl/seed-0/shared-{number}.safetensors")
    before = {path for path in out.rglob("state/**/*") if path.is_file() and path.suffix != ".tmp"}
    done = runs.run(out, patch="report is short")
    assert done["status"] == 1
    assert f"error: {out}/state/ffl/seed-0: none of the states after 2 and 1 rounds can be used" in done["stderr"]
    assert "or remove this folder" in done["stderr"]
    assert {path for path in out.rglob("state/**/*") if path.is_file()} == before
    shutil.rmtree(out / "state/ffl/seed-0")
    assert runs.run(out, patch="report is short")["status"] == 0
    assert contents(out) == runs.expected


@pytest.mark.parametrize("command", ["evaluate", "report"])
@pytest.mark.parametrize("split", ["val", "test"])
def test_numbers_are_not_computed_from_predictions_that_were_changed(runs: Runs, command: str, split: str) -> None:
    out = runs.folder / f"run-{command}-{split}"
    shutil.copytree(runs.folder / "undisturbed", out)
    for site in "ab":
        file = out / f"predictions/ffl/seed-0/{site}/{split}.parquet"
        raw = file.read_bytes()
        flip_a_bit(file)
        done = runs.ask(command, out)
        assert (done["status"], done["stderr"].count("\n")) == (1, 1)
        assert f"error: {file}: is not what the run wrote" in done["stderr"]
        file.write_bytes(raw)
