"""What differential privacy costs: time of a step, and AUROC at equal steps.

    python benchmarks/privacy.py [--repeats 3] [--rounds 20]

1. A private step, one image at a time, as a ratio to a plain step of the same batch; and to a step whose gradients of
   single images come from torch.func.vmap, eight at a time.
2. FFL on three synthetic hospitals, three seeds each, without noise and with three strengths of it: the mean AUROC on
   test images, and the epsilon of one seed at the hospital where it is largest. Nothing is tuned: the settings are the
   same in all rows.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import torch
from rich.console import Console
from torch.func import functional_call, grad, vmap

from federation import paired_ratio
from polyhead.config import Model, Training
from polyhead.phantom import Acquisition, write_site
from polyhead.study import run_study
from polyhead.training.backbone import build_backbone, feature_count
from polyhead.training.dataset import SplitData
from polyhead.training.local import Stretch, train_locally
from polyhead.training.model import SiteModel, build_head
from polyhead.training.private_gradient import Mechanism
from polyhead.training.timing import _noise as noise_images

BATCH = 16
FINDINGS = {
    "harbour": ("Pleural Effusion", "Cardiomegaly"),
    "valley": ("Pleural Effusion", "Pneumothorax"),
    "island": ("Cardiomegaly", "Edema"),
}
PATIENTS = 400
STUDY = """
name = "cost of privacy"
seeds = [0, 1, 2]
methods = ["ffl"]
{sites}
[model]
backbone = "resnet10"
width = 0.25
image_size = 64
norm = "{norm}"
[federation]
rounds = {rounds}
local_steps = 5
[training]
batch_size = 32
learning_rate = 2e-3
device = "cpu"
[privacy]
noise = {noise}
[evaluation]
replicates = 100
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    for size in (64, 224):
        time_of_a_step(size, arguments.repeats)
    with tempfile.TemporaryDirectory() as folder:
        utility(Path(folder), arguments.rounds)


def time_of_a_step(size: int, repeats: int) -> None:
    """Compare a private step with a plain one, and with vmap's gradients."""
    model = Model(image_size=size, norm="group")
    backbone = build_backbone(model, 0)
    names = [f"finding {number}" for number in range(5)]
    network = SiteModel(backbone, build_head(feature_count(backbone), names, 0), names)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    training, data = Training(batch_size=BATCH, device="cpu"), noise_images(BATCH, size, len(names))

    def step(mechanism: Mechanism | None) -> Callable[[], object]:
        return lambda: train_locally(network, data, training, Stretch(0, 1, 9, (0, "a")), {}, mechanism=mechanism)

    # As many patients as a batch: everybody is drawn, so that both steps are of the same images.
    private, plain = step(Mechanism(1.0, 1.0, bytes(32))), step(None)
    vmapped = of_vmap(network, data, size)
    for one in (private, plain, vmapped):
        one()
    print(f"{size} pixels, private step / plain step: {paired_ratio(private, plain, repeats)}", flush=True)
    print(f"{size} pixels, private step / vmap's gradients: {paired_ratio(private, vmapped, repeats)}", flush=True)


def of_vmap(network: SiteModel, data: SplitData, size: int) -> Callable[[], object]:
    """Return what computes the bounded sum of the same gradients with vmap, eight images at a time."""
    parameters = {name: one.detach() for name, one in network.named_parameters()}
    images = torch.randn(BATCH, 1, size, size).to(memory_format=torch.channels_last)
    labels, weight = torch.from_numpy(data.labels), torch.ones(data.labels.shape[1])

    def loss(values: dict[str, torch.Tensor], image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        logits = functional_call(network, values, (image[None],))
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, label[None], pos_weight=weight)

    gradients = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")

    def sums() -> list[torch.Tensor]:
        total = [torch.zeros_like(one) for one in parameters.values()]
        for first in range(0, BATCH, 8):
            found = list(gradients(parameters, images[first : first + 8], labels[first : first + 8]).values())
            norms = torch.stack([one.flatten(1).norm(dim=1) for one in found]).norm(dim=0)
            scale = (1 / norms).clamp(max=1)
            for into, one in zip(total, found, strict=True):
                into.add_(torch.tensordot(scale, one, 1))
        return total

    return sums


def utility(folder: Path, rounds: int) -> None:
    """Train with more and more noise, and print AUROC and epsilon."""
    for place, (name, findings) in enumerate(FINDINGS.items()):
        write_site(
            folder / name,
            site=name,
            findings=findings,
            acquisition=Acquisition(),
            seed=place,
            size=64,
            train=PATIENTS,
            val=40,
            test=200,
        )
    sites = "".join(f'[[site]]\nname = "{name}"\nmanifest = "{name}/manifest.csv"\n' for name in FINDINGS)
    for norm, noise in (("batch", 0.0), ("group", 0.0), ("group", 0.5), ("group", 1.0), ("group", 2.0)):
        began = time.monotonic()
        file, run = folder / "study.toml", folder / f"run-{norm}-{noise}"
        file.write_text(STUDY.format(sites=sites, norm=norm, rounds=rounds, noise=noise))
        run_study(file, run, Console(quiet=True))
        rows = pl.read_csv(run / "metrics.csv", infer_schema=False).filter(
            pl.col("metric") == "auroc", pl.col("finding") == "mean", pl.col("seed") != "all"
        )
        means = rows.group_by("seed").agg(pl.col("value").cast(pl.Float64).mean())["value"].to_list()
        table = run / "privacy.csv"
        spent = pl.read_csv(table).filter(pl.col("method") == "ffl")["epsilon"].max() if table.exists() else "infinite"
        reached = f"{sum(means) / len(means):.3f} ({min(means):.3f} to {max(means):.3f})"
        print(
            f"{norm} norm, noise {noise}: mean AUROC {reached}, epsilon {spent!s}, {time.monotonic() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
