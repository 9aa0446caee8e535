"""What federation costs beside training, as ratios to a bare peer in the same run.

    python benchmarks/federation.py

1. One round of five sites with a ResNet-50 and no training, against a loop of ``load_state_dict`` and averaging, in our
   arithmetic (float64) and in float32, which is less exact and moves half the bytes.
2. The rounds of ``examples/small_hospital.toml`` (two sites, 5 steps a round), against the same optimizer steps without
   federation. The images are noise; their content costs nothing.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from polyhead.config import Federation, Model, Training
from polyhead.federation.means import weighted_mean
from polyhead.federation.sharing import Sharing
from polyhead.federation.simulate import Watch, simulate
from polyhead.federation.site import Plan, Site
from polyhead.federation.snapshot import Store
from polyhead.federation.start import build_models, initial_state, part_model
from polyhead.federation.update import SiteUpdate
from polyhead.training.dataset import SplitData
from polyhead.training.local import Stretch, train_locally
from polyhead.training.model import SiteModel, load_state

FFL = Sharing(backbone=True, batch_norm=True, head=False)
CPU = torch.device("cpu")


def main() -> None:
    for dtype in (torch.float64, torch.float32):
        round_cost = paired_ratio(*resnet50_round(dtype), repeats=15)
        print(f"round of five ResNet-50 sites without training / bare loop in {dtype}: {round_cost}")
    training_cost = paired_ratio(*small_hospital(), repeats=9)
    print(f"small_hospital's federation / same steps without it: {training_cost}")


def paired_ratio(ours: Callable[[], object], peer: Callable[[], object], repeats: int) -> str:
    """Time both in turn; the median ratio of the pairs is little moved by a busy machine."""
    ours()
    peer()
    ratios, seconds = [], []
    for _ in range(repeats):
        a, b = timed(ours), timed(peer)
        ratios.append(a / b)
        seconds.append((a, b))
    a, b = (statistics.median(column) for column in zip(*seconds, strict=True))
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}; medians {a:.2f} s, {b:.2f} s)"


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def resnet50_round(dtype: torch.dtype) -> tuple[Callable[[], object], Callable[[], object]]:
    """Our path of a round (load, part, check, average in float64), and the shortest loop, averaging in `dtype`."""
    sites = [site(name, 4, ["Edema"]) for name in "abcde"]
    models = build_models(sites, Model(backbone="resnet50", image_size=32), FFL, 0, CPU)
    private = {name: part_model(model, FFL)[1].model for name, model in models.items()}
    shared = part_model(models["a"], FFL)[0]
    sums: dict[str, torch.Tensor] = {}

    def ours() -> None:
        def updates() -> Iterator[SiteUpdate]:
            for name, model in models.items():
                load_state(model, {**shared, **private[name]})
                state = model.state_dict()
                yield SiteUpdate(name, 0, 4, 0.5, {entry: state[entry] for entry in shared})

        weighted_mean(updates(), shared, "equal", sums)

    def bare() -> None:
        mean: dict[str, torch.Tensor] = {}
        for name, model in models.items():
            model.load_state_dict({**shared, **private[name]})
            for entry, tensor in model.state_dict().items():
                part = tensor.to(dtype) / len(models)
                mean[entry] = mean[entry].add_(part) if entry in mean else part
        for entry, part in mean.items():
            mean[entry] = part.float()

    return ours, bare


def small_hospital() -> tuple[Callable[[], object], Callable[[], object]]:
    sites = [site("small", 150, ["Viral Pneumonia"]), site("large", 2000, ["Bacterial Pneumonia"])]
    settings = Model(backbone="resnet18", width=0.5, image_size=64)
    plan = Plan(0, Federation(rounds=8, local_steps=5), Training(device="cpu"), FFL)

    def federated() -> None:
        models = build_models(sites, settings, FFL, 0, CPU)
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder), "")
            simulate(sites, models, plan, initial_state(models, FFL, store), store, Watch(lambda rows, repeated: None))

    def alone() -> None:
        for one in sites:
            model: SiteModel = build_models([one], settings, FFL, 0, CPU)[one.name]
            train_locally(model, one.train, plan.training, Stretch(0, 40, 40, (0, one.name)), {})

    return federated, alone


def site(name: str, images: int, findings: list[str], size: int = 64) -> Site:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, size, size), dtype=np.uint8)
    labels = rng.integers(0, 2, (images, len(findings))).astype(np.float32)
    names = tuple(map(str, range(images)))
    split = SplitData(pixels, np.arange(images), labels, names, names)
    return Site(name, tuple(findings), tuple(findings), split, split, split)


if __name__ == "__main__":
    main()
