"""F04, F05, D02: a run that is killed, anywhere and as often as one likes, ends as if it had never been."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.conftest import TINY_SETTINGS, write_two_sites

SETTINGS = (
    TINY_SETTINGS.replace("rounds = 2", 'rounds = 3\nvalidate_every = 1\nselect = "best"\nfinetune_steps = 1')
    .replace("local_steps = 1", 'local_steps = 2\nbatch_norm = "private"\nfinetune = "head"')
    .replace("[federation]", "[federation]\nmin_sites = 2")
)


def write_study(folder: Path) -> Path:
    """Two hospitals, two methods, private BatchNorm, kept optimizers, best states, fine-tuning: all state there is."""
    sites = write_two_sites(folder, 16, 12, 16)
    path = folder / "study.toml"
    path.write_text(f'name = "killed"\nmethods = ["local", "ffl"]\n{sites}{SETTINGS}')
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("kill"))


def drive(*runs: dict[str, Any]) -> list[dict[str, float]]:
    driver = [sys.executable, "-m", "tests.kill_driver"]
    root = Path(__file__).parents[1]
    done = subprocess.run(driver, input=json.dumps(runs), capture_output=True, text=True, cwd=root, timeout=3000)
    assert done.returncode == 0, done.stderr
    results: list[dict[str, float]] = json.loads(done.stdout)
    for run, result in zip(runs, results, strict=True):
        assert result["status"] == 0, Path(run["out"] + ".log").read_text()
    return results


def contents(run: Path) -> dict[str, bytes]:
    """Every file of a run, hidden ones too, but its log, and the seconds that rounds took."""
    files = {str(path.relative_to(run)): path for path in run.rglob("*") if path.is_file()}
    results = {name: path.read_bytes() for name, path in files.items() if name not in ("run.log", "report.html")}
    results["rounds.csv"] = pl.read_csv(run / "rounds.csv").drop("seconds").write_csv().encode()
    return results


@pytest.fixture(scope="module")
def undisturbed(study: Path) -> tuple[Path, dict[str, float]]:
    """Return a run that nobody killed, and what its driver tells of it. The one before it makes the pixel caches."""
    runs = [{"study": str(study), "out": str(study.parent / name)} for name in ("first", "undisturbed")]
    return study.parent / "undisturbed", drive(*runs)[1]


def killed_at_random(study: Path, name: str, schedules: int, seed: int, told: dict[str, float]) -> float:
    """Run the study under random schedules of kills, compare each with the first run, and return how many kills hit."""
    chance = random.Random(seed)  # noqa: S311
    runs = [
        {
            "study": str(study),
            "out": str(study.parent / f"{name}-{number}"),
            # At most a tenth of a run later: most operations of a save follow each other within milliseconds.
            "after": [
                [chance.randint(1, int(told["operations"]) // 2), chance.uniform(0, told["seconds"] / 10)]
                for _ in range(chance.randint(2, 5))
            ],
        }
        for number in range(schedules)
    ]
    results = drive(*runs)
    expected = contents(study.parent / "undisturbed")
    for run in runs:
        assert contents(Path(str(run["out"]))) == expected, run
    return sum(result["hits"] for result in results)


@pytest.mark.slow
def test_killed_at_random_moments(study: Path, undisturbed: tuple[Path, dict[str, float]]) -> None:
    assert killed_at_random(study, "random", 25, 0, undisturbed[1]) >= 40


@pytest.mark.soak
def test_killed_at_random_moments_for_long(study: Path, undisturbed: tuple[Path, dict[str, float]]) -> None:
    assert killed_at_random(study, "soak", 500, 1, undisturbed[1]) >= 800
