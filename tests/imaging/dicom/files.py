"""Synthetic DICOM files in every variant, from stored values."""

import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
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
from polyhead.imaging.dicom import read_dicom
from polyhead.imaging.radiograph import Radiograph

RNG = np.random.default_rng(0)
ROWS, COLUMNS = 13, 9

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
LOSSLESS = (*NATIVE, RLELossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless)
LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000)


def noise(bits: int, signed: bool = False) -> np.ndarray:
    """Every shape of number: random, with both ends of the range."""
    low = -(2 ** (bits - 1)) if signed else 0
    stored = RNG.integers(low, low + 2**bits, (ROWS, COLUMNS))
    stored[0, :2] = low, low + 2**bits - 1
    return stored.astype(np.int16 if signed else np.uint16)


def read(folder: Path, content: bytes, **policy: str) -> Radiograph:
    path = folder / "image.dcm"
    path.write_bytes(content)
    return read_dicom(path, **policy)  # type: ignore[arg-type]


def grey(folder: Path, content: bytes, **policy: str) -> np.ndarray:
    return read(folder, content, **policy).grey


def dicom(
    stored: np.ndarray,
    *,
    bits: int = 12,
    allocated: int | None = None,
    high_bit: int | None = None,
    photometric: str = "MONOCHROME2",
    syntax: str = ExplicitVRLittleEndian,
    frames: int | None = None,
    planar: int = 0,
    stream: bytes | None = None,
    elements: Mapping[str, object] | None = None,
) -> bytes:
    """Return a file of stored values of shape (rows, columns) or (rows, columns, 3), signed if their type is.

    `stream` takes the place of the compressed or plain pixels; an element that is None is left out.
    """
    allocated = allocated or (8 if bits <= 8 else 16)
    header = Dataset()
    header.SOPClassUID = ComputedRadiographyImageStorage
    header.SOPInstanceUID = "1.2.3"
    header.Rows, header.Columns = stored.shape[:2]
    header.SamplesPerPixel = 3 if stored.ndim == 3 else 1
    header.PhotometricInterpretation = photometric
    header.PixelRepresentation = int(stored.dtype.kind == "i")
    header.BitsAllocated, header.BitsStored = allocated, bits
    header.HighBit = bits - 1 if high_bit is None else high_bit
    if stored.ndim == 3:
        header.PlanarConfiguration = planar
    if frames:
        header.NumberOfFrames = frames
    pixels = patterns(stored, bits, allocated, header.HighBit)
    if UID(syntax).is_encapsulated:
        frame = compress(pixels, syntax, bits) if stream is None else stream
        header.PixelData = encapsulate([frame] * (frames or 1))
        header["PixelData"].VR = "OB"
    else:
        ordered = np.moveaxis(pixels, -1, 0) if planar else pixels
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        content = ordered.astype(f"{order}u{allocated // 8}").tobytes() * (frames or 1) if stream is None else stream
        header.PixelData = content + b"\0" * (len(content) % 2)
        header["PixelData"].VR = "OB" if allocated == 8 and syntax != ImplicitVRLittleEndian else "OW"
    for keyword, value in (elements or {}).items():
        if value is None:
            delattr(header, keyword)
        else:
            setattr(header, keyword, value)
    return written(header, syntax)


def written(header: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Return a file with any header."""
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = UID(syntax)
    header.file_meta.MediaStorageSOPClassUID = header.get("SOPClassUID", "1.2.3.4")
    header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    buffer = io.BytesIO()
    dcmwrite(buffer, header, enforce_file_format=True)
    return buffer.getvalue()


def patterns(stored: np.ndarray, bits: int, allocated: int, high_bit: int) -> np.ndarray:
    """Return what stands in the file: the low bits of the values, moved up to the high bit."""
    unsigned = stored.astype(np.int64) & (2**bits - 1)
    return (unsigned << (high_bit + 1 - bits)).astype(f"u{allocated // 8}")


def compress(pixels: np.ndarray, syntax: str, bits: int) -> bytes:
    """Return one frame, compressed."""
    if syntax == RLELossless:
        return rle(pixels)
    if syntax in (JPEGLossless, JPEGLosslessSV1):
        predictor = 1 if syntax == JPEGLosslessSV1 else 6
        return bytes(imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=predictor, bitspersample=bits))
    if syntax in (JPEGBaseline8Bit, JPEGExtended12Bit):
        return bytes(imagecodecs.jpeg8_encode(pixels, level=100, bitspersample=bits))
    if syntax in (JPEGLSLossless, JPEGLSNearLossless):
        return bytes(imagecodecs.jpegls_encode(pixels, level=0 if syntax == JPEGLSLossless else 1))
    if syntax == HTJ2KLossless:
        return bytes(imagecodecs.htj2k_encode(pixels, reversible=True))
    lossless = syntax == JPEG2000Lossless
    return bytes(
        imagecodecs.jpeg2k_encode(
            pixels, level=0 if lossless else 60, codecformat="j2k", reversible=lossless, bitspersample=bits
        )
    )


def rle(pixels: np.ndarray) -> bytes:
    """Return a frame in RLE: its planes, each of literal runs and one repetition where rows are even."""
    width = pixels.dtype.itemsize
    samples = np.atleast_3d(pixels)
    segments = []
    for sample in range(samples.shape[-1]):
        plane = np.ascontiguousarray(samples[..., sample]).astype(f">u{width}").view(np.uint8).reshape(-1, width)
        for byte in range(width):
            segment = bytes(imagecodecs.packbits_encode(plane[:, byte].copy()))
            segments.append(segment + b"\0" * (len(segment) % 2))
    starts = 64 + np.cumsum([0, *map(len, segments[:-1])])
    header = np.zeros(16, "<u4")
    header[: len(starts) + 1] = [len(starts), *starts]
    return header.tobytes() + b"".join(segments)


def table(entries: np.ndarray, first: int, bits: int, data: bytes | None = None) -> Sequence:
    """Return a sequence with one lookup table."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 2**16, first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes() if data is None else data)
    return Sequence([item])


def code(value: str, meaning: str = "any") -> Sequence:
    """Return a sequence with one code."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return Sequence([item])


PATIENT = "Mustermann"
STORED = noise(12)
WHOLE = dicom(STORED, elements={"PatientID": PATIENT, "PatientName": PATIENT})


def first_frame(path: Path) -> None:
    image = read_dicom(path, frames="first")
    assert image.grey.ndim == 2
    assert image.grey.dtype in (np.uint8, np.uint16)


def problem(folder: Path, content: bytes, reader: Callable[[Path], object] = first_frame) -> str | None:
    """What is wrong with a file, checked for what every reason must be; None if nothing is."""
    path = folder / "image.dcm"
    path.write_bytes(content)
    reason = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            reader(path)
        except ImageError as caught:
            reason = str(caught)
    if reason is None:
        return None
    start = f"{path}: "
    assert reason.startswith(start)
    assert "\n" not in reason
    assert PATIENT[:6] not in reason
    return reason.removeprefix(start)


def refusal(folder: Path, content: bytes) -> str:
    reason = problem(folder, content, read_dicom)
    assert reason is not None
    return reason
