"""What a compressed frame says of itself, read before any decoder sees it.

A decoder believes the stream, allocates for it and works for it. These must not reach one: a stream of 60000 x 60000 in
a header of 64 x 64; one cut into millions of parts, or drawn thousands of times over; one whose end is missing, where
decoders fill the rest with grey and say nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from polyhead.errors import ImageError

__all__ = ["Codestream", "inspect_jpeg", "inspect_jpeg2000"]

_JP2 = b"\0\0\0\x0cjP  "
_SOC_SIZ = b"\xff\x4f\xff\x51"
_END = b"\xff\xd9"
_SIZ_BYTES = 42
_COD, _COC, _SOT, _SOD = 0xFF52, 0xFF53, 0xFF90, 0xFF93
_NO_LENGTH = (0x01, *range(0xD0, 0xD9))
# Baseline, extended, lossless, JPEG-LS. Others (progressive, arithmetic) are not in DICOM, and a short stream of the
# progressive kind may keep a decoder busy for hours.
_FRAMES = (0xC0, 0xC1, 0xC3, 0xF7)
_OTHER_FRAMES = (0xC2, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_MAX_HEADER, _MAX_SEGMENTS = 2**20, 2**17
_SCAN, _MAX_SCANS = b"\xff\xda", 3  # One for each sample of a pixel.
_APP0, _APP14, _START_OF_SCAN = 0xE0, 0xEE, 0xDA


@dataclass(frozen=True)
class Codestream:
    """Claims of a stream.

    Attributes
    ----------
    precision
        Bits of a sample.
    colour
        ``RGB`` or ``YBR`` if the stream says so itself, which then goes before the header.
    parts
        How much it is cut up, which costs memory before the first pixel: of JPEG 2000, 16 a tile, 1 a precinct, 1/8 a
        code block, each about 1 to 2 KB.
    lossy
        Whether samples may stray beyond what was stored, as they may where the transfer syntax allows loss.
    """

    rows: int
    columns: int
    samples: int
    precision: int
    colour: str | None = None
    parts: int = 0
    lossy: bool = False


def inspect_jpeg(stream: bytes) -> Codestream:
    """Read the segments of a JPEG or JPEG-LS stream up to its first scan.

    Raises
    ------
    ImageError
        It is none, or is cut short.
    """
    _check_end(stream)
    claims: Codestream | None = None
    jfif, adobe, letters = False, None, False
    scans = stream.count(_SCAN)  # Within compressed data these two bytes cannot stand.
    if scans > _MAX_SCANS:
        raise ImageError(f"a JPEG stream of {scans:,} scans; at most {_MAX_SCANS} are read. Export it uncompressed.")
    for marker, segment in _segments(stream):
        if marker in _OTHER_FRAMES:
            raise ImageError(f"a JPEG of a kind that DICOM does not have (SOF{marker - 0xC0}). Export it uncompressed.")
        if marker in _FRAMES and len(segment) >= 6:
            samples = segment[5]
            letters = segment[6::3][:samples] in (b"RGB", b"rgb")
            claims = Codestream(_number(segment, 1, 2), _number(segment, 3, 2), samples, segment[0])
        elif marker == _APP0:
            jfif |= segment.startswith(b"JFIF\0")
        elif marker == _APP14 and segment.startswith(b"Adobe") and len(segment) >= 12:
            adobe = segment[11]
    if claims is None:
        raise ImageError("a broken JPEG stream: no start of frame. Export or copy the image again.")
    # The order in which decoders for DICOM go, from what an encoder wrote on purpose to what it wrote out of habit.
    says_rgb, says_ybr = adobe == 0 or (adobe is None and letters), adobe == 1 or (adobe is None and jfif)
    colour = "RGB" if says_rgb else "YBR" if says_ybr else None
    return Codestream(claims.rows, claims.columns, claims.samples, claims.precision, colour)


def inspect_jpeg2000(stream: bytes) -> Codestream:
    """Read size and styles of a JPEG 2000 stream, high-throughput or not. Raises as `inspect_jpeg` does."""
    start = stream.find(_SOC_SIZ, 0, 2048) if stream.startswith(_JP2) else 0
    siz = stream[start : start + _SIZ_BYTES + 3] if start >= 0 else b""
    if not siz.startswith(_SOC_SIZ) or len(siz) < _SIZ_BYTES + 3:
        raise ImageError("a broken JPEG 2000 stream: no size. Export or copy the image again.")
    _check_end(stream)
    right, bottom, left, top, tile_width, tile_height = (_number(siz, 8 + 4 * i, 4) for i in range(6))
    if any(step != 1 for step in siz[43:45]) or not tile_width or not tile_height:
        raise ImageError("a JPEG 2000 stream with a grid that is not its pixels'. Export the image again.")
    width, height = right - left, bottom - top
    tiles = -(-right // tile_width) * -(-bottom // tile_height)
    samples = _number(siz, 40, 2)
    blocks = max(_count_blocks(style, max(width, 0), max(height, 0)) for style in _coding_styles(stream[start:]))
    return Codestream(height, width, samples, (siz[42] & 0x7F) + 1, parts=16 * tiles + samples * blocks)


def _coding_styles(stream: bytes) -> list[bytes]:
    """Return all coding styles of a JPEG 2000 stream, as of a COD segment.

    There is one for all, and there may be more for single samples and tiles (COC, and both in a tile-part's header).
    """
    styles = []
    at, end_of_part = 2, 0
    for _ in range(_MAX_SEGMENTS):
        marker, length = _number(stream, at, 2), _number(stream, at + 2, 2)
        segment = stream[at + 4 : at + 2 + length]
        if marker == _SOT:
            end_of_part = at + (_number(segment, 2, 4) or len(stream))
        elif marker == _COD:
            styles.append(segment)
        elif marker == _COC:
            styles.append(segment[1:2] + bytes(4) + segment[2:])  # No progression, layers and transform.
        after = end_of_part if marker == _SOD else at + 2 + length
        if after < at + 4 or after >= len(stream):
            break
        at = after
    if not styles or any(len(style) < 10 for style in styles):
        raise ImageError("a broken JPEG 2000 stream: no coding style. Export or copy the image again.")
    return styles


def _count_blocks(style: bytes, width: int, height: int) -> int:
    """Return the number of precincts, and an eighth of that of code blocks."""
    levels = style[5]
    blocks = width * height >> (style[6] + style[7] + 4)
    sizes = style[10:] if style[0] & 1 else b"\xff" * (levels + 1)
    precincts = 0
    for level, size in zip(range(levels, -1, -1), sizes, strict=False):
        across, down = level + (size & 15), level + (size >> 4)
        precincts += -(-width >> across) * -(-height >> down) if width and height else 0
    return precincts + blocks // 6  # Coarser levels add a third.


def _segments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of each segment up to the first scan."""
    at = 2
    while at + 4 <= min(len(stream), _MAX_HEADER) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF or marker in _NO_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        length = _number(stream, at + 2, 2)
        yield marker, stream[at + 4 : at + 2 + length]
        if marker == _START_OF_SCAN:
            return
        at += 2 + length


def _check_end(stream: bytes) -> None:
    if not stream.rstrip(b"\0\xff").endswith(_END):
        raise ImageError("the compressed pixels are cut short (their end mark is missing). Export or copy it again.")


def _number(content: bytes, start: int, length: int) -> int:
    return int.from_bytes(content[start : start + length], "big")
