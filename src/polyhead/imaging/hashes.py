"""The same image twice: to the bit, or nearly.

Perceptual hashes are made for photographs; all chest radiographs look alike to one of 64 bits. `NEAR_DISTANCE` was
chosen with `HASH_SIZE` on real radiographs; docs/data.md has the figures.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["HASH_SIZE", "NEAR_DISTANCE", "near_pairs", "perceptual_hashes", "pixel_hash"]

HASH_SIZE = 24
"""Frequencies in each direction; a hash has ``HASH_SIZE ** 2`` bits."""

NEAR_DISTANCE = 96
"""At most so many bits differ between an image and its copy: compressed again, resized, brightened, or cut by 1 %."""

_WORDS = HASH_SIZE**2 // 64
# So many hashes are compared with so many at once: their differences fit into a processor's cache.
_ROWS, _COLUMNS = 32, 2048
# So many images are hashed before the next are asked for, as they may not all fit into memory.
_BATCH = 256


def pixel_hash(square: NDArray[np.uint8]) -> bytes:
    """Return a hash that two images share only if they have the same shape and every pixel is equal."""
    return hashlib.blake2b(repr(square.shape).encode() + square.tobytes(), digest_size=16).digest()


def perceptual_hashes(
    images: Iterable[NDArray[np.uint8]],
    *,
    progress: Callable[[int], None] | None = None,
    workers: int | None = None,
) -> NDArray[np.uint64]:
    """Return hashes that differ in few bits where images look alike: the signs of the lowest frequencies.

    Parameters
    ----------
    images
        Squares of one size, such as a pixel cache of shape ``(n, size, size)``; a few hundred are read at a time.
    progress
        Called with the number of images done, by the calling thread.
    workers
        Number of threads; by default one a CPU.

    Returns
    -------
    numpy.ndarray
        Shape ``(n, HASH_SIZE ** 2 / 64)``.
    """
    bits: list[NDArray[np.uint8]] = []
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        left = iter(images)
        while batch := list(islice(left, _BATCH)):
            bits += pool.map(_perceptual_bits, batch)
            if progress:
                progress(len(bits))
    return np.array(bits, np.uint8).reshape(len(bits), 8 * _WORDS).view(np.uint64)


def _perceptual_bits(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.packbits(imagehash.phash(Image.fromarray(image), HASH_SIZE).hash)


def near_pairs(
    hashes: NDArray[np.uint64],
    distance: int = NEAR_DISTANCE,
    *,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> NDArray[np.int64]:
    """Return every pair of hashes that differ in at most `distance` bits.

    All pairs are compared, on half of the bits first, which is enough to tell nearly all apart: the time grows with the
    square of `n`, the memory with the number of pairs found. Of equal images pass one, or there may be many.

    Parameters
    ----------
    hashes
        Shape ``(n, words)``.
    progress
        Called with (pairs compared, pairs in all), by the calling thread.
    workers
        Number of threads; by default one a CPU.

    Returns
    -------
    numpy.ndarray
        Shape ``(pairs, 2)``: rows of `hashes`, the smaller first, in ascending order.
    """
    # The highest frequencies come first: in the lowest, all radiographs look alike.
    words = np.ascontiguousarray(hashes.T[::-1])
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        found = [np.empty((0, 2), np.int64)]
        for pairs in pool.map(lambda top: _near_later(words, top, distance), range(0, len(hashes), _ROWS)):
            found.append(pairs)
            if progress:
                left = max(len(hashes) - _ROWS * (len(found) - 1), 0)
                progress(_pairs_among(len(hashes)) - _pairs_among(left), _pairs_among(len(hashes)))
    return np.concatenate(found)


def _pairs_among(n: int) -> int:
    return n * (n - 1) // 2


def _near_later(words: NDArray[np.uint64], top: int, distance: int) -> NDArray[np.int64]:
    """Compare the hashes from `top` on, `_ROWS` of them, with all that come after each."""
    n = words.shape[1]
    some = words[:, top : top + _ROWS, None]
    pairs = []
    for left in range(top, n, _COLUMNS):
        others = words[:, None, left : left + _COLUMNS]
        half = -(-len(words) // 2)
        differing = np.zeros((some.shape[1], others.shape[2]), np.uint16)
        for word in range(half):
            differing += np.bitwise_count(some[word] ^ others[word])
        first, second = np.nonzero(differing <= distance)
        rest = np.bitwise_count(words[half:, top + first] ^ words[half:, left + second]).sum(axis=0, dtype=np.int64)
        near = (differing[first, second] + rest <= distance) & (top + first < left + second)
        pairs.append(np.stack([top + first[near], left + second[near]], axis=1))
    together = np.concatenate(pairs)
    return together[np.lexsort((together[:, 1], together[:, 0]))]
