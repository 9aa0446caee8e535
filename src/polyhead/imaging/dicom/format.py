"""What a DICOM header says of its pixels (PS3.3, C.7.6.3), as far as it says the possible."""

from dataclasses import dataclass

from pydicom.dataset import Dataset

from polyhead.errors import ImageError
from polyhead.imaging.dicom.values import integers, text
from polyhead.imaging.radiograph import MAX_PIXELS

__all__ = ["FORMAT_KEYWORDS", "PixelFormat", "read_format"]

FORMAT_KEYWORDS = (
    *("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "PhotometricInterpretation", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)
"""What `read_format` needs of a header."""

_SAMPLES = {
    **dict.fromkeys(("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"), 1),
    **dict.fromkeys(("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"), 3),
}


@dataclass(frozen=True)
class PixelFormat:
    """How a frame's samples lie in its bytes, and what they mean.

    Attributes
    ----------
    allocated, stored, high_bit
        Bits of a sample: its container, 8 or 16; those in use; and the number of the highest of these, from 0.
    signed
        Two's complement.
    planar
        All of one colour, then all of the next; else pixel by pixel.
    """

    rows: int
    columns: int
    samples: int
    frames: int
    photometric: str
    planar: bool
    allocated: int
    stored: int
    high_bit: int
    signed: bool

    @property
    def is_grey(self) -> bool:
        """Whether pixels are measurements, not colours."""
        return self.photometric.startswith("MONOCHROME")

    @property
    def frame_bytes(self) -> int:
        """Length of a frame that is not compressed."""
        halved = self.photometric == "YBR_FULL_422"  # Two pixels share their colour.
        return self.rows * self.columns * (2 if halved else self.samples) * self.allocated // 8


def read_format(header: Dataset) -> PixelFormat:
    """Read and check the image pixel module.

    Raises
    ------
    ImageError
        Something is missing, impossible, contradictory, or more than is read.
    """
    photometric = (text(header, "PhotometricInterpretation") or "").upper()
    if not photometric:
        raise ImageError("no PhotometricInterpretation; no image without it. Export the image again.")
    if photometric not in _SAMPLES:
        raise ImageError(
            f"a PhotometricInterpretation that is not read. Allowed: {', '.join(_SAMPLES)}. Export as grey."
        )
    stored = _one(header, "BitsStored")
    format_ = PixelFormat(
        rows=_one(header, "Rows"),
        columns=_one(header, "Columns"),
        samples=_one(header, "SamplesPerPixel", 1),
        frames=_one(header, "NumberOfFrames", 1),
        photometric=photometric,
        planar=_one(header, "PlanarConfiguration", 0) == 1,
        allocated=_one(header, "BitsAllocated"),
        stored=stored,
        high_bit=_one(header, "HighBit", stored - 1),
        signed=_one(header, "PixelRepresentation", 0) == 1,
    )
    _check(format_)
    return format_


def _one(header: Dataset, keyword: str, default: int | None = None) -> int:
    values = integers(header, keyword)
    if not values and default is not None:
        return default
    if len(values) != 1:
        raise ImageError(f"{len(values)} values of {keyword}; one is needed. Export the image again.")
    return values[0]


def _check(f: PixelFormat) -> None:
    if f.rows < 1 or f.columns < 1 or f.frames < 1:
        raise ImageError(f"{f.columns} x {f.rows} pixels in {f.frames} frames: no image. Export it again.")
    if f.rows * f.columns > MAX_PIXELS:
        raise ImageError(f"{f.columns} x {f.rows} pixels; at most {MAX_PIXELS:,} are read. Export it smaller.")
    if f.allocated not in (8, 16):
        raise ImageError(f"BitsAllocated {f.allocated}; 8 and 16 are read. Export it so.")
    if not 1 <= f.stored <= f.high_bit + 1 <= f.allocated:
        raise ImageError(
            f"BitsAllocated {f.allocated}, BitsStored {f.stored} and HighBit {f.high_bit} contradict one another. "
            "Export the image again."
        )
    if f.samples != _SAMPLES[f.photometric]:
        raise ImageError(f"SamplesPerPixel {f.samples}, but {f.photometric} has {_SAMPLES[f.photometric]}. Correct it.")
    if f.signed and not f.is_grey and f.photometric != "PALETTE COLOR":
        raise ImageError("colours with a sign (PixelRepresentation 1). Export the image again.")
