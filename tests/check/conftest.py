"""Tiny sites of real PNGs of noise, which look like nothing but themselves."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polyhead.check.images import Reading
from polyhead.config import Model, Training
from polyhead.problems import Problem

HEADER = "image,patient_id,split,Edema"
SIZES = {"train": 24, "val": 24, "test": 24}


def noise(seed: int, side: int = 48) -> Image.Image:
    """Blotches that survive resizing, so that only copies look alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def rows_of(sizes: dict[str, int] = SIZES) -> list[str]:
    """Rows of a sound site: as many positives as negatives, a patient an image."""
    rows, number = [], 0
    for split, size in sizes.items():
        for index in range(size):
            rows.append(f"{number}.png,p{number},{split},{index % 2}")
            number += 1
    return rows


def write_site(folder: Path, rows: Sequence[str] | None = None, header: str = HEADER, *, images: bool = True) -> Path:
    """Write a site and return its folder."""
    rows = rows_of() if rows is None else rows
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.csv").write_text("\n".join([header, *rows]) + "\n")
    for seed, row in enumerate(rows if images else []):
        name = row.split(",")[0]
        if name.endswith(".png") and not (folder / name).exists():
            noise(seed).save(folder / name)
    return folder


def by_kind(problems: Iterable[Problem], kind: str) -> list[Problem]:
    return [problem for problem in problems if problem.kind == kind]


TABLES_ONLY = Reading(images=False)


@pytest.fixture(autouse=True)
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are timed in one test only; everywhere else the number is made up."""
    from polyhead.training import timing

    def made_up(model: Model, training: Training, findings: int) -> timing.StepTime:
        timing.resolve_device(training.device)
        return timing.StepTime(0.5, training.batch_size, "cpu")

    monkeypatch.setattr(timing, "time_steps", made_up)


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., Path]:
    """Write a site below the test's folder."""
    return lambda *arguments, **options: write_site(tmp_path / "site", *arguments, **options)
