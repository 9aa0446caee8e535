"""What reading images costs a training, from memory and from disk.

    python benchmarks/reading.py [--images 120000] [--device auto]

Training steps of a ResNet-18 at 224 pixels and batches of 32, from a pixel cache of noise on disk (6 GB by default):

Stretches of steps with every page of the cache thrown out of memory before, as if it were far larger than memory,
against the same steps that find it there, in pairs; and the share of the time that training stands still for pixels.

To see it with a cache that truly does not fit, give the process less memory than the cache, for instance
``systemd-run --scope -p MemoryMax=2G python benchmarks/reading.py``.
"""

import argparse
import mmap
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from polyhead.config import Model, Training
from polyhead.imaging.cache_rows import read_rows
from polyhead.training import local
from polyhead.training.backbone import build_backbone, feature_count
from polyhead.training.dataset import SplitData, batch_rows, read_ahead
from polyhead.training.device import resolve_device
from polyhead.training.local import Stretch, train_locally
from polyhead.training.model import SiteModel, build_head

SIZE, BATCH, STEPS, PAIRS = 224, 32, 4, 5
FINDINGS = [f"Finding {number}" for number in range(14)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=120_000)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--folder", type=Path, help="where the cache is written for the time being")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        data = noise_on_disk(Path(folder) / "pixels.npy", options.images)
        print(f"cache: {data.pixels.nbytes / 2**30:.1f} GiB")
        for place, cold in (("memory", False), ("disk", True)):
            print(f"a batch of {BATCH} from {place}: {1000 * statistics.median(read_times(data, cold)):.2f} ms")
        compare_steps(fresh_model(options.device), data, Training(batch_size=BATCH, device=options.device))


def compare_steps(model: SiteModel, data: SplitData, training: Training) -> None:
    """Train in pairs of stretches on the same images, with the cache in memory and on disk."""
    train_locally(model, data, training, Stretch(0, 2, 1000, (0, "warm-up")), {})
    seconds: dict[bool, list[float]] = {True: [], False: []}
    waits: dict[bool, float] = {True: 0.0, False: 0.0}
    for pair in range(PAIRS):
        for cold in (True, False):
            if cold:
                evict(data)
            began = time.perf_counter()
            waits[cold] += trained_and_waited(model, data, training, Stretch(pair * STEPS, STEPS, 1000, (0, "site")))
            seconds[cold].append(time.perf_counter() - began)
    ratios = [a / b for a, b in zip(seconds[True], seconds[False], strict=True)]
    spread = f"({min(ratios):.3f} to {max(ratios):.3f}; a step takes {statistics.median(seconds[False]) / STEPS:.3f} s)"
    print(f"training with the cache on disk / in memory: {statistics.median(ratios):.3f} {spread}")
    for place, cold in (("memory", False), ("disk", True)):
        print(f"share of the time spent waiting for pixels, from {place}: {waits[cold] / sum(seconds[cold]):.2%}")


def trained_and_waited(model: SiteModel, data: SplitData, training: Training, stretch: Stretch) -> float:
    """Train, and return the seconds for which the loop stood still for its next batch."""
    waited = 0.0

    def timed(*arguments: Any) -> Iterator[Any]:
        nonlocal waited
        reading = read_ahead(*arguments)
        while True:
            began = time.perf_counter()
            batch = next(reading, None)
            waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    with mock.patch.object(local, "read_ahead", timed):
        train_locally(model, data, training, stretch, {})
    return waited


def noise_on_disk(path: Path, images: int) -> SplitData:
    """Write random pixels, so that no file system can leave them out, and open them as a cache is opened."""
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (images, SIZE, SIZE))
    noise = np.random.default_rng(0).integers(0, 256, (1000, SIZE, SIZE), np.uint8)
    for first in range(0, images, len(noise)):
        array[first : first + len(noise)] = noise[: images - first]
    array.flush()
    os.sync()
    labels = np.random.default_rng(1).integers(0, 2, (images, len(FINDINGS))).astype(np.float32)
    names = tuple(map(str, range(images)))
    return SplitData(np.load(path, mmap_mode="r"), np.arange(images), labels, names, names)


def fresh_model(device: str) -> SiteModel:
    backbone = build_backbone(Model(backbone="resnet18", image_size=SIZE), seed=0)
    model = SiteModel(backbone, build_head(feature_count(backbone), FINDINGS, 0), FINDINGS)
    return model.to(resolve_device(device))


def evict(data: SplitData) -> None:
    """Throw the cache out of memory: of this process's map, then of the system's page cache."""
    mapped = data.pixels.base
    if not isinstance(data.pixels, np.memmap) or not isinstance(mapped, mmap.mmap):
        raise TypeError("the pixels are not mapped from a file")
    mapped.madvise(mmap.MADV_DONTNEED)
    with Path(str(data.pixels.filename)).open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_times(data: SplitData, cold: bool) -> list[float]:
    """Seconds to read a batch, with nothing else going on."""
    seconds = []
    for step in range(20):
        rows = batch_rows(len(data), BATCH, step, 0, "reading")
        if cold:
            evict(data)
        else:
            read_rows(data.pixels, rows)
        began = time.perf_counter()
        read_rows(data.pixels, rows)
        seconds.append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    main()
