"""Colours and frames: policies."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from polyhead.errors import ImageError
from tests.imaging.dicom.files import COLUMNS, LOSSLESS, NATIVE, RNG, ROWS, compress, dicom, grey, noise, read

COLOURS = RNG.integers(0, 256, (ROWS, 10, 3), dtype=np.uint8)


def luminance(colours: np.ndarray) -> np.ndarray:
    return colours.astype(float) @ [0.299, 0.587, 0.114]


# Colour


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("syntax", [*NATIVE, RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
def test_rgb_becomes_luminance_whatever_its_order(tmp_path: Path, planar: int, syntax: str) -> None:
    content = dicom(COLOURS, bits=8, photometric="RGB", syntax=syntax, planar=planar)
    result = read(tmp_path, content)
    np.testing.assert_allclose(result.grey, luminance(COLOURS), atol=0.51)
    assert result.notes == ("colour",)
    with pytest.raises(ImageError, match="a colour image"):
        read(tmp_path, content, colour="refuse")


def test_16_bit_rgb_keeps_its_depth(tmp_path: Path) -> None:
    colours = RNG.integers(0, 65536, (ROWS, COLUMNS, 3)).astype(np.uint16)
    result = grey(tmp_path, dicom(colours, bits=16, photometric="RGB"))
    assert result.dtype == np.uint16
    np.testing.assert_allclose(result, luminance(colours), atol=1)


def test_luminance_of_ybr_is_its_first_sample(tmp_path: Path) -> None:
    np.testing.assert_array_equal(grey(tmp_path, dicom(COLOURS, bits=8, photometric="YBR_FULL")), COLOURS[..., 0])
    halved = np.stack([COLOURS[:, ::2, 0], COLOURS[:, 1::2, 0], COLOURS[:, ::2, 1], COLOURS[:, ::2, 2]], axis=-1)
    content = dicom(COLOURS, bits=8, photometric="YBR_FULL_422", stream=halved.tobytes())
    np.testing.assert_array_equal(grey(tmp_path, content), COLOURS[..., 0])


def test_colours_of_a_jpeg_are_what_the_jpeg_says_before_what_the_header_says(tmp_path: Path) -> None:
    smooth = np.repeat(np.repeat(COLOURS[:4, :4], 8, axis=0), 8, axis=1)
    jfif = bytes(imagecodecs.jpeg8_encode(smooth, level=100, subsampling="444"))
    assert b"JFIF" in jfif
    for photometric in ("RGB", "YBR_FULL_422"):
        content = dicom(smooth, bits=8, photometric=photometric, syntax=JPEGBaseline8Bit, stream=jfif)
        np.testing.assert_allclose(grey(tmp_path, content), luminance(smooth), atol=2)
    silent = jfif.replace(jfif[2:20], b"")
    assert b"JFIF" not in silent
    content = dicom(smooth, bits=8, photometric="RGB", syntax=JPEGBaseline8Bit, stream=silent)
    assert np.abs(grey(tmp_path, content) - luminance(smooth)).max() > 20


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_palette_becomes_luminance(tmp_path: Path, depth: int, syntax: str) -> None:
    palette = RNG.integers(0, 2**depth, (200, 3))
    elements: dict[str, object] = {}
    for sample, name in enumerate(("Red", "Green", "Blue")):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [200, 10, depth]
        elements[f"{name}PaletteColorLookupTableData"] = palette[:, sample].astype(f"<u{depth // 8}").tobytes()
    stored = noise(8)
    content = dicom(stored, bits=8, photometric="PALETTE COLOR", syntax=syntax, elements=elements)
    expected = luminance(palette)[np.clip(stored.astype(int) - 10, 0, 199)]
    result = read(tmp_path, content)
    np.testing.assert_allclose(result.grey, expected, atol=1)
    assert (result.grey.dtype, result.notes) == (np.dtype(f"u{depth // 8}"), ("colour",))


# Frames


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name.split(",")[0])
def test_several_frames_are_refused_with_their_number_or_the_first_is_taken(tmp_path: Path, syntax: str) -> None:
    stored = noise(12)
    content = dicom(stored, syntax=syntax, frames=3)
    with pytest.raises(ImageError, match="3 frames"):
        read(tmp_path, content)
    result = read(tmp_path, content, frames="first")
    np.testing.assert_array_equal(result.grey, stored)
    assert "first of several frames" in result.notes


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, RLELossless])
@pytest.mark.parametrize("has_offsets", [True, False])
def test_the_first_frame_is_the_first(tmp_path: Path, syntax: str, has_offsets: bool) -> None:
    first, second = noise(12), noise(12)
    header = dicom(first, syntax=syntax, frames=2)
    frames = [compress(frame, syntax, 12) for frame in (first, second)]
    frames = [frame + b"\0" * (len(frame) % 2) for frame in frames]
    head = header[: header.index(b"\xe0\x7f\x10\x00OB") + 12]
    offsets = np.array([0, len(frames[0]) + 8], "<u4").tobytes() if has_offsets else b""
    items = [b"\xfe\xff\x00\xe0" + len(item).to_bytes(4, "little") + item for item in (offsets, *frames)]
    content = head + b"".join(items) + b"\xfe\xff\xdd\xe0" + bytes(4)
    np.testing.assert_array_equal(grey(tmp_path, content, frames="first"), first)


def test_one_frame_may_lie_in_many_fragments(tmp_path: Path) -> None:
    stored = noise(12)
    whole = dicom(stored, syntax=JPEGLosslessSV1)
    head = whole[: whole.index(b"\xe0\x7f\x10\x00OB") + 12]
    stream = compress(stored, JPEGLosslessSV1, 12)
    parts = [b"", *(stream[start : start + 50] for start in range(0, len(stream), 50))]
    items = [b"\xfe\xff\x00\xe0" + len(item).to_bytes(4, "little") + item for item in parts]
    result = grey(tmp_path, head + b"".join(items) + b"\xfe\xff\xdd\xe0" + bytes(4))
    np.testing.assert_array_equal(result, stored)
