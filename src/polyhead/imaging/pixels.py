"""From an image file to a grey square of 8 bits: `load_pixels` is `read_grey`, then `to_uint8`, then `resize`.

============  ============================================================================================
policy        what is done
============  ============================================================================================
format        PNG or JPEG by content; the file's extension is never looked at
colour        luminance 0.299 R + 0.587 G + 0.114 B (ITU-R 601), also of palettes
transparency  ignored: the stored grey values are the measurement, opacity is an editor's note
orientation   the EXIF tag is applied
16-bit grey   kept in full depth, then windowed; 16-bit colour is refused, because Pillow would cut it to 8 bits
frames        the first
aspect        stretched to the square
============  ============================================================================================

Change `RECIPE` with anything that changes a pixel: caches made by another recipe are built anew.
"""

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from polyhead.errors import ImageError

__all__ = ["MAX_PIXELS", "RECIPE", "confined_path", "load_pixels", "read_grey", "resize", "to_uint8"]

RECIPE = "1: luminance, window 0.5-99.5 % where 16 bit, stretched, bilinear"

# A whole-spine radiograph has 30 million pixels; decoding this many takes at most 200 MB.
MAX_PIXELS = 50_000_000

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_PNG_HEADER_BYTES = 26  # signature, then IHDR as far as bit depth (byte 24) and colour type (byte 25)
_WINDOW = (0.005, 0.995)
_HISTOGRAM_ROWS = 256

_EXIF_ORIENTATION = 0x0112
# For each value of the tag: transpose, then reverse the rows, then reverse the columns (EXIF 2.32, 4.6.4).
_UPRIGHT = (False, False, False)
_ORIENTATIONS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}

Grey = NDArray[np.uint8] | NDArray[np.uint16]


def load_pixels(path: Path, size: int) -> NDArray[np.uint8]:
    """Read an image as a grey square.

    Returns
    -------
    Shape ``(size, size)``, never constant.

    Raises
    ------
    ImageError
        The file is missing, empty, no PNG or JPEG, broken, too large, or shows nothing; the path comes first.
    """
    grey = read_grey(path)
    try:
        pixels = resize(to_uint8(grey), size)
        _refuse_constant(pixels)
    except ImageError as problem:
        raise ImageError(f"{path}: {problem}") from problem
    return pixels


def read_grey(path: Path) -> Grey:
    """Read an image in full depth and upright.

    Returns
    -------
    Shape ``(height, width)``; uint16 from a 16-bit PNG, else uint8.

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
        _check_file(path)
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")
            return _decode(file, path)
    except ImageError:
        raise
    except Exception as problem:  # Decoders fed with broken bytes raise nearly anything, not only OSError.
        reason = getattr(problem, "strerror", None) or (str(problem) or type(problem).__name__).splitlines()[0]
        raise ImageError(f"{path}: cannot be read ({reason}). Export or copy the image again.") from problem


def to_uint8(pixels: Grey) -> NDArray[np.uint8]:
    """Bring grey values to 8 bits.

    8 bits stay as they are. 16 bits are windowed: with `low` and `high` the least values that 0.5 % and 99.5 % of the
    pixels do not exceed (the extremes, if these are equal), ``255 (x - low) / (high - low)``, clipped and rounded.
    A few hot pixels or a marker thus do not darken the lungs.

    Raises
    ------
    ImageError
        If every pixel has the same value.
    """
    _refuse_constant(pixels)
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    low, high = _window(pixels)
    levels = np.clip((np.arange(2**16) - low) / (high - low), 0, 1)
    return np.rint(255 * levels).astype(np.uint8)[pixels]


def resize(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Stretch an image to ``(size, size)``; bilinear, averaging over all pixels that fall together."""
    image = Image.fromarray(pixels)
    # The gap lets Pillow average blocks first where the image is much larger: as good to the eye, several times faster.
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0))


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


def _check_file(path: Path) -> None:
    # Opening a pipe or a device could wait for ever.
    if not path.is_file():
        raise ImageError(f"{path}: {'is not a file' if path.exists() else 'is missing'}.")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: is empty (0 bytes). Export or copy the image again.")


def _decode(file: BinaryIO, path: Path) -> Grey:
    image = _open(file, path)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{path}: {width} x {height} pixels; at most {MAX_PIXELS:,} are read. Export it smaller.")
    image.load()
    return _turn_upright(_luminance(image), image.getexif().get(_EXIF_ORIENTATION))


def _open(file: BinaryIO, path: Path) -> ImageFile.ImageFile:
    """Read the header only. The plug-ins are called directly: `Image.open` has a limit of its own and warns."""
    start = file.read(_PNG_HEADER_BYTES)
    file.seek(0)
    if start.startswith(_JPEG):
        return JpegImageFile(file)
    if not start.startswith(_PNG):
        raise ImageError(f"{path}: neither PNG nor JPEG; it begins with {start[:8]!r}. Convert it to one of them.")
    image = PngImageFile(file)
    bit_depth, colour_type = start[24], start[25]
    if bit_depth == 16 and colour_type != 0:
        raise ImageError(f"{path}: a PNG with 16 bits of colour or transparency. Save it as 16-bit grey.")
    return image


def _luminance(image: Image.Image) -> Grey:
    # 16-bit grey is the only kind of PNG with a mode of integers: I;16, and I in some versions of Pillow.
    if image.mode.startswith("I"):
        return np.array(image).astype(np.uint16)
    if image.mode not in ("1", "L", "LA"):
        image = image.convert("RGB")
    return np.array(image.convert("L"))


def _turn_upright(pixels: Grey, orientation: object) -> Grey:
    transpose, reverse_rows, reverse_columns = _ORIENTATIONS.get(orientation, _UPRIGHT)  # type: ignore[call-overload]
    if transpose:
        pixels = pixels.T
    if reverse_rows:
        pixels = pixels[::-1]
    if reverse_columns:
        pixels = pixels[:, ::-1]
    upright: Grey = pixels.copy()  # In C order, whatever the view.
    return upright


def _refuse_constant(pixels: Grey) -> None:
    value = pixels.flat[0]
    if (pixels == value).all():
        raise ImageError(f"constant image: every pixel is {value}. Export it again, or remove its row.")


def _window(pixels: Grey) -> tuple[int, int]:
    counts = np.zeros(2**16, np.int64)
    for top in range(0, len(pixels), _HISTOGRAM_ROWS):  # Counting needs 8 bytes a pixel: not of all at once.
        counts += np.bincount(pixels[top : top + _HISTOGRAM_ROWS].ravel(), minlength=2**16)
    low, high = np.searchsorted(np.cumsum(counts), np.multiply(_WINDOW, pixels.size))
    if low == high:
        low, high = np.flatnonzero(counts)[[0, -1]]
    return int(low), int(high)
