"""Grey levels: to 8 bits, and equalised. A constant image is refused, so nothing here divides by zero."""

import numpy as np
from numpy.typing import NDArray

from polyhead.errors import ImageError
from polyhead.imaging.radiograph import Grey
from polyhead.imaging.recipe import Equalize, Intensity

__all__ = ["CLIP_LIMIT", "equalize", "refuse_constant", "to_uint8"]

_WINDOW = (0.005, 0.995)
_QUANTILE_PIXELS = 2**21  # So many give a quantile as well as all of them.
_BLOCK_ROWS = 64  # Counting and looking up need 8 bytes a pixel: not of all at once.

_TILES = 8  # in each direction
CLIP_LIMIT = 2.0
"""How often a grey level counts in a tile of CLAHE at most, in multiples of the mean."""


def refuse_constant(pixels: Grey) -> None:
    """Raise an ImageError if every pixel has the same value."""
    value = pixels.flat[0]
    if (pixels == value).all():
        raise ImageError(f"constant image: every pixel is {value}. Export it again, or remove its row.")


def to_uint8(samples: Grey, intensity: Intensity = "auto", table: Grey | None = None) -> NDArray[np.uint8]:
    """Bring grey values to 8 bits: ``255 (x - low) / (high - low)``, clipped and rounded.

    With ``robust``, `low` and `high` are the least values that 0.5 % and 99.5 % of the pixels do not exceed (the
    extremes, if these are equal): a few hot pixels or a marker do not darken the lungs. With ``minmax`` they are the
    extremes. ``auto`` leaves 8 bits as they are, and is ``robust`` for 16. Of images above 2 megapixels every second,
    third, ... row is asked for the two.

    Parameters
    ----------
    samples, table
        As in `Radiograph`: grey values, or what `table` turns into them.

    Raises
    ------
    ImageError
        If every pixel has the same grey value.
    """
    if table is None and intensity == "auto" and samples.dtype == np.uint8:
        refuse_constant(samples)
        return samples.astype(np.uint8, copy=False)
    values = _unchanged(samples) if table is None else table
    low, high = _extremes(samples, values)
    if low == high:
        raise ImageError(f"constant image: every pixel is {low}. Export it again, or remove its row.")
    if intensity == "auto" and values.dtype == np.uint8:
        return _look_up(values.astype(np.uint8, copy=False), samples)
    if intensity != "minmax":
        rows = samples[:: 1 + samples.size // _QUANTILE_PIXELS]
        first, last = np.searchsorted(np.cumsum(_count(rows, values)), np.multiply(_WINDOW, rows.size))
        low, high = (int(first), int(last)) if first < last else (low, high)
    levels = 255 * np.clip((np.arange(2 ** (8 * values.itemsize)) - low) / (high - low), 0, 1)
    return _look_up(np.rint(levels).astype(np.uint8)[values], samples)


def equalize(pixels: NDArray[np.uint8], kind: Equalize) -> NDArray[np.uint8]:
    """Spread the grey levels.

    ``histogram`` maps a grey level to the share of the pixels that are darker than it or equal, with the darkest level
    at 0 and the brightest at 255. ``clahe`` does so in 8 x 8 tiles and interpolates between their centres; in each a
    level counts `CLIP_LIMIT` times the mean at most, and what is cut off is spread over all levels. A step between two
    levels thus grows `CLIP_LIMIT` + 1 times at most, and a flat background keeps its grey (Zuiderveld, Graphics Gems
    IV, 1994).

    Parameters
    ----------
    pixels
        Shape ``(height, width)``, not constant.
    """
    if kind == "none":
        return pixels
    if kind == "clahe":
        return _clahe(pixels)
    counts = np.bincount(pixels.ravel(), minlength=256)
    darkest = counts[pixels.min()]
    levels = 255 * (np.cumsum(counts) - darkest) / (pixels.size - darkest)
    return _look_up(np.rint(np.maximum(levels, 0)).astype(np.uint8), pixels)


def _unchanged(samples: Grey) -> Grey:
    return np.arange(2**8, dtype=np.uint8) if samples.dtype == np.uint8 else np.arange(2**16, dtype=np.uint16)


def _extremes(samples: Grey, values: Grey) -> tuple[int, int]:
    """Return the lowest and the highest grey value of an image."""
    between = values[samples.min() : int(samples.max()) + 1]
    steps = np.diff(between.astype(np.int64))
    if (steps >= 0).all() or (steps <= 0).all():  # Nearly every table: no need to count.
        return int(between.min()), int(between.max())
    low, high = np.flatnonzero(_count(samples, values))[[0, -1]]
    return int(low), int(high)


def _count(samples: Grey, table: Grey) -> NDArray[np.int64]:
    """Return how many pixels have each grey value."""
    counts = np.zeros(len(table), np.int64)
    for top in range(0, len(samples), _BLOCK_ROWS):
        counts += np.bincount(samples[top : top + _BLOCK_ROWS].ravel(), minlength=len(table))
    by_value = np.zeros(2 ** (8 * table.itemsize), np.int64)
    np.add.at(by_value, table, counts)
    return by_value


def _look_up(levels: NDArray[np.uint8], pixels: Grey) -> NDArray[np.uint8]:
    result = np.empty(pixels.shape, np.uint8)
    for top in range(0, len(pixels), _BLOCK_ROWS):
        np.take(levels, pixels[top : top + _BLOCK_ROWS], out=result[top : top + _BLOCK_ROWS], mode="clip")
    return result


def _clahe(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    mappings = _tile_mappings(pixels)
    above, below, down = _neighbours(pixels.shape[0])
    left, right, across = _neighbours(pixels.shape[1])
    upper = _between(mappings, above[:, None], left, right, across, pixels)
    lower = _between(mappings, below[:, None], left, right, across, pixels)
    return np.rint(upper + (lower - upper) * down[:, None]).astype(np.uint8)


def _tile_mappings(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return where each tile maps each grey level, shape ``(8, 8, 256)``.

    A level goes to the middle of its share of the pixels, so that an equalised tile stays as it is.
    """
    height, width = (-(-side // _TILES) for side in pixels.shape)
    short = [(0, _TILES * tile - side) for tile, side in zip((height, width), pixels.shape, strict=True)]
    whole = np.pad(pixels, short, mode="symmetric").reshape(_TILES, height, _TILES, width)
    tile = (np.arange(_TILES)[:, None, None, None] * _TILES + np.arange(_TILES)[:, None]) * 256
    counts = np.bincount((whole + tile).ravel(), minlength=_TILES**2 * 256).reshape(_TILES, _TILES, 256)
    shares = counts / (height * width)
    clipped = np.minimum(shares, CLIP_LIMIT / 256)
    clipped += (1 - clipped.sum(axis=2, keepdims=True)) / 256
    mappings: NDArray[np.float64] = 255 * (np.cumsum(clipped, axis=2) - clipped / 2)
    return mappings.astype(np.float32)


def _neighbours(side: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return for each row or column the tiles whose centres lie before and behind it, and how far it is between."""
    place = (np.arange(side) + 0.5) / -(-side // _TILES) - 0.5
    before = np.floor(place).astype(np.intp)
    return (
        np.clip(before, 0, _TILES - 1),
        np.clip(before + 1, 0, _TILES - 1),
        (place - before).astype(np.float32),
    )


def _between(
    mappings: NDArray[np.float32],
    row: NDArray[np.intp],
    left: NDArray[np.intp],
    right: NDArray[np.intp],
    across: NDArray[np.float32],
    pixels: NDArray[np.uint8],
) -> NDArray[np.float32]:
    from_left: NDArray[np.float32] = mappings[row, left, pixels]
    from_right: NDArray[np.float32] = mappings[row, right, pixels]
    return from_left + (from_right - from_left) * across
