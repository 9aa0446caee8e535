"""Opening a DICOM file: its header as a pydicom data set, and the place where its pixel data begin.

Nothing that a header does not need is read: other elements are skipped, pixel data are left to the caller, and deflated
files are inflated up to a limit only. pydicom's `dcmread` would inflate any number of bytes.
"""

import io
import re
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from polyhead.errors import ImageError
from polyhead.imaging.dicom.values import text
from polyhead.imaging.radiograph import MAX_PIXELS

__all__ = ["NATIVE", "DicomFile", "PixelData", "find_pixel_data", "is_dicom", "name_of", "open_dicom"]

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
"""Transfer syntaxes with pixels that are not compressed."""

_MAX_BYTES = 2**30
_MAX_INFLATED = 2 * MAX_PIXELS + 2**24
_MOST_READS = 200_000  # A radiograph's header takes some thousands.
_MAX_VALUE = 2**22  # A lookup table has at most 65536 entries of 2 bytes; a file may bring several.

_PREAMBLE = 128
_META = b"\x02\x00\x00\x00UL"  # The first element of file meta information.
_OLD = re.compile(rb"\x08\x00.\x00(?:[A-Z]{2}|..\x00\x00)|\x00\x08\x00.[A-Z]{2}", re.DOTALL)
_PIXEL_DATA = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_LONG = (b"OB", b"OW", b"OF", b"OD", b"UN")
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True)
class DicomFile:
    """An open file.

    Attributes
    ----------
    header
        The elements asked for, of those before the pixel data.
    kind
        What the file calls itself.
    stream
        Stands where the pixel data begin, or where the header ends if there are none.
    """

    header: Dataset
    syntax: UID
    kind: str
    stream: BinaryIO


@dataclass(frozen=True)
class PixelData:
    """The element with the pixels, whose value begins where the stream stands.

    Attributes
    ----------
    length
        In bytes; None for a sequence of fragments.
    words
        Whether its bytes are those of 16-bit words, in the file's byte order.
    """

    length: int | None
    words: bool


def is_dicom(start: bytes) -> bool:
    """Tell from a file's first 132 bytes or more whether it is DICOM.

    True also of files without the preamble of 128 bytes, as they were common before 1993: these begin with an element
    of group 2 or 8. `read_dicom` reads the former, and refuses the latter, whose transfer syntax is nowhere written.
    """
    return start[_PREAMBLE : _PREAMBLE + 4] == b"DICM" or start.startswith(_META) or bool(_OLD.match(start))


def open_dicom(file: BinaryIO, keywords: tuple[str, ...]) -> DicomFile:
    """Read a header.

    Parameters
    ----------
    keywords
        The elements to read; all others are skipped.

    Raises
    ------
    ImageError
        No DICOM, or one that cannot be read. pydicom raises nearly anything else.
    """
    size = file.seek(0, io.SEEK_END)
    if size > _MAX_BYTES:
        raise ImageError(f"{size:,} bytes; DICOM files of at most {_MAX_BYTES:,} are read. Export it smaller.")
    syntax, kind = _read_meta(file)
    if syntax == DeflatedExplicitVRLittleEndian:
        file = _inflate(file)
    wanted: list[BaseTag | int] = [Tag(keyword) for keyword in keywords]
    header = read_dataset(
        _Counted(file),  # type: ignore[arg-type]
        syntax == ImplicitVRLittleEndian,
        syntax != ExplicitVRBigEndian,
        stop_when=lambda tag, vr, length: tag in _PIXEL_DATA,
        defer_size=_MAX_VALUE,
        specific_tags=wanted,
    )
    return DicomFile(header, syntax, kind, file)


def find_pixel_data(dicom: DicomFile) -> PixelData:
    """Read the pixel element's own header.

    Raises
    ------
    ImageError
        There is none, or its pixels are floating-point numbers.
    """
    order = ">" if dicom.syntax == ExplicitVRBigEndian else "<"
    start = dicom.stream.read(8)
    group, element = struct.unpack(f"{order}HH", start[:4]) if len(start) == 8 else (0, 0)
    keyword = _PIXEL_DATA.get(group << 16 | element)
    if keyword is None:
        raise ImageError(
            f"no pixel data; the file is {dicom.kind}. Remove its row; if it should hold an image, copy it again."
        )
    if keyword != "PixelData":
        raise ImageError(f"pixels are floating-point numbers ({keyword}). Export it with whole numbers.")
    explicit = start[4:6] in _LONG
    length = struct.unpack(f"{order}I", dicom.stream.read(4) if explicit else start[4:])[0]
    return PixelData(None if length == 2**32 - 1 else length, not explicit or start[4:6] == b"OW")


class _Counted:
    """A stream that refuses too many reads: pydicom builds every item even of a sequence that nobody asks for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, _MOST_READS
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise ImageError(f"a header of more than {_MOST_READS:,} parts. Export the image again.")
        return self._file.read(size)


def name_of(uid: str | None) -> str:
    """Return a DICOM identifier's name and itself, or only what it is if it has no name."""
    if uid is None or not _UID.fullmatch(uid):
        return "of no kind known"
    name = UID(uid).name
    return uid if name == uid else f"{name} ({uid})"


def _read_meta(file: BinaryIO) -> tuple[UID, str]:
    """Read the file meta information, always in explicit little endian; return the transfer syntax and what it is."""
    file.seek(0)
    start = file.read(_PREAMBLE + 4)
    if not is_dicom(start):
        raise ImageError("no DICOM file: it does not begin as one. Export it again.")
    if start[_PREAMBLE:] == b"DICM":
        pass
    elif start.startswith(_META):
        file.seek(0)
    else:
        raise ImageError("DICOM without file meta information: its transfer syntax is not known. Export it again.")
    meta = read_dataset(
        _Counted(file),  # type: ignore[arg-type]
        False,
        True,
        stop_when=lambda tag, vr, length: tag >> 16 != 2,
        defer_size=_MAX_VALUE,
    )
    syntax = text(meta, "TransferSyntaxUID")
    if syntax is None:
        raise ImageError("DICOM without a transfer syntax in its file meta information. Export it again.")
    return UID(syntax), name_of(text(meta, "MediaStorageSOPClassUID"))


def _inflate(file: BinaryIO) -> BinaryIO:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflater.decompress(file.read(), _MAX_INFLATED)
    if not inflater.eof:
        kind = "more than is read" if len(content) == _MAX_INFLATED else "the file is cut short"
        raise ImageError(f"deflated: {len(content):,} bytes inflated, then {kind}. Export it again, not deflated.")
    return io.BytesIO(content)
