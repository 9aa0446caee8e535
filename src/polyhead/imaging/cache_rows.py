"""Reading some images of a cache that may be larger than memory."""

import mmap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_rows", "read_stacked"]


def read_rows(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Copy images into memory.

    Parameters
    ----------
    images
        Shape ``(n, size, size)``: a cache's array on disk, or one in memory.
    rows
        Which ones, each from 0 to ``n - 1``, in any order.

    Returns
    -------
    numpy.ndarray
        Shape ``(len(rows), size, size)``.
    """
    if isinstance(images, np.memmap) and isinstance(images.base, mmap.mmap) and images.flags.c_contiguous:
        _announce(images.base, images.offset % mmap.ALLOCATIONGRANULARITY, images[0].nbytes, rows)
    return np.take(images, rows, axis=0)


def read_stacked(caches: Sequence[NDArray[np.uint8]], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Copy images of several caches into memory, as `read_rows` would if they were one, the rows counted on."""
    if len(caches) == 1:
        return read_rows(caches[0], rows)
    ends = np.cumsum([len(cache) for cache in caches])
    which = np.searchsorted(ends, rows, side="right")
    images = np.empty((len(rows), *caches[0].shape[1:]), np.uint8)
    for place in np.unique(which):
        mine = which == place
        images[mine] = read_rows(caches[place], rows[mine] - (ends[place] - len(caches[place])))
    return images


def _announce(mapped: mmap.mmap, start: int, size: int, rows: NDArray[np.int64]) -> None:
    """Ask the system for all rows at once: page by page, as they are touched, would wait for the disk every time."""
    for row in rows:
        first = (start + int(row) * size) // mmap.PAGESIZE * mmap.PAGESIZE
        if 0 <= first < len(mapped):
            mapped.madvise(mmap.MADV_WILLNEED, first, min(size + mmap.PAGESIZE, len(mapped) - first))
