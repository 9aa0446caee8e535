"""From a DICOM file's pixel data to the samples of its first frame, as their bit patterns.

One package, imagecodecs, reads every compressed transfer syntax: it is free of copyleft, decodes outside Python's lock,
and stands thousands of broken streams. Its decoders are called by name, so that none depends on what else is installed.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from polyhead.errors import ImageError
from polyhead.imaging.dicom.codestream import Codestream, inspect_jpeg, inspect_jpeg2000
from polyhead.imaging.dicom.file import NATIVE, DicomFile, PixelData, name_of
from polyhead.imaging.dicom.format import PixelFormat

__all__ = ["Frame", "Samples", "read_frame"]

Samples = NDArray[np.uint8] | NDArray[np.uint16]
Frame = tuple[Samples, Codestream | None]

_LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K)
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_JPEG_END = b"\xff\xd9"
_SLACK = 2**20  # Of a compressed frame over the same not compressed.
_RLE_HEADER = 64
_RUN = 128  # Some encoders end a plane with a run that is longer than what remains.
_MAX_PARTS = 2**17


def _decode_jpeg(stream: bytes) -> NDArray[np.generic]:
    # The same colour space in and out: luminance is taken from what is stored, and no decoder guesses.
    colour = "RGB" if inspect_jpeg(stream).samples == 3 else None
    return imagecodecs.jpeg8_decode(stream, colorspace=colour, outcolorspace=colour)


def _decode_jpeg2000(stream: bytes) -> NDArray[np.generic]:
    # OpenJPEG reads both kinds. The faster decoder of the high-throughput kind never returns from some broken streams.
    return imagecodecs.jpeg2k_decode(stream, numthreads=1)


Inspect = Callable[[bytes], Codestream]
Decode = Callable[[bytes], NDArray[np.generic]]

_CODECS: Mapping[str, tuple[Inspect, Decode]] = MappingProxyType(
    {
        **dict.fromkeys(
            (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1), (inspect_jpeg, _decode_jpeg)
        ),
        **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), (inspect_jpeg, imagecodecs.jpegls_decode)),
        **dict.fromkeys(
            (JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K), (inspect_jpeg2000, _decode_jpeg2000)
        ),
    }
)


def read_frame(dicom: DicomFile, pixels: PixelData, form: PixelFormat) -> Frame:
    """Read the first frame.

    Returns
    -------
    Unsigned bit patterns of shape ``(rows, columns)`` or ``(rows, columns, 3)``, and what a compressed stream said of
    itself, as it must agree with the header.

    Raises
    ------
    ImageError
        The pixels are cut short, contradict the header, or are in a transfer syntax that is not read.
    """
    if dicom.syntax in NATIVE:
        return _read_native(dicom, pixels, form), None
    if dicom.syntax != RLELossless and dicom.syntax not in _CODECS:
        raise ImageError(
            f"transfer syntax {name_of(dicom.syntax)} is not read: pixels must be uncompressed, or what the package "
            "imagecodecs reads for DICOM (JPEG, JPEG-LS, JPEG 2000, HTJ2K, RLE). Convert it, with gdcmconv --raw say."
        )
    if pixels.length is not None:
        raise ImageError("compressed pixels that are not in fragments. Export the image again.")
    stream = _join_fragments(dicom.stream, dicom.syntax == RLELossless, form)
    try:
        return _decode_rle(stream, form) if dicom.syntax == RLELossless else _decode(dicom.syntax, stream, form)
    except ImageError:
        raise
    except ImportError:
        raise ImageError(
            f"transfer syntax {name_of(dicom.syntax)} needs the package imagecodecs with all its codecs. Install it."
        ) from None
    except Exception as problem:
        raise ImageError(
            f"pixels in transfer syntax {name_of(dicom.syntax)} are broken: imagecodecs ({type(problem).__name__}). "
            "Export or copy the image again."
        ) from None


def _read_native(dicom: DicomFile, pixels: PixelData, form: PixelFormat) -> Samples:
    needed = form.frame_bytes
    if pixels.length is None or pixels.length < needed:
        raise ImageError(f"{pixels.length or 'fragments, not'} bytes of pixels; a frame has {needed}. Export it again.")
    content = bytearray(needed + needed % 2)
    if dicom.stream.readinto(content) < needed:  # type: ignore[attr-defined]
        raise ImageError(f"the pixels are cut short: fewer than {needed:,} bytes. Export or copy the image again.")
    big = dicom.syntax == ExplicitVRBigEndian
    samples: Samples = np.frombuffer(content, np.uint8)
    if form.allocated == 16:
        samples = samples.view(">u2" if big else "<u2").astype(np.uint16, copy=False)
    elif big and pixels.words:
        samples = samples.reshape(-1, 2)[:, ::-1].ravel()
    samples = samples[: 8 * needed // form.allocated]
    if form.photometric == "YBR_FULL_422":
        return samples.reshape(form.rows, form.columns // 2, 4)[:, :, :2].reshape(form.rows, form.columns)
    if form.samples == 1:
        return samples.reshape(form.rows, form.columns)
    if form.planar:
        return np.moveaxis(samples.reshape(form.samples, form.rows, form.columns), 0, -1)
    return samples.reshape(form.rows, form.columns, form.samples)


def _join_fragments(file: BinaryIO, is_rle: bool, form: PixelFormat) -> bytes:
    """Join what belongs to the first frame: all fragments of one frame; of several, up to where the second begins.

    That is written in the table before the fragments, which may be empty; RLE has one fragment a frame, and the
    others end with a mark.
    """
    offsets = np.frombuffer(_fragment(file) or b"", "<u4")
    second = int(offsets[1]) if len(offsets) > 1 else None
    limit = 2 * form.frame_bytes + _SLACK
    fragments: list[bytes] = []
    passed = size = 0
    while (fragment := _fragment(file, limit - size)) is not None:
        fragments.append(fragment)
        size += len(fragment)
        passed += len(fragment) + 8
        ended = is_rle or _JPEG_END in fragment[-10:] if second is None else passed >= second
        if form.frames > 1 and ended:
            break
    return b"".join(fragments)


def _fragment(file: BinaryIO, limit: int = 2**24) -> bytes | None:
    """Read the next fragment; None at the end of all."""
    start = file.read(8)
    length = int.from_bytes(start[4:], "little")
    if start[:4] == _END:
        return None
    if len(start) < 8 or start[:4] != _ITEM:
        raise ImageError("the compressed pixels are cut short. Export or copy the image again.")
    if length > limit:
        raise ImageError("compressed pixels larger than twice the same uncompressed. Export the image again.")
    return file.read(length)


def _decode(syntax: str, stream: bytes, form: PixelFormat) -> Frame:
    inspect, decode = _CODECS[syntax]
    claims = inspect(stream)
    said = (claims.columns, claims.rows, claims.samples)
    if said != (form.columns, form.rows, form.samples) or not 1 <= claims.precision <= form.allocated:
        raise ImageError(
            f"the header says {form.columns} x {form.rows} x {form.samples} of at most {form.allocated} bits, the "
            f"compressed pixels {' x '.join(map(str, said))} of {claims.precision}. Export the image again."
        )
    if claims.parts > _MAX_PARTS:
        raise ImageError(f"compressed pixels cut into {claims.parts:,} parts; at most {_MAX_PARTS:,} are read.")
    samples = decode(stream)
    shape = (form.rows, form.columns, 3) if form.samples == 3 else (form.rows, form.columns)
    if samples.shape != shape or samples.dtype.kind not in "iu" or samples.dtype.itemsize > 2:
        raise ImageError("the compressed pixels are not what the header says. Export the image again.")
    return samples.view(f"u{samples.dtype.itemsize}"), replace(claims, lossy=syntax in _LOSSY)


def _decode_rle(stream: bytes, form: PixelFormat) -> Frame:
    """Decode RLE (PS3.5, G): each byte of a sample is a plane of its own, the high one first."""
    header = np.frombuffer(stream[:_RLE_HEADER], "<u4").tolist()
    width = form.allocated // 8
    planes = form.samples * width
    if header[0] != planes:
        raise ImageError(f"{header[0]} planes of RLE; the header of the file makes it {planes}. Export it again.")
    bounds = [*header[1 : planes + 1], len(stream)]
    if bounds != sorted(bounds):
        raise ImageError("planes of RLE out of order. Export or copy the image again.")
    content = np.empty((form.samples, form.rows, form.columns, width), np.uint8)
    for plane in range(planes):
        segment = stream[bounds[plane] : bounds[plane + 1]]
        content[plane // width, :, :, width - 1 - plane % width] = _decode_plane(segment, form)
    samples = content.view(f"<u{width}")[..., 0].astype(f"u{width}", copy=False)
    return (samples[0] if form.samples == 1 else np.moveaxis(samples, 0, -1)), None


def _decode_plane(segment: bytes, form: PixelFormat) -> NDArray[np.uint8]:
    size = form.rows * form.columns
    content = imagecodecs.packbits_decode(segment, out=size + _RUN)
    return np.frombuffer(content, np.uint8, size).reshape(form.rows, form.columns)
