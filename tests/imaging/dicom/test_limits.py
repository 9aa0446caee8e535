"""What a file claims is held against what is allowed before anything is decoded or allocated."""

import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from polyhead.errors import ImageError
from polyhead.imaging.dicom import file as dicom_file
from polyhead.imaging.dicom import read_dicom
from tests.imaging.dicom.files import LOSSY, STORED, WHOLE, compress, dicom, noise, refusal


def test_too_many_pixels(tmp_path: Path) -> None:
    content = dicom(STORED, elements={"Rows": 60_000, "Columns": 60_000})
    assert "60000 x 60000 pixels; at most 50,000,000" in refusal(tmp_path, content)


def test_file_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "image.dcm").open("wb") as file:
        file.write(WHOLE)
        file.truncate(2**31)
    with pytest.raises(ImageError, match="at most 1,073,741,824"):
        read_dicom(tmp_path / "image.dcm")


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLosslessSV1, *LOSSY, RLELossless])
def test_stream_that_claims_other_dimensions_than_the_header(tmp_path: Path, syntax: str) -> None:
    bits = 8 if syntax == JPEGBaseline8Bit else 12
    large = np.zeros((60, 50), np.uint16)
    stream = compress(large.astype(np.uint8) if bits == 8 else large, syntax, bits)
    reason = refusal(tmp_path, dicom(noise(bits), bits=bits, syntax=syntax, stream=stream))
    assert "50 x 60 x 1" in reason or syntax == RLELossless


def test_claims_cost_no_memory(tmp_path: Path) -> None:
    stream = bytearray(compress(STORED, JPEG2000Lossless, 12))
    stream[8:16] = (60_000).to_bytes(4, "big") * 2
    content = dicom(STORED, syntax=JPEG2000Lossless, stream=bytes(stream))
    tracemalloc.start()
    try:
        assert "60000 x 60000 x 1" in refusal(tmp_path, content)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_stream_cut_into_too_many_parts(tmp_path: Path) -> None:
    stored = np.zeros((2000, 2000), np.uint16)
    stream = bytearray(compress(stored, JPEG2000Lossless, 12))
    style = stream.index(b"\xff\x52")
    levels = stream[style + 9]
    stream[style + 2 : style + 4] = (12 + levels + 1).to_bytes(2, "big")
    stream[style + 4] |= 1
    stream[style + 14 : style + 14] = b"\x11" * (levels + 1)
    assert "parts; at most 131,072" in refusal(tmp_path, dicom(stored, syntax=JPEG2000Lossless, stream=bytes(stream)))
    tiles = bytearray(compress(stored, JPEG2000Lossless, 12))
    tiles[24:32] = (8).to_bytes(4, "big") * 2
    assert "parts; at most 131,072" in refusal(tmp_path, dicom(stored, syntax=JPEG2000Lossless, stream=bytes(tiles)))


def test_progressive_jpeg_and_many_scans(tmp_path: Path) -> None:
    pixels = noise(8).astype(np.uint8)
    stream = compress(pixels, JPEGBaseline8Bit, 8)
    progressive = stream.replace(b"\xff\xc0", b"\xff\xc2", 1)
    assert "SOF2" in refusal(tmp_path, dicom(pixels, bits=8, syntax=JPEGBaseline8Bit, stream=progressive))
    scan = stream[stream.index(b"\xff\xda") : -2]
    content = dicom(pixels, bits=8, syntax=JPEGBaseline8Bit, stream=stream[:-2] + scan * 500 + b"\xff\xd9")
    assert "501 scans; at most 3" in refusal(tmp_path, content)


def test_deflated_bomb_is_inflated_only_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = dicom(STORED, syntax=DeflatedExplicitVRLittleEndian)
    start = content.index(b"1.2.840.10008.1.2.1.99") + 22
    deflater = zlib.compressobj(wbits=-15)
    bomb = content[:start] + deflater.compress(bytes(50_000_000)) + deflater.flush()
    monkeypatch.setattr(dicom_file, "_MAX_INFLATED", 1_000_000)
    tracemalloc.start()
    try:
        assert "1,000,000 bytes inflated, then more than is read" in refusal(tmp_path, bomb)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("tag", [b"\x09\x00\x01\x00", b"\x28\x00\x20\x01"])
def test_element_that_claims_four_gigabytes_is_not_allocated(tmp_path: Path, tag: bytes) -> None:
    """Be it one that is not read, or the padding value, which is."""
    claim = tag + b"UN\0\0\xf0\xff\xff\xff"
    content = WHOLE.replace(b"\x28\x00\x02\x00US", claim + b"\x28\x00\x02\x00US", 1)
    tracemalloc.start()
    try:
        assert "no pixel data" in refusal(tmp_path, content)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_sequences_nested_without_end(tmp_path: Path) -> None:
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x09\x00\x10\x00SQ\0\0\xff\xff\xff\xff"
    content = WHOLE.replace(b"\x28\x00\x02\x00US", item[8:] + item * 30_000 + b"\x28\x00\x02\x00US", 1)
    assert "broken DICOM" in refusal(tmp_path, content)


def test_a_sequence_of_very_many_empty_items_is_refused(tmp_path: Path) -> None:
    """Nobody asks for it, and pydicom would build each of them: gigabytes from a small file."""
    whole = dicom(noise(12))
    place = whole.index(b"\xe0\x7f\x10\x00")
    items = b"\xfe\xff\x00\xe0\x00\x00\x00\x00" * 300_000 + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
    sequence = b"\xdd\x7f\x10\x10SQ\x00\x00\xff\xff\xff\xff" + items
    assert "more than 200,000 parts" in refusal(tmp_path, whole[:place] + sequence + whole[place:])
