"""Values of DICOM elements, read from their bytes.

pydicom converts values according to settings that belong to the whole process, warns about many and repeats them in
what it raises. Here nothing is converted but what is asked for, a wrong value is an error that does not repeat it, and
what a message says can be told to anyone.
"""

import math

import numpy as np
from numpy.typing import NDArray
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from polyhead.errors import ImageError

__all__ = ["first_item", "integers", "lookup_table", "numbers", "text"]

_BINARY = {"US": "u2", "SS": "i2", "UL": "u4", "SL": "i4", "FL": "f4", "FD": "f8"}
_WORDS = {"OW": "u2", "OB": "u1", "UN": "u1"} | _BINARY
_DELIMITERS = {*b"\\\r\n\f\t"}  # Where a text returns to its first character set.


def numbers(header: Dataset, keyword: str) -> list[float]:
    """Return an element's numbers; empty if it is absent or blank.

    Raises
    ------
    ImageError
        It holds something else.
    """
    vr, content, order = _element(header, keyword)
    if vr in _BINARY and len(content) % np.dtype(_BINARY[vr]).itemsize == 0:
        values = [float(value) for value in np.frombuffer(content, order + _BINARY[vr])]
    elif vr in ("DS", "IS"):
        values = [_number(part, keyword) for part in content.split(b"\\")] if content.strip(b" \0") else []
    else:
        raise ImageError(f"element {keyword} holds no numbers ({len(content)} bytes of type {vr}). Correct the file.")
    if not all(math.isfinite(value) for value in values):
        raise ImageError(f"element {keyword} is not finite. Correct the file.")
    return values


def integers(header: Dataset, keyword: str) -> list[int]:
    """Return an element's whole numbers; empty if it is absent or blank. Raises as `numbers` does."""
    values = numbers(header, keyword)
    if not all(value.is_integer() for value in values):
        raise ImageError(f"element {keyword} is no whole number. Correct the file.")
    return [int(value) for value in values]


def text(header: Dataset, keyword: str) -> str | None:
    """Return an element's text, in its character set and without padding; None if it is absent or blank.

    Raises
    ------
    ImageError
        It holds characters that no text may have.
    """
    vr, content, _ = _element(header, keyword)
    if vr in _WORDS or vr == "SQ":
        raise ImageError(f"element {keyword} holds no text (type {vr}). Correct the file.")
    value = decode_bytes(content, _encodings(header), _DELIMITERS).strip(" \0")
    if not value.isprintable():
        raise ImageError(f"element {keyword} holds control characters. Correct the file.")
    return value or None


def first_item(header: Dataset, keyword: str) -> Dataset | None:
    """Return the first item of a sequence; None if it is absent or empty."""
    if keyword not in header:
        return None
    items = header[keyword].value
    if items and not isinstance(items[0], Dataset):
        raise ImageError(f"element {keyword} holds no items. Correct the file.")
    return items[0] if items else None


def lookup_table(table: Dataset, prefix: str, signed: bool) -> tuple[int, NDArray[np.uint16], int]:
    """Return a lookup table (PS3.3, C.11.1.1 and C.11.2.1.1).

    Parameters
    ----------
    prefix
        Of its two elements' keywords: ``LUT``, ``RedPaletteColorLookupTable``, ...
    signed
        Whether what is looked up may be negative.

    Returns
    -------
    The value that the first entry stands for, the entries, and the largest value that an entry may have.

    Raises
    ------
    ImageError
        Descriptor and entries contradict one another.
    """
    descriptor = integers(table, f"{prefix}Descriptor")
    if len(descriptor) != 3 or not 1 <= descriptor[2] <= 16:
        raise ImageError(f"a lookup table whose {prefix}Descriptor is not three numbers, at most 16 bits. Correct it.")
    length, first = descriptor[0] % 2**16 or 2**16, descriptor[1] % 2**16
    if signed and first >= 2**15:
        first -= 2**16
    vr, content, order = _element(table, f"{prefix}Data")
    if len(content) not in (length, length + 1):  # Else bytes, with one to make their number even.
        content = content[: 2 * length]
        entries = np.frombuffer(content[: len(content) // 2 * 2], order + "u2").astype(np.uint16)
    else:
        entries = np.frombuffer(content, np.uint8)[:length].astype(np.uint16)
    if len(entries) != length or vr not in _WORDS:
        raise ImageError(f"a lookup table of {length} entries holds {len(content)} bytes. Export the image again.")
    bits = max(descriptor[2], int(entries.max()).bit_length())
    return first, entries, 2**bits - 1


def _element(header: Dataset, keyword: str) -> tuple[str, bytes, str]:
    """Return an element's type, bytes and byte order."""
    if keyword not in header:
        return "DS", b"", "<"
    element = header.get_item(Tag(keyword), keep_deferred=True)
    if not isinstance(element, RawDataElement):
        return "SQ", b"", "<"
    vr = element.VR
    if vr is None or vr == "UN":
        vr = dictionary_VR(element.tag).split(" or ")[0]
    if element.value is None and element.length:
        raise ImageError(f"element {keyword} is {element.length:,} bytes long. Correct the file.")
    return vr, element.value or b"", "<" if element.is_little_endian else ">"


def _number(part: bytes, keyword: str) -> float:
    try:
        return float(part.strip(b" \0"))
    except ValueError:
        raise ImageError(f"element {keyword} holds something that is no number. Correct the file.") from None


def _encodings(header: Dataset) -> list[str]:
    names = _element(header, "SpecificCharacterSet")[1].decode("ascii", "replace").split("\\")
    encodings: list[str] = convert_encodings([name.strip(" \0") for name in names])
    return encodings
