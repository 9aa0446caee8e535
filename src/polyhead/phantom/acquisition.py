"""How a site takes its radiographs: what differs between hospitals whose patients are alike."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from polyhead.phantom.anatomy import Field

__all__ = ["Acquisition", "expose"]

_LETTERS = {
    "L": ("100", "100", "100", "100", "111"),
    "R": ("110", "101", "110", "101", "101"),
}


@dataclass(frozen=True)
class Acquisition:
    """The habits of a site's department.

    Attributes
    ----------
    portable
        Share of exposures taken AP, in bed, for a patient of middling illness; 0 to 1.
    exposure
        Brightness added, as a share of the full scale.
    drift
        Standard deviation of the brightness, and of the contrast, from image to image.
    contrast, gamma
        Tone curve: 1 and 1 leave the densities as they are.
    noise
        Standard deviation of the quantum noise, as a share of the full scale.
    blur
        Standard deviation of the blur, in half image widths.
    collimation
        Largest width of the black borders, in half image widths.
    marker
        The letter in the upper corner of that side of the patient; "" for none.
    file_format
        What the archive keeps.
    """

    portable: float = 0.2
    exposure: float = 0.0
    drift: float = 0.04
    contrast: float = 1.0
    gamma: float = 1.0
    noise: float = 0.02
    blur: float = 0.01
    collimation: float = 0.08
    marker: Literal["", "L", "R"] = "L"
    file_format: Literal["png", "jpg"] = "png"


def expose(density: Field, acquisition: Acquisition, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Turn densities, of shape ``(size, size)``, into the grey values that the site's archive keeps."""
    size = density.shape[0]
    brightness, contrast = rng.normal(0, acquisition.drift, 2).tolist()
    tone = np.clip(_blurred(density, acquisition.blur * size / 2), 0, 1.3) / np.float32(1.1)
    tone = tone ** np.float32(acquisition.gamma) - np.float32(0.5)
    tone = tone * (acquisition.contrast * (1 + contrast)) + (0.5 + acquisition.exposure + brightness)
    tone += acquisition.noise * rng.standard_normal((size, size), dtype=np.float32)
    tone *= _aperture(size, acquisition.collimation * rng.random(4))
    _mark(tone, acquisition.marker, rng.integers(0, max(1, size // 24), 2).tolist())
    return np.asarray(np.clip(tone * 255 + 0.5, 0, 255), dtype=np.uint8)


def _blurred(image: Field, sigma: float) -> Field:
    """Blur along both axes; the border is repeated outwards."""
    reach = int(np.ceil(2.5 * sigma))
    if not reach:
        return image
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for _ in range(2):
        padded = np.pad(image, ((reach, reach), (0, 0)), mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=0)
        image = np.asarray(windows @ weights, dtype=np.float32).T
    return image


def _aperture(size: int, borders: npt.NDArray[np.float64]) -> Field:
    """The field that the collimator leaves open, 0 or 1; `borders` are the widths at top, bottom, left and right."""
    top, bottom, left, right = np.rint(borders * size / 2).astype(int).tolist()
    field = np.zeros((size, size), dtype=np.float32)
    field[top : size - bottom, left : size - right] = 1
    return field


def _mark(tone: Field, marker: str, jitter: list[int]) -> None:
    """Write the side's letter in white, in place."""
    if not marker:
        return
    scale = max(1, round(tone.shape[0] / 64))
    letter = np.array([[float(cell) for cell in row] for row in _LETTERS[marker]], dtype=np.float32)
    letter = letter.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = letter.shape
    top = 5 * scale + jitter[0]
    left = 5 * scale + jitter[1] if marker == "R" else tone.shape[1] - 5 * scale - jitter[1] - width
    place = tone[top : top + height, left : left + width]
    np.maximum(place, 0.97 * letter, out=place)
