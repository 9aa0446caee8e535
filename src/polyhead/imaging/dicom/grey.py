"""DICOM's grey scale pipeline (PS3.3, C.11.1, C.11.2 and C.7.6.3), as one table from bit patterns to grey values.

==========================  ======================================================================================
step                        what is done
==========================  ======================================================================================
stored value                high bit, bits stored and sign; what other bits hold, such as overlays, is ignored
modality                    its lookup table, else RescaleSlope and RescaleIntercept
values of interest (VOI)    the first lookup table, else the first window: LINEAR, LINEAR_EXACT or SIGMOID
polarity                    MONOCHROME1, or the presentation shape INVERSE, exchange black and white
depth                       8 bits if 8 or fewer are stored and these lose no level, else 16
==========================  ======================================================================================

With VOI the result fills its range. Without, it is the number of the level, from 0: order and depth are the file's.
The table has at most 65536 entries, so a pixel is looked up once and no step passes over the image.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from polyhead.errors import ImageError
from polyhead.imaging.dicom.codestream import Codestream
from polyhead.imaging.dicom.format import PixelFormat
from polyhead.imaging.dicom.values import first_item, integers, lookup_table, numbers, text
from polyhead.imaging.radiograph import Grey

__all__ = ["GREY_KEYWORDS", "INVERTED", "NO_WINDOW", "GreyTable", "grey_table", "stored_values"]

GREY_KEYWORDS = (
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
)
"""What `grey_table` needs of a header."""

INVERTED = "inverted (MONOCHROME1)"
NO_WINDOW = "no window in the file"

_Values = NDArray[np.float64]


@dataclass(frozen=True)
class GreyTable:
    """What becomes of a bit pattern.

    Attributes
    ----------
    grey
        Shape ``(256,)`` or ``(65536,)``.
    padding
        Of the same shape: whether it stands for no pixel; None if the file knows no padding.
    notes
        As in `Radiograph`.
    """

    grey: Grey
    padding: NDArray[np.bool_] | None
    notes: tuple[str, ...]


def grey_table(header: Dataset, form: PixelFormat, bits: int, claims: Codestream | None) -> GreyTable:
    """Build the table for patterns of `bits` bits.

    Raises
    ------
    ImageError
        The header holds a step that is impossible.
    """
    stored = stored_values(form, bits, claims)
    values, level, top = _modality(header, form, stored)
    fraction = _values_of_interest(header, values)
    if fraction is not None:
        top = 2**16 - 1
        if form.stored <= 8 and _levels(fraction, 2**8 - 1) == _levels(fraction, top):
            top = 2**8 - 1
        level = np.rint(fraction * top)
    shape = (text(header, "PresentationLUTShape") or "").upper()
    inverted = form.photometric == "MONOCHROME1" or shape == "INVERSE"
    shown = top - level if inverted else level
    grey: Grey = shown.astype(np.uint8) if top < 2**8 else shown.astype(np.uint16)
    notes = ((INVERTED,) if inverted else ()) + ((NO_WINDOW,) if fraction is None else ())
    return GreyTable(grey, _padding(header, form, stored), notes)


def stored_values(form: PixelFormat, bits: int, claims: Codestream | None) -> NDArray[np.int64]:
    """Return the stored value of each pattern of `bits` bits.

    A compressed stream holds its samples from bit 0, and a sign in the highest bit that it has; one of more bits than
    are stored holds whole containers. If it is lossy, what it adds beyond the stored bits is clipped, or white would
    turn black.
    """
    lowest, highest = _range(form)
    clipped = claims is not None and claims.lossy and claims.precision > form.stored
    shift, width = form.high_bit + 1 - form.stored, form.stored
    if claims is not None and (clipped or claims.precision <= form.stored):
        shift, width = 0, min(claims.precision, bits)
    values: NDArray[np.int64] = np.arange(2**bits) >> shift & 2**width - 1
    if form.signed:
        values = np.where(values >> width - 1 == 1, values - 2**width, values)
    return np.clip(values, lowest, highest)


def _range(form: PixelFormat) -> tuple[int, int]:
    lowest = -(1 << form.stored - 1) if form.signed else 0
    return lowest, lowest + (1 << form.stored) - 1


def _modality(header: Dataset, form: PixelFormat, stored: NDArray[np.int64]) -> tuple[_Values, _Values, int]:
    """Return each pattern's value, its level if nothing else follows, and the highest level."""
    lowest, highest = _range(form)
    table = first_item(header, "ModalityLUTSequence")
    if table is not None:
        first, entries, top = lookup_table(table, "LUT", form.signed)
        values = np.asarray(entries[np.clip(stored - first, 0, len(entries) - 1)], np.float64)
        return values, values, top
    slope, intercept = _first(header, "RescaleSlope", 1), _first(header, "RescaleIntercept", 0)
    if slope == 0:
        raise ImageError("RescaleSlope 0 makes all pixels equal. Export the image again.")
    levels = np.asarray(stored - lowest if slope > 0 else highest - stored, np.float64)
    return np.asarray(stored * slope + intercept, np.float64), levels, highest - lowest


def _values_of_interest(header: Dataset, values: _Values) -> _Values | None:
    """Return how bright each value is, from 0 to 1; None if the file does not say."""
    table = first_item(header, "VOILUTSequence")
    if table is not None:
        first, entries, top = lookup_table(table, "LUT", bool(values.min() < 0))
        places = np.clip(np.rint(values) - first, 0, len(entries) - 1).astype(np.int64)
        return np.asarray(entries[places] / top, np.float64)
    centre, width = _first(header, "WindowCenter", 0), _first(header, "WindowWidth", 0)
    function = (text(header, "VOILUTFunction") or "LINEAR").upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ImageError("a VOILUTFunction that is not read. Allowed: LINEAR, LINEAR_EXACT, SIGMOID. Export it again.")
    if width <= 0 or (function == "LINEAR" and width < 1):
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return (values > centre).astype(float)
    return np.clip((values - centre) / width + 0.5, 0, 1)


def _padding(header: Dataset, form: PixelFormat, stored: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    ends = [*integers(header, "PixelPaddingValue")[:1], *integers(header, "PixelPaddingRangeLimit")[:1]]
    if not integers(header, "PixelPaddingValue"):
        return None
    # Written with the wrong sign as often as with the right one.
    wrapped = [end % 2**16 for end in ends]
    signed = [end - 2**16 if form.signed and end >= 2**15 else end for end in wrapped]
    return (stored >= min(signed)) & (stored <= max(signed))


def _first(header: Dataset, keyword: str, default: float) -> float:
    return next(iter(numbers(header, keyword)), default)


def _levels(fraction: _Values, top: int) -> int:
    return len(np.unique(np.rint(fraction * top)))
