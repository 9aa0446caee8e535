"""Tiny sites that every part of the suite can train on."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from polyhead.config import Augmentation, Federation, Model, Training
from polyhead.federation.sharing import Sharing
from polyhead.federation.site import Plan, Site
from polyhead.phantom import Acquisition, write_site
from polyhead.training.dataset import SplitData

TINY = Model(backbone="resnet10", width=0.125, image_size=32)
TINY_SETTINGS = """
[model]
backbone = "resnet10"
width = 0.125
image_size = 32
[federation]
rounds = 2
local_steps = 1
[training]
batch_size = 8
device = "cpu"
[evaluation]
replicates = 100
"""
FFL = Sharing(backbone=True, batch_norm=True, head=False)
PLAIN = Augmentation(rotation=0, shift=0, scale=0, contrast=0, noise=0)

# No test depends on the clock, and a busy machine may take seconds for any example.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


# Minutes long each: several processes are done sooner if these begin first.
LONGEST = ("test_kill.py", "test_kill_aimed.py", "test_damaged_runs.py", "test_disk_full.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest; leave the hour-long tests out unless `-m` asks for them by name."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
    if "soak" not in config.option.markexpr:
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(pytest.mark.skip(reason="takes an hour: pytest -m soak"))


def make_split(n: int, findings: int, seed: int, size: int = 32) -> SplitData:
    """Images of noise, brighter in the rows of the findings that they show; two images a patient."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (n, findings)).astype(np.float32)
    pixels = rng.integers(0, 120, (n, size, size))
    for finding in range(findings):
        pixels[:, 4 * finding : 4 * finding + 4, :] += (labels[:, finding, None, None] * 80).astype(int)
    names = tuple(f"{seed}-{index}.png" for index in range(n))
    patients = tuple(f"{seed}-{index // 2}" for index in range(n))
    return SplitData(pixels.astype(np.uint8), np.arange(n), labels, names, patients)


def make_site(name: str, findings: Sequence[str], n: int = 24, seed: int = 0) -> Site:
    """A site of `n` training images and half as many for validation and test."""
    splits = [make_split(size, len(findings), 1000 * seed + part) for part, size in enumerate((n, n // 2, n // 2))]
    return Site(name, tuple(findings), tuple(findings), *splits)


def write_two_sites(folder: Path, train: int, val: int, test: int) -> str:
    """Draw two hospitals, a and b, with one finding in common; return their part of a study file that lies there."""
    for name, findings in (("a", ("Pleural Effusion", "Cardiomegaly")), ("b", ("Pleural Effusion", "Edema"))):
        size = {"train": train, "val": val, "test": test}
        write_site(folder / name, site=name, findings=findings, acquisition=Acquisition(), seed=1, size=32, **size)
    return "".join(f'[[site]]\nname = "{name}"\nmanifest = "{name}/manifest.csv"\n' for name in "ab")


@pytest.fixture
def plan() -> Plan:
    return Plan(7, Federation(rounds=3, local_steps=2), Training(batch_size=8, device="cpu"), FFL)


@pytest.fixture
def two_sites() -> list[Site]:
    return [make_site("a", ["Edema", "Mass"], 24, 1), make_site("b", ["Nodule"], 16, 2)]


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Give the manifest of a site of real radiographs; skip the test, saying so, where it is absent."""
    root = Path(__file__).parents[2] / "shared" / "data"

    def manifest(site: str) -> Path:
        path = root / site / "manifest.csv"
        if not path.exists():
            pytest.skip(f"no real radiographs: {path} is absent")
        return path

    return manifest


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Note which files and folders are flushed to disk from now on, in order."""
    found, fsync = list[Path](), os.fsync

    def watched(descriptor: int) -> None:
        found.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    return found
