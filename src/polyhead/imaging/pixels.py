"""From an image file to a grey square of 8 bits.

`load_square` reads a file by its content (`polyhead.imaging.raster`, `polyhead.imaging.dicom`), brings it to 8 bits and
equalises it (`polyhead.imaging.intensity`), and fits it into a square, as the recipe says. Black that is added is added
last: it is no part of any histogram.

Raise `PATH_VERSION` with anything that changes a pixel: caches made by another version are built anew.
"""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from polyhead.errors import ImageError
from polyhead.imaging.file_fault import file_fault
from polyhead.imaging.intensity import equalize, refuse_constant, to_uint8
from polyhead.imaging.radiograph import Radiograph
from polyhead.imaging.raster import is_raster, read_raster
from polyhead.imaging.recipe import STANDARD, Aspect, Recipe

__all__ = ["PATH_VERSION", "Square", "confined_path", "fit", "load_square", "read_radiograph"]

PATH_VERSION = 2

_START_BYTES = 512  # A DICOM file says what it is after 128 bytes, or in its first element.

# What an extension claims; those not listed claim nothing.
_CLAIMS = {
    **dict.fromkeys((".png", ".apng"), "PNG"),
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **dict.fromkeys((".dcm", ".dicom", ".dic"), "DICOM"),
    **dict.fromkeys((".bmp", ".gif", ".jp2", ".tif", ".tiff", ".webp"), "another format"),
}


@dataclass(frozen=True)
class Square:
    """An image as the network sees it.

    Attributes
    ----------
    pixels
        Shape ``(size, size)``, uint8, never constant.
    notes
        What a policy did to it; see `Radiograph`.
    """

    pixels: NDArray[np.uint8]
    notes: tuple[str, ...]


def load_square(path: Path, size: int, recipe: Recipe = STANDARD) -> Square:
    """Read an image as a grey square.

    Raises
    ------
    ImageError
        The file is missing, empty, no PNG, JPEG or DICOM, broken, too large, refused by the recipe, or shows nothing;
        the path comes first.
    """
    radiograph = read_radiograph(path, recipe, at_least=size)
    try:
        area = fit(to_uint8(radiograph.samples, recipe.intensity, radiograph.table), size, recipe.aspect)
        refuse_constant(area)
    except ImageError as problem:
        raise ImageError(f"{path}: {problem}") from problem
    values = radiograph.samples if radiograph.table is None else radiograph.table
    windowed = ("more than 8 bits, windowed",) if values.dtype == np.uint16 else ()
    return Square(_add_black(equalize(area, recipe.equalize), size), radiograph.notes + windowed)


def read_radiograph(path: Path, recipe: Recipe = STANDARD, at_least: int | None = None) -> Radiograph:
    """Read an image in full depth and upright, by its content.

    Parameters
    ----------
    recipe
        Its policies on frames and colour.
    at_least
        Side in pixels to which the image will be reduced: a JPEG much larger than that is decoded at a reduced size.

    Raises
    ------
    ImageError
        And nothing else, whatever the file holds.

    Notes
    -----
    Warnings are silenced while a file is read. Python's filters belong to the whole process: who reads from several
    threads must hold ``warnings.catch_warnings()`` around all of them, or filters may be left changed.
    """
    try:
        if fault := file_fault(path):
            raise ImageError(f"{path}: {fault}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _read_by_content(path, recipe, at_least)
    except ImageError:
        raise
    except Exception as problem:  # Decoders fed with broken bytes raise nearly anything, not only OSError.
        reason = getattr(problem, "strerror", None) or (str(problem) or type(problem).__name__).splitlines()[0]
        raise ImageError(f"{path}: cannot be read ({reason}). Export or copy the image again.") from problem
    if _CLAIMS.get(path.suffix.lower(), image.file_format) == image.file_format:
        return image
    return replace(image, notes=(*image.notes, "extension says otherwise"))


def fit(pixels: NDArray[np.uint8], size: int, aspect: Aspect) -> NDArray[np.uint8]:
    """Resize an image to the part of a ``(size, size)`` square that it will fill.

    Bilinear, averaging over all pixels that fall together. With ``pad`` the longer side becomes `size`, else both do.
    """
    height, width = pixels.shape
    shape = size, size
    if aspect == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    elif aspect == "pad":
        longer = max(height, width)
        shape = max(1, round(size * height / longer)), max(1, round(size * width / longer))
    # The gap lets Pillow average blocks first where the image is much larger: as good to the eye, several times faster.
    image = Image.fromarray(pixels).resize(shape[::-1], Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.array(image)


def confined_path(root: Path, relative: str) -> Path:
    """Return the real path of a file below `root`, which need not exist.

    Raises
    ------
    ImageError
        If it leads out of `root`, be it by ``..``, as an absolute path or through a symbolic link.
    """
    try:
        real_root = root.resolve()
        real = (real_root / relative).resolve()
    except (OSError, RuntimeError, ValueError) as problem:  # Loops of links, and characters no path may have.
        raise ImageError(f"{relative!r} below {root}: no usable path ({problem}). Correct it.") from problem
    if not real.is_relative_to(real_root):
        raise ImageError(f"{relative!r} leads out of {root}, to {real}. Put the file itself below that folder.")
    return real


def _read_by_content(path: Path, recipe: Recipe, at_least: int | None) -> Radiograph:
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    if is_raster(start):
        return read_raster(path, frames=recipe.frames, colour=recipe.colour, at_least=at_least)
    # Importing pydicom takes as long as numpy and Pillow together: only where a file may be DICOM.
    from polyhead.imaging.dicom import is_dicom, read_dicom

    if is_dicom(start):
        return read_dicom(path, frames=recipe.frames, colour=recipe.colour)
    raise ImageError(f"{path}: neither PNG, JPEG nor DICOM by its content. Convert it to one of them.")


def _add_black(area: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    short = [size - side for side in area.shape]
    return np.pad(area, [(one // 2, one - one // 2) for one in short])
