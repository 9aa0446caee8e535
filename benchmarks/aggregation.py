"""What it costs to hold updates against each other, beside averaging them.

    python benchmarks/aggregation.py [--repeats 15]

Five updates of a ResNet-50 (23.5 million parameters), in ratios to the weighted mean alone, in pairs:

1. Checking alone: names, shapes, types, counts, and in one pass over the values whether they are finite and how far
   they are from the current backbone.
2. The checked mean where distances decide nothing: rule off, or two sites.
3. The checked mean with distances: the updates are put on disk as well, and removed; and with one site too far, when
   the other four are averaged again from the disk.
4. The median, from the disk, for its size; nothing is promised of it.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from federation import paired_ratio
from polyhead.config import Federation, Model
from polyhead.federation.aggregate import aggregate
from polyhead.federation.means import weighted_mean
from polyhead.federation.outliers import finite_distance
from polyhead.federation.update import SiteUpdate, check_update
from polyhead.training.backbone import build_backbone

SITES = "abcde"
State = dict[str, torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    current = backbone()
    updates = [moved(current, site, seed) for seed, site in enumerate(SITES)]
    far = [*updates[:4], moved(current, "e", 9, step=1.0)]
    sums: State = {}

    def averaging() -> None:
        weighted_mean(updates, current, "equal", sums)

    def checking() -> None:
        for update in updates:
            check_update(update, current)
            finite_distance(update, current)

    with tempfile.TemporaryDirectory() as folder:

        def checked(sent: list[SiteUpdate], federation: Federation) -> Callable[[], object]:
            return lambda: aggregate(sent, current, federation, Path(folder) / "spool", len(SITES), 0, sums=sums)

        for what, ours in {
            "checking alone": checking,
            "checked mean, rule off": checked(updates, Federation(distance_rule="off")),
            "checked mean with distances": checked(updates, Federation()),
            "the same, one of five too far": checked(far, Federation()),
            "median": checked(updates, Federation(aggregation="median")),
        }.items():
            print(f"{what} / averaging alone: {paired_ratio(ours, averaging, repeats)}", flush=True)


def backbone() -> State:
    """Return a state that lies in memory as in a federation: convolutions channels-last."""
    network = build_backbone(Model(backbone="resnet50"), seed=0)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return {f"backbone.{name}": tensor for name, tensor in network.state_dict().items()}


def moved(current: State, site: str, seed: int, step: float = 1e-3) -> SiteUpdate:
    generator = torch.Generator().manual_seed(seed)

    def move(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor + 5
        return torch.empty_like(tensor).normal_(generator=generator).mul_(step).add_(tensor)

    return SiteUpdate(site, 0, 100, 0.5, {name: move(tensor) for name, tensor in current.items()})


if __name__ == "__main__":
    main()
