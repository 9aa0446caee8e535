"""A split of a site's images and labels, and the order in which training goes through them.

The order is a function of (seed, site, step) alone: nothing needs to be remembered to go on after an interruption, and
every method shows a site the same images at the same step.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from polyhead.imaging.cache_rows import read_stacked
from polyhead.imaging.prepare import PixelCache
from polyhead.manifest import Manifest
from polyhead.seeds import derive_seed

__all__ = ["SplitData", "batch_rows", "image_batch", "load_split", "pool_splits", "read_ahead"]


@dataclass(frozen=True)
class SplitData:
    """Images and labels of one split of one site.

    Attributes
    ----------
    pixels
        The site's pixel cache, shape ``(images of all splits, size, size)``, uint8; may be larger than memory.
    rows
        Rows of `pixels` that belong to the split, shape ``(n,)``; rows of `further` are counted on.
    labels
        Shape ``(n, findings)``, float32: 1, 0 or NaN (not annotated).
    images, patients
        Name and patient of each image.
    further
        Where several sites' images are pooled, the caches of the others.
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.float32]
    images: tuple[str, ...]
    patients: tuple[str, ...]
    further: tuple[NDArray[np.uint8], ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def annotated(self) -> tuple[bool, ...]:
        """For each finding, whether an image is annotated for it."""
        return tuple(map(bool, np.asarray((~np.isnan(self.labels)).any(axis=0))))

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copy images into memory, by indices below ``len(self)``; shape ``(len(indices), size, size)``."""
        return read_stacked((self.pixels, *self.further), self.rows[indices])


def load_split(manifest: Manifest, cache: PixelCache, split: str) -> SplitData:
    """Join one split of a manifest with its pixels."""
    frame = manifest.split(split)
    images = tuple(frame["image"])
    return SplitData(
        pixels=cache.images,
        rows=cache.rows(images),
        labels=frame.select(manifest.findings).to_numpy().astype(np.float32),
        images=images,
        patients=tuple(frame["patient_id"]),
    )


def pool_splits(parts: Mapping[str, SplitData]) -> SplitData:
    """Put the images of several sites into one split, which reads them from where they are.

    Parameters
    ----------
    parts
        Each site's split, by the site's name; with the same findings, in the same order. Two sites' images and patients
        stay apart, whatever they are called: the name of the site stands before theirs.
    """
    caches = [cache for split in parts.values() for cache in (split.pixels, *split.further)]
    rows, begin = [], 0
    for split in parts.values():
        rows.append(split.rows + begin)
        begin += sum(map(len, (split.pixels, *split.further)))
    return SplitData(
        pixels=caches[0],
        rows=np.concatenate(rows),
        labels=np.concatenate([split.labels for split in parts.values()]),
        images=tuple(f"{site}/{image}" for site, split in parts.items() for image in split.images),
        patients=tuple(f"{site}/{patient}" for site, split in parts.items() for patient in split.patients),
        further=tuple(caches[1:]),
    )


def batch_rows(n: int, batch_size: int, step: int, *seed_parts: str | int) -> NDArray[np.int64]:
    """Return the images of one training step, as indices below `n`.

    Training walks through one shuffle of all images after the other without a break, so every batch is full (a
    left-over batch of one would break BatchNorm) and every image is seen equally often, give or take one.

    Parameters
    ----------
    step
        Number of the optimizer step since the start of the study, from 0.
    seed_parts
        What the order depends on: the study's seed and the site.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // n
    order_seed = derive_seed("order", *seed_parts)
    orders = np.concatenate([_epoch_order(n, order_seed, epoch) for epoch in range(epochs[0], epochs[-1] + 1)])
    rows: NDArray[np.int64] = orders[positions - epochs[0] * n]
    return rows


@lru_cache(maxsize=4)
def _epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(n)


def read_ahead(
    split: SplitData, batches: Iterable[NDArray[np.int64]]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Yield batch after batch with its pixels, each read from disk while its forerunner is worked on.

    A cache larger than memory is read at random; without this, training would stand still for every batch.

    Parameters
    ----------
    batches
        The images of each batch, as indices below ``len(split)``.

    Yields
    ------
    tuple
        The indices; and the pixels, shape ``(batch, size, size)``, uint8, a copy in memory.
    """

    def read(indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        return indices, split.read(indices)

    with ThreadPoolExecutor(1) as reader:
        coming = None
        for indices in batches:
            ready, coming = coming, reader.submit(read, indices)
            if ready:
                yield ready.result()
        if coming:
            yield coming.result()


def image_batch(pixels: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """Return images as float32, shape ``(n, 1, size, size)``: grey levels 0 to 255 become -2 to 2.

    The constants are fixed, not estimated: no statistic of a site's images has to be shared or stored.
    """
    on_device = torch.from_numpy(pixels).to(device)
    return (on_device.unsqueeze(1).to(torch.float32) / 63.75 - 2).to(memory_format=torch.channels_last)
