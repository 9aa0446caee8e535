"""PNG and JPEG files, decoded upright to grey.

============  ============================================================================================
policy        what is done
============  ============================================================================================
format        by content; the file's extension is never looked at
colour        luminance 0.299 R + 0.587 G + 0.114 B (ITU-R 601), also of palettes, or refused
transparency  ignored: the stored grey values are the measurement, opacity is an editor's note
orientation   the EXIF tag is applied
16-bit grey   kept in full depth; 16-bit colour is refused, because Pillow would cut it to 8 bits
frames        several (an animated PNG) are refused, or the first is taken
reduction     a JPEG much larger than needed is decoded at 1/2, 1/4 or 1/8 of its size
============  ============================================================================================
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from polyhead.errors import ImageError
from polyhead.imaging.radiograph import MAX_PIXELS, Grey, Radiograph
from polyhead.imaging.recipe import Colour, Frames

__all__ = ["is_raster", "read_raster"]

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_MAX_BYTES = 2**29
_SCAN, _MAX_SCANS = b"\xff\xda", 100
_PNG_HEADER_BYTES = 26  # signature, then IHDR as far as bit depth (byte 24) and colour type (byte 25)

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


def is_raster(start: bytes) -> bool:
    """Say whether a file that begins so, with 8 bytes or more, is a PNG or a JPEG."""
    return start.startswith((_PNG, _JPEG))


def read_raster(
    path: Path, *, frames: Frames = "refuse", colour: Colour = "luminance", at_least: int | None = None
) -> Radiograph:
    """Read a PNG or a JPEG.

    Parameters
    ----------
    frames, colour
        As in `polyhead.imaging.recipe.Recipe`.
    at_least
        Side in pixels to which the image will be reduced. A JPEG whose shorter side is 4 times that or more is decoded
        at the smallest of 1/2, 1/4 and 1/8 that leaves twice that: faster, and as good once averaged further. None
        decodes every pixel.

    Returns
    -------
    Radiograph
        uint16 from a 16-bit PNG, else uint8.

    Raises
    ------
    ImageError
        What a policy refuses, or more than `MAX_PIXELS`; the path comes first.
    Exception
        Anything that Pillow raises on broken bytes; `polyhead.imaging.pixels.read_radiograph` makes it an ImageError.
    """
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise ImageError(f"{path}: {size:,} bytes; at most {_MAX_BYTES:,} are read. Export it smaller.")
    with path.open("rb") as file:
        image = _open(file, path)
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ImageError(f"{path}: {width} x {height} pixels; at most {MAX_PIXELS:,} are read. Export it smaller.")
        notes = _notes(image)
        if "colour" in notes and colour == "refuse":
            raise ImageError(f"{path}: stored in colour. Export it in grey, or choose colour = luminance.")
        if "first of several frames" in notes and frames == "refuse":
            raise ImageError(f"{path}: holds {_frames(image)} frames. Export one of them, or choose frames = first.")
        if "progressive" in image.info:
            _refuse_many_scans(path)
        if at_least and min(width, height) >= 4 * at_least:
            image.draft("L", (2 * at_least, 2 * at_least))
        image.load()
        grey = _turn_upright(_luminance(image), image.getexif().get(_EXIF_ORIENTATION))
    return Radiograph(grey, "JPEG" if isinstance(image, JpegImageFile) else "PNG", notes)


def _refuse_many_scans(path: Path) -> None:
    """Each scan passes over the whole image; an honest file has about ten of them."""
    scans = path.read_bytes().count(_SCAN)
    if scans > _MAX_SCANS:
        raise ImageError(f"{path}: a JPEG of {scans:,} scans; at most {_MAX_SCANS} are read. Save it again.")


def _open(file: BinaryIO, path: Path) -> JpegImageFile | PngImageFile:
    """Read the header only. The plug-ins are called directly: `Image.open` has a limit of its own and warns."""
    start = file.read(_PNG_HEADER_BYTES)
    file.seek(0)
    if start.startswith(_JPEG):
        return JpegImageFile(file)
    if not start.startswith(_PNG):
        raise ImageError(f"{path}: neither PNG nor JPEG by its content. Convert it to one of them.")
    image = PngImageFile(file)
    bit_depth, colour_type = start[24], start[25]
    if bit_depth == 16 and colour_type != 0:
        raise ImageError(f"{path}: a PNG with 16 bits of colour or transparency. Save it as 16-bit grey.")
    return image


def _notes(image: JpegImageFile | PngImageFile) -> tuple[str, ...]:
    notes = {
        "colour": image.mode not in ("1", "L", "LA") and not image.mode.startswith("I"),
        "transparency ignored": image.mode in ("LA", "RGBA") or "transparency" in image.info,
        "first of several frames": _frames(image) > 1,
        "turned by its EXIF tag": image.getexif().get(_EXIF_ORIENTATION) in _ORIENTATIONS,
    }
    return tuple(note for note, holds in notes.items() if holds)


def _frames(image: Image.Image) -> int:
    return getattr(image, "n_frames", 1)


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
