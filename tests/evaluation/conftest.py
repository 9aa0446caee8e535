"""Small made-up test sets: patients with several images, and runs of several methods and seeds on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from polyhead.predictions import read_predictions, write_predictions

Predict = Callable[..., pl.DataFrame]

METHODS = ["local", "ffl"]
FINDINGS = ("Cardiomegaly", "Effusion", "Nodule")


def predict_made_up(
    seed: int, *, skill: float = 1.0, patients: int = 60, findings: tuple[str, ...] = FINDINGS
) -> pl.DataFrame:
    """Return predictions for 3 images a patient; labels and patients are the same for every `seed` and `skill`."""
    truth, noise = np.random.default_rng(7), np.random.default_rng(seed)
    images = 3 * patients
    tables = []
    for finding in FINDINGS:
        label = truth.random(images) < 0.3
        score = np.round(skill * label + noise.normal(size=images), 1)  # so that scores tie, also with the threshold
        patient = [f"p{i // 3:03d}" for i in range(images)]
        image = [f"{i:04d}.png" for i in range(images)]
        tables.append({"image": image, "patient_id": patient, "finding": finding, "label": label * 1, "score": score})
    table = pl.concat([pl.DataFrame(columns) for columns in tables])
    return table.filter(pl.col("finding").is_in(findings)).cast({"label": pl.Int8})


@pytest.fixture
def predict() -> Predict:
    return predict_made_up


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run: two sites, local and ffl, two seeds."""
    for number, (method, skill) in enumerate({"local": 0.6, "ffl": 1.2}.items()):
        for seed in (0, 1):
            for site, patients in {"north": 60, "south": 40}.items():
                folder = tmp_path / "run" / "predictions" / method / f"seed-{seed}" / site
                for place, split in enumerate(("val", "test")):
                    table = predict_made_up(100 * number + 10 * seed + place, skill=skill, patients=patients)
                    write_predictions(table, folder / f"{split}.parquet")
    return tmp_path / "run"


def tables_of_test(run: Path) -> list[Path]:
    """Return all test predictions of a run."""
    return sorted((run / "predictions").rglob("test.parquet"))


def rewrite(path: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Change a file of predictions."""
    write_predictions(change(read_predictions(path)), path)


def flipped(table: pl.DataFrame) -> pl.DataFrame:
    """Return predictions with every label turned into its opposite."""
    return table.with_columns(label=1 - pl.col("label"))
