"""A synthetic DICOM in every variant equals its plain twin, computed by hand."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.imaging.dicom.files import (
    COLUMNS,
    LOSSLESS,
    LOSSY,
    NATIVE,
    RNG,
    ROWS,
    compress,
    dicom,
    grey,
    noise,
    patterns,
    read,
    table,
)

WINDOW = {"WindowCenter": 300, "WindowWidth": 500}
DEPTHS = (8, 10, 12, 14, 16)


def window(values: np.ndarray, centre: float, width: float, top: int = 65535) -> np.ndarray:
    """LINEAR, PS3.3, C.11.2.1.2.1, as the standard writes it."""
    y = ((values - (centre - 0.5)) / (width - 1) + 0.5) * top
    y[values <= centre - 0.5 - (width - 1) / 2] = 0
    y[values > centre - 0.5 + (width - 1) / 2] = top
    return np.rint(y)


# Stored values, in every transfer syntax


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name.split(",")[0])
@pytest.mark.parametrize("bits", DEPTHS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_levels_are_those_stored(tmp_path: Path, syntax: str, bits: int, signed: bool, photometric: str) -> None:
    stored = noise(bits, signed)
    levels = stored.astype(int) + (2 ** (bits - 1) if signed else 0)
    inverted = photometric == "MONOCHROME1"
    result = read(tmp_path, dicom(stored, bits=bits, syntax=syntax, photometric=photometric))
    assert result.grey.dtype == (np.uint8 if bits <= 8 else np.uint16)
    assert result.file_format == "DICOM"
    assert result.notes == (("inverted (MONOCHROME1)",) if inverted else ()) + ("no window in the file",)
    np.testing.assert_array_equal(result.grey, 2**bits - 1 - levels if inverted else levels)


@pytest.mark.parametrize("syntax", LOSSY, ids=lambda uid: uid.name)
def test_lossy_pixels_are_near_those_stored(tmp_path: Path, syntax: str) -> None:
    bits = 8 if syntax == JPEGBaseline8Bit else 12
    rows, columns = np.mgrid[:40, :30]
    stored = ((rows + columns) * (2**bits - 1) / 68).astype(np.uint16)
    result = grey(tmp_path, dicom(stored, bits=bits, syntax=syntax))
    np.testing.assert_allclose(result.astype(int), stored, atol=2**bits / 64)
    assert result.max() > 0.9 * 2**bits


@pytest.mark.parametrize("syntax", [*NATIVE, RLELossless], ids=lambda uid: uid.name)
@pytest.mark.parametrize("signed", [False, True])
def test_high_bit_is_honoured_and_other_bits_are_ignored(tmp_path: Path, syntax: str, signed: bool) -> None:
    stored = noise(10, signed)
    raw = patterns(stored, 10, 16, 13) | RNG.choice(np.array([0, 0x8001, 0x4002], np.uint16), stored.shape)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    stream = compress(raw, syntax, 16) if syntax == RLELossless else raw.astype(f"{order}u2").tobytes()
    result = grey(tmp_path, dicom(stored, bits=10, high_bit=13, syntax=syntax, stream=stream))
    np.testing.assert_array_equal(result, stored.astype(int) + 512 * signed)


@pytest.mark.parametrize("precision", [12, 16])
def test_compressed_stream_may_hold_whole_containers(tmp_path: Path, precision: int) -> None:
    stored = noise(12)
    stream = compress(stored, JPEGLosslessSV1, precision)
    np.testing.assert_array_equal(grey(tmp_path, dicom(stored, syntax=JPEGLosslessSV1, stream=stream)), stored)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless])
def test_compressed_samples_lie_at_bit_0_whatever_the_high_bit(tmp_path: Path, syntax: str) -> None:
    stored = noise(12, signed=True)
    stream = compress(patterns(stored, 12, 16, 11), syntax, 12)
    content = dicom(stored, high_bit=15, syntax=syntax, stream=stream)
    if syntax == JPEGLSLossless:  # Its encoder here writes 16 bits only; then whole containers are meant.
        content = dicom(stored, high_bit=15, syntax=syntax)
    np.testing.assert_array_equal(grey(tmp_path, content), stored.astype(int) + 2048)


def test_fewer_bits_in_the_stream_than_in_the_header_carry_their_sign(tmp_path: Path) -> None:
    stored = noise(10, signed=True)
    stream = compress(patterns(stored, 10, 16, 9), JPEGLosslessSV1, 10)
    content = dicom(stored, bits=12, syntax=JPEGLosslessSV1, stream=stream)
    np.testing.assert_array_equal(grey(tmp_path, content), stored.astype(int) + 2048)


def test_sign_of_jpeg_2000_may_be_in_the_stream_or_in_the_header(tmp_path: Path) -> None:
    stored = noise(12, signed=True)
    stream = bytes(imagecodecs.jpeg2k_encode(stored, level=0, codecformat="j2k", reversible=True, bitspersample=12))
    assert stream[42] == 0x80 + 11
    both = grey(tmp_path, dicom(stored, syntax=JPEG2000Lossless, stream=stream))
    np.testing.assert_array_equal(both, stored.astype(int) + 2048)


@pytest.mark.parametrize("predictor", range(1, 8))
def test_every_predictor_of_lossless_jpeg(tmp_path: Path, predictor: int) -> None:
    stored = noise(16)
    stream = bytes(imagecodecs.jpeg8_encode(stored, lossless=True, predictor=predictor, bitspersample=16))
    content = dicom(stored, bits=16, syntax=JPEGLosslessSV1, stream=stream)
    np.testing.assert_array_equal(grey(tmp_path, content), stored)


def test_8_bits_in_words_of_big_endian_are_swapped(tmp_path: Path) -> None:
    stored = noise(8).astype(np.uint8)
    content = dicom(stored, bits=8, syntax=ExplicitVRBigEndian, stream=bytes(np.append(stored, 0).astype(np.uint8)))
    swapped = np.append(stored, 0).reshape(-1, 2)[:, ::-1].astype(np.uint8).tobytes()
    words = dicom(stored, bits=8, syntax=ExplicitVRBigEndian, stream=swapped).replace(
        b"\x7f\xe0\x00\x10OB", b"\x7f\xe0\x00\x10OW"
    )
    assert words != content
    np.testing.assert_array_equal(grey(tmp_path, content), stored)
    np.testing.assert_array_equal(grey(tmp_path, words), stored)


# Modality, values of interest, polarity


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, JPEGLSLossless])
@pytest.mark.parametrize("bits", DEPTHS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_rescale_then_window_then_inversion(
    tmp_path: Path, syntax: str, bits: int, signed: bool, photometric: str
) -> None:
    stored = noise(bits, signed)
    elements = {"RescaleSlope": "1.5", "RescaleIntercept": "-100", "WindowCenter": "70.5", "WindowWidth": "320"}
    expected = window(stored * 1.5 - 100, 70.5, 320)
    if photometric == "MONOCHROME1":
        expected = 65535 - expected
    result = grey(tmp_path, dicom(stored, bits=bits, syntax=syntax, photometric=photometric, elements=elements))
    if result.dtype == np.uint8:
        assert bits == 8
        expected = np.rint(expected / 257)
    np.testing.assert_allclose(result, expected, atol=1)


def test_the_first_of_several_windows_is_taken(tmp_path: Path) -> None:
    stored = noise(12)
    result = grey(tmp_path, dicom(stored, elements={"WindowCenter": [300, 9], "WindowWidth": [500, 3]}))
    np.testing.assert_array_equal(result, window(stored.astype(float), 300, 500))


def test_linear_exact_and_sigmoid(tmp_path: Path) -> None:
    stored = noise(12)
    exact = grey(tmp_path, dicom(stored, elements={**WINDOW, "VOILUTFunction": "LINEAR_EXACT"}))
    np.testing.assert_allclose(exact, np.clip((stored - 300.0) / 500 + 0.5, 0, 1) * 65535, atol=0.51)
    sigmoid = grey(tmp_path, dicom(stored, elements={**WINDOW, "VOILUTFunction": "SIGMOID"}))
    np.testing.assert_allclose(sigmoid, 65535 / (1 + np.exp(-4 * (stored - 300.0) / 500)), atol=0.51)


def test_window_of_width_1_is_a_threshold(tmp_path: Path) -> None:
    stored = np.arange(ROWS * COLUMNS, dtype=np.uint16).reshape(ROWS, COLUMNS)
    result = grey(tmp_path, dicom(stored, elements={"WindowCenter": 50, "WindowWidth": 1}))
    np.testing.assert_array_equal(result, np.where(stored > 49.5, 65535, 0))


@pytest.mark.parametrize("width", ["0", "-5", "0.5"])
def test_window_that_is_none_is_as_good_as_absent(tmp_path: Path, width: str) -> None:
    stored = noise(12)
    result = read(tmp_path, dicom(stored, elements={"WindowCenter": "50", "WindowWidth": width}))
    np.testing.assert_array_equal(result.grey, stored)
    assert result.notes == ("no window in the file",)


def test_8_bits_stay_8_only_where_the_window_loses_no_level(tmp_path: Path) -> None:
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    narrow = grey(tmp_path, dicom(stored, bits=8, elements={"WindowCenter": 128, "WindowWidth": 100}))
    wide = grey(tmp_path, dicom(stored, bits=8, elements={"WindowCenter": 128, "WindowWidth": 1000}))
    assert (narrow.dtype, wide.dtype) == (np.uint8, np.uint16)
    np.testing.assert_array_equal(narrow, window(stored.astype(float), 128, 100, 255))
    assert len(np.unique(wide)) == 256


def test_negative_slope_without_a_window_reverses_the_levels(tmp_path: Path) -> None:
    stored = noise(12)
    result = grey(tmp_path, dicom(stored, elements={"RescaleSlope": -2, "RescaleIntercept": 7}))
    np.testing.assert_array_equal(result, 4095 - stored)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_modality_table_goes_before_all_and_is_clamped(tmp_path: Path, signed: bool, syntax: str) -> None:
    entries = RNG.permutation(700)
    first = -50 if signed else 20
    stored = noise(12, signed)
    expected = entries[np.clip(stored.astype(int) - first, 0, 699)]
    content = dicom(stored, syntax=syntax, elements={"ModalityLUTSequence": table(entries, first, 10)})
    np.testing.assert_array_equal(grey(tmp_path, content), expected)
    content = dicom(stored, elements={"ModalityLUTSequence": table(entries, first, 10), **WINDOW})
    np.testing.assert_array_equal(grey(tmp_path, content), window(expected.astype(float), 300, 500))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_voi_table_is_preferred_to_the_window(tmp_path: Path, photometric: str) -> None:
    entries = np.sort(RNG.integers(0, 1024, 500))
    stored = noise(12)
    modality = stored * 0.25 - 100
    expected = np.rint(entries[np.clip(np.rint(modality) + 90, 0, 499).astype(int)] / 1023 * 65535)
    elements = {"RescaleSlope": 0.25, "RescaleIntercept": -100, "VOILUTSequence": table(entries, -90, 10), **WINDOW}
    result = read(tmp_path, dicom(stored, photometric=photometric, elements=elements))
    inverted = photometric == "MONOCHROME1"
    np.testing.assert_array_equal(result.grey, 65535 - expected if inverted else expected)
    assert "no window in the file" not in result.notes


def test_table_of_bytes_and_table_of_65536_entries(tmp_path: Path) -> None:
    stored, entries = noise(8), RNG.permutation(255)
    elements = {"VOILUTSequence": table(entries, 0, 8, entries.astype(np.uint8).tobytes() + b"\0")}
    expected = entries[np.clip(stored, 0, 254)]
    np.testing.assert_array_equal(grey(tmp_path, dicom(stored, bits=8, elements=elements)), expected)
    stored, entries = noise(16), RNG.permutation(65536)
    elements = {"VOILUTSequence": table(entries, 0, 16)}
    np.testing.assert_array_equal(grey(tmp_path, dicom(stored, bits=16, elements=elements)), entries[stored])


@pytest.mark.parametrize("elements", [{}, WINDOW, {"VOILUTSequence": table(np.arange(4096), 0, 12)}])
def test_monochrome1_is_the_twin_of_its_negative(tmp_path: Path, elements: dict[str, object]) -> None:
    positive = noise(12)
    window_of_negative = {"WindowCenter": 4095 - 300 + 1, "WindowWidth": 500} if elements is WINDOW else elements
    bright = grey(tmp_path, dicom(positive, elements=elements))
    negative = dicom(4095 - positive, photometric="MONOCHROME1", elements=window_of_negative)
    np.testing.assert_allclose(grey(tmp_path, negative).astype(int), bright, atol=1)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_presentation_shape_inverse_inverts_once(tmp_path: Path, photometric: str) -> None:
    stored = noise(12)
    content = dicom(stored, photometric=photometric, elements={"PresentationLUTShape": "INVERSE"})
    np.testing.assert_array_equal(grey(tmp_path, content), 4095 - stored)


# Padding


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("elements", [{}, {"WindowCenter": 0, "WindowWidth": 6000}])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, JPEGLosslessSV1])
def test_padding_becomes_the_darkest_of_the_other_pixels(
    tmp_path: Path, photometric: str, elements: dict[str, object], syntax: str
) -> None:
    stored = RNG.integers(-1000, 1000, (ROWS, COLUMNS)).astype(np.int16)
    plain = grey(tmp_path, dicom(stored, photometric=photometric, syntax=syntax, elements=elements))
    padded = stored.copy()
    padded[:4] = -2000
    elements = {**elements, "PixelPaddingValue": -2000}
    result = read(tmp_path, dicom(padded, photometric=photometric, syntax=syntax, elements=elements))
    assert "padding blanked" in result.notes
    np.testing.assert_array_equal(result.grey[4:], plain[4:])
    np.testing.assert_array_equal(result.grey[:4], plain[4:].min())


def test_padding_has_a_range_with_both_ends_in_it(tmp_path: Path) -> None:
    stored = np.arange(100, dtype=np.uint16).reshape(10, 10)
    elements = {"PixelPaddingValue": 99, "PixelPaddingRangeLimit": 40}
    result = grey(tmp_path, dicom(stored, elements=elements))
    np.testing.assert_array_equal(result, np.where(stored >= 40, 0, stored))


def test_padding_that_no_pixel_has_is_not_noted(tmp_path: Path) -> None:
    stored = noise(10)
    result = read(tmp_path, dicom(stored, elements={"PixelPaddingValue": 4000}))
    assert "padding blanked" not in result.notes
    np.testing.assert_array_equal(result.grey, stored)
