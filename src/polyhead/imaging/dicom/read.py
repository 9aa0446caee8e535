"""From a DICOM file to a grey image.

Pixel data only reach the image: it is drawn without overlays, annotations and metadata, and as it is stored, not turned
or mirrored as PatientOrientation or FieldOfViewHorizontalFlip may ask for, nor resampled to square pixels.

=======================  ==================================================================================
policy                   what is done
=======================  ==================================================================================
transfer syntax          uncompressed (little, big, deflated), RLE, JPEG, JPEG-LS, JPEG 2000, HTJ2K
grey                     see `polyhead.imaging.dicom.grey`
padding                  the darkest of the other pixels, after everything
colour                   luminance 0.299 R + 0.587 G + 0.114 B (ITU-R 601), also of palettes; or refused
several frames           refused, or the first
claims                   too large, or against one another: refused before anything is decoded
=======================  ==================================================================================
"""

from pathlib import Path
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset

from polyhead.errors import ImageError
from polyhead.imaging.dicom.codestream import Codestream
from polyhead.imaging.dicom.file import find_pixel_data, open_dicom
from polyhead.imaging.dicom.format import FORMAT_KEYWORDS, PixelFormat, read_format
from polyhead.imaging.dicom.frame import Samples, read_frame
from polyhead.imaging.dicom.grey import GREY_KEYWORDS, grey_table, stored_values
from polyhead.imaging.dicom.guard import reading
from polyhead.imaging.dicom.tags import VIEW_KEYWORDS, is_lateral, view_of
from polyhead.imaging.dicom.values import lookup_table, text
from polyhead.imaging.radiograph import Grey, Radiograph

__all__ = ["read_dicom"]

COLOUR, FIRST_FRAME, LATERAL, PADDING = "colour", "first of several frames", "lateral view", "padding blanked"
RAW = "raw, for processing"

_PALETTE = tuple(
    f"{colour}PaletteColorLookupTable{part}" for colour in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")
)
_KEYWORDS = ("PresentationIntentType", *FORMAT_KEYWORDS, *GREY_KEYWORDS, *_PALETTE, *VIEW_KEYWORDS)
_WEIGHTS = (19595, 38470, 7471)  # Of red, green and blue, in 65536ths: as for PNG and JPEG.

_Shown = tuple[Grey, Grey | None, tuple[str, ...]]  # Samples and table as in `Radiograph`, and notes.


def read_dicom(
    path: Path,
    *,
    frames: Literal["refuse", "first"] = "refuse",
    colour: Literal["luminance", "refuse"] = "luminance",
) -> Radiograph:
    """Read an image in the depth that its file has, bright where the body is dense.

    Parameters
    ----------
    frames, colour
        As in `polyhead.imaging.recipe.Recipe`.

    Returns
    -------
    Grey of uint8 if the file stores at most 8 bits and these hold every level, else of uint16. With a window or lookup
    table of the file it fills the range of its type; else the values are the file's levels, from 0.

    Notes of it: ``"inverted (MONOCHROME1)"``, ``"no window in the file"``, ``"padding blanked"``, ``"colour"``,
    ``"first of several frames"``, ``"lateral view"``, ``"raw, for processing"``.

    Raises
    ------
    ImageError
        And nothing else, whatever the file holds; the path comes first, and no value of the file that could name a
        patient. A constant image is not refused here.

    Notes
    -----
    Warnings are silenced while a file is read. Python's filters belong to the whole process: who reads from several
    threads must hold ``warnings.catch_warnings()`` around all of them, or filters may be left changed. No setting of
    pydicom is read or changed.
    """
    with reading(path) as file:
        dicom = open_dicom(file, _KEYWORDS)
        pixels = find_pixel_data(dicom)
        form = read_format(dicom.header)
        if form.frames > 1 and frames == "refuse":
            raise ImageError(f"{form.frames} frames; one is read. Export one, or set the recipe's frames = 'first'.")
        if not form.is_grey and colour == "refuse":
            raise ImageError("a colour image. Export it as grey, or set the recipe's colour = 'luminance'.")
        patterns, claims = read_frame(dicom, pixels, form)
        show = _show_grey if form.is_grey else _show_palette if form.samples == 1 else _show_colour
        samples, table, notes = show(dicom.header, form, patterns, claims)
        several = (FIRST_FRAME,) if form.frames > 1 else ()
        lateral = (LATERAL,) if is_lateral(view_of(dicom.header)) else ()
        # A detector's own values, often inverted: what a viewer shows is made from them elsewhere.
        raw = (RAW,) if (text(dicom.header, "PresentationIntentType") or "").upper() == "FOR PROCESSING" else ()
        return Radiograph(samples, "DICOM", (*notes, *several, *lateral, *raw), table)


def _show_grey(header: Dataset, form: PixelFormat, patterns: Samples, claims: Codestream | None) -> _Shown:
    table = grey_table(header, form, 8 * patterns.itemsize, claims)
    if table.padding is None:
        return patterns, table.grey, table.notes
    padded = table.padding[patterns]
    if not padded.any() or padded.all():
        return patterns, table.grey, table.notes
    grey = table.grey.copy()
    grey[table.padding] = table.grey[patterns[~padded]].min()
    return patterns, grey, (*table.notes, PADDING)


def _show_palette(header: Dataset, form: PixelFormat, patterns: Samples, claims: Codestream | None) -> _Shown:
    tables = [
        lookup_table(header, f"{colour}PaletteColorLookupTable", form.signed) for colour in ("Red", "Green", "Blue")
    ]
    first, red, _ = tables[0]
    if any(len(entries) != len(red) for _, entries, _ in tables):
        raise ImageError("palettes of different lengths. Export it as grey.")
    colours = np.stack([entries for _, entries, _ in tables], axis=-1)
    if max(top for _, _, top in tables) < 2**8:
        colours = colours.astype(np.uint8)
    stored = stored_values(form, 8 * patterns.itemsize, claims)
    return patterns, _luminance(colours)[np.clip(stored - first, 0, len(red) - 1)], (COLOUR,)


def _show_colour(header: Dataset, form: PixelFormat, patterns: Samples, claims: Codestream | None) -> _Shown:
    """Colours have no modality and no VOI. Of YBR, the first sample is the luminance."""
    said = claims.colour if claims else None
    is_ybr = said == "YBR" if said else form.photometric in ("YBR_FULL", "YBR_FULL_422")
    colours = patterns & patterns.dtype.type(2**form.stored - 1)
    if colours.ndim == 3:
        colours = colours[..., 0] if is_ybr else _luminance(colours)
    grey: Grey = colours.astype(np.uint8) if form.stored <= 8 else colours.astype(np.uint16)
    return grey, None, (COLOUR,)


def _luminance(colours: Samples) -> Grey:
    """Return the luminance of ``(..., 3)`` colours, rounded."""
    total = np.full(colours.shape[:-1], 2**15, np.uint32)
    for sample, weight in enumerate(_WEIGHTS):
        total += np.multiply(colours[..., sample], np.uint32(weight), dtype=np.uint32)
    total >>= 16
    return total.astype(np.uint8) if colours.dtype == np.uint8 else total.astype(np.uint16)
