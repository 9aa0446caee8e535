"""Laws of the pixel path on tiny synthetic images."""

import io
import os
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from polyhead.errors import ImageError
from polyhead.imaging.pixels import MAX_PIXELS, confined_path, load_pixels, read_grey, resize, to_uint8

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (12, 9), dtype=np.uint8)
RAMP16 = np.linspace(1000, 60_000, 64 * 50).astype(np.uint16).reshape(64, 50)
COLOURS = RNG.integers(0, 256, (6, 7, 3), dtype=np.uint8)

shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def saved(folder: Path, content: bytes, name: str = "image.png") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def luminance(colours: np.ndarray) -> np.ndarray:
    return colours.astype(float) @ [0.299, 0.587, 0.114]


# Reading


def test_8_bit_grey_is_read_unchanged(tmp_path: Path) -> None:
    pixels = read_grey(saved(tmp_path, encoded(NOISE)))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, NOISE)


def test_16_bit_grey_keeps_its_full_depth(tmp_path: Path) -> None:
    pixels = read_grey(saved(tmp_path, encoded(RAMP16)))
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, RAMP16)
    assert len(np.unique(pixels)) > 256


def test_16_bit_colour_is_refused_rather_than_cut(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 1, 2, 16, 2, 0, 0, 0)
    data = zlib.compress(b"\0" + bytes(range(6)) + b"\0" + bytes(range(6, 12)))
    with pytest.raises(ImageError, match="16-bit grey"):
        read_grey(saved(tmp_path, png(header, data)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA"])
def test_colour_becomes_luminance_and_transparency_is_ignored(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(COLOURS).convert("RGB")
    if mode == "P":
        image = image.quantize(256)
    elif mode == "LA":
        image = Image.merge("LA", [image.convert("L"), Image.new("L", image.size, 0)])
    elif mode == "RGBA":
        image.putalpha(0)
    image.save(tmp_path / "image.png")
    expected = luminance(np.asarray(image.convert("RGB")))
    np.testing.assert_allclose(read_grey(tmp_path / "image.png"), expected, atol=1)


def test_transparent_palette_colour_keeps_its_grey(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).quantize(256).save(tmp_path / "image.png", transparency=bytes(256))
    expected = luminance(np.asarray(Image.fromarray(COLOURS).quantize(256).convert("RGB")))
    np.testing.assert_allclose(read_grey(tmp_path / "image.png"), expected, atol=1)


def test_one_bit_image_is_black_and_white(tmp_path: Path) -> None:
    pixels = read_grey(saved(tmp_path, encoded(NOISE > 128)))
    np.testing.assert_array_equal(pixels, np.where(NOISE > 128, 255, 0))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_is_applied(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, encoded(NOISE, kind, exif=exif))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_grey(path), expected)
    assert (read_grey(path).shape == NOISE.shape) == (orientation not in (5, 6, 7, 8))


def test_exif_orientation_is_applied_to_16_bits(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    np.testing.assert_array_equal(read_grey(saved(tmp_path, encoded(RAMP16, exif=exif))), np.rot90(RAMP16, -1))


@pytest.mark.parametrize(("kind", "name"), [("PNG", "image.jpg"), ("JPEG", "image.png"), ("PNG", "image.dcm")])
def test_content_decides_not_the_extension(tmp_path: Path, kind: str, name: str) -> None:
    right = read_grey(saved(tmp_path, encoded(NOISE, kind), "image." + kind.lower()))
    np.testing.assert_array_equal(read_grey(saved(tmp_path, encoded(NOISE, kind), name)), right)


# Refusing


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"GIF89a....", "neither PNG nor JPEG"), (encoded(NOISE, "BMP"), "neither PNG nor JPEG")],
)
def test_unusable_file_is_refused_with_its_path(tmp_path: Path, content: bytes, message: str) -> None:
    path = saved(tmp_path, content)
    with pytest.raises(ImageError, match=message) as caught:
        read_grey(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_missing_file_folder_pipe_and_impossible_name_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in [
        (tmp_path / "none.png", "is missing"),
        (tmp_path, "is not a file"),
        (tmp_path / "pipe", "is not a file"),
        (tmp_path / ("x" * 300), "cannot be read"),
    ]:
        with pytest.raises(ImageError, match=message):
            read_grey(path)


@pytest.mark.parametrize(("kind", "bytes_without_pixels"), [("PNG", 4 + 4 + 12), ("JPEG", 0)])
def test_file_truncated_at_every_length_is_refused_or_whole(
    tmp_path: Path, kind: str, bytes_without_pixels: int
) -> None:
    """No half image: only the PNG's two checksums and end mark may be missing, and then every pixel is there."""
    content = encoded(NOISE, kind)
    whole = read_grey(saved(tmp_path, content))
    for length in range(len(content)):
        path = saved(tmp_path, content[:length])
        if length < len(content) - bytes_without_pixels:
            with pytest.raises(ImageError):
                read_grey(path)
        else:
            np.testing.assert_array_equal(read_grey(path), whole)


@pytest.mark.parametrize("start", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
@shared_folder
@given(content=st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_image_errors(tmp_path: Path, start: bytes, content: bytes) -> None:
    with pytest.raises(ImageError):
        load_pixels(saved(tmp_path, start + content), 8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@shared_folder
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
@example(place=0.1, value=0)
def test_flipped_byte_raises_nothing_but_image_errors(tmp_path: Path, kind: str, place: float, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = bytearray(encoded(NOISE, kind, exif=exif))
    content[int(place * len(content))] = value
    path = saved(tmp_path, bytes(content))
    message = ""
    try:
        assert load_pixels(path, 8).shape == (8, 8)
    except ImageError as problem:
        message = str(problem)
    assert not message or (message.startswith(f"{path}: ") and "\n" not in message)


def test_decoders_warning_neither_escapes_nor_changes_the_filters(tmp_path: Path) -> None:
    """An animation chunk after the pixels makes Pillow warn; in this suite a warning is an error."""
    content = encoded(NOISE)
    path = saved(tmp_path, content[:33] + chunk(b"acTL", bytes(8)) + content[33:])
    with pytest.warns(UserWarning, match="APNG"):
        Image.open(path).close()
    filters = list(warnings.filters)
    np.testing.assert_array_equal(read_grey(path), NOISE)
    assert warnings.filters == filters


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(header: bytes, data: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_text_that_swells_when_decompressed_is_refused(tmp_path: Path) -> None:
    """Pillow refuses it with a ValueError: one of the many that may not leave."""
    content = encoded(NOISE)
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(5_000_000)))
    with pytest.raises(ImageError, match="cannot be read"):
        read_grey(saved(tmp_path, content[:33] + text + content[33:]))


@pytest.mark.parametrize("side", [8_000, 60_000])
def test_bomb_is_refused_by_its_header_without_memory(tmp_path: Path, side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path = saved(tmp_path, png(header, zlib.compress(bytes(1_000_000))))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=rf"{side} x {side} pixels; at most {MAX_PIXELS:,}"):
            read_grey(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


# Making 8 bit


def test_8_bit_values_stay() -> None:
    np.testing.assert_array_equal(to_uint8(NOISE), NOISE)


def test_16_bit_window_by_hand() -> None:
    """1,000 pixels with values 0 to 999: the least that 0.5 % and 99.5 % do not exceed are 4 and 994."""
    pixels = np.arange(1000, dtype=np.uint16).reshape(40, 25)
    expected = np.rint(255 * np.clip((pixels - 4.0) / 990, 0, 1))
    np.testing.assert_array_equal(to_uint8(pixels), expected)


def test_16_bit_order_is_kept_and_hot_pixels_do_not_darken() -> None:
    hot = RAMP16.copy()
    hot[-1, -3:] = 65_535
    windowed = to_uint8(hot).astype(int)
    assert (np.diff(windowed.ravel()) >= 0).all()
    assert len(np.unique(windowed)) == 256
    assert np.abs(windowed - to_uint8(RAMP16)).max() <= 1


def test_dark_16_bit_image_uses_all_levels() -> None:
    """Cutting the low byte off would leave one level."""
    dark = np.arange(200, dtype=np.uint16).reshape(10, 20)
    assert to_uint8(dark).min() == 0
    assert to_uint8(dark).max() == 255


def test_nearly_constant_16_bit_image_falls_back_to_its_extremes() -> None:
    pixels = np.full((100, 100), 500, np.uint16)
    pixels[0, 0] = 600
    expected = np.zeros((100, 100), np.uint8)
    expected[0, 0] = 255
    np.testing.assert_array_equal(to_uint8(pixels), expected)


@pytest.mark.parametrize("pixels", [np.full((5, 4), 77, np.uint8), np.full((5, 4), 7_777, np.uint16)])
def test_constant_image_is_refused_with_its_value(tmp_path: Path, pixels: np.ndarray) -> None:
    path = saved(tmp_path, encoded(pixels))
    with pytest.raises(ImageError, match=f"{path}: constant image: every pixel is {pixels[0, 0]}"):
        load_pixels(path, 8)


def test_image_that_is_constant_only_after_resizing_is_refused(tmp_path: Path) -> None:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[3, 3] = 1
    with pytest.raises(ImageError, match="constant image: every pixel is 0"):
        load_pixels(saved(tmp_path, encoded(pixels)), 8)


# Resizing


@pytest.mark.parametrize("shape", [(5, 9), (64, 64), (300, 200)])
def test_resized_is_square_and_keeps_the_mean(shape: tuple[int, int]) -> None:
    rows, columns = np.indices(shape)
    pixels = (127 + 60 * np.sin(3 * rows / shape[0]) * np.cos(3 * columns / shape[1])).astype(np.uint8)
    small = resize(pixels, 32)
    assert small.shape == (32, 32)
    assert small.dtype == np.uint8
    assert abs(small.mean() - pixels.mean()) < 1


def test_same_size_is_left_alone() -> None:
    square = NOISE[:9, :9]
    np.testing.assert_array_equal(resize(square, 9), square)


def test_resizing_averages_a_checkerboard_away() -> None:
    """Picking single pixels would give 0 and 255."""
    checkerboard = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.abs(resize(checkerboard, 16).astype(int) - 127).max() <= 2


def test_load_pixels_windows_16_bits_before_it_resizes(tmp_path: Path) -> None:
    path = saved(tmp_path, encoded(RAMP16))
    np.testing.assert_array_equal(load_pixels(path, 16), resize(to_uint8(RAMP16), 16))
    assert np.ptp(load_pixels(path, 16).astype(int)) > 230


# Staying inside the folder


def test_path_below_the_folder_is_resolved(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "images" / "a.png")
    assert confined_path(tmp_path, "images/../images/a.png") == tmp_path.resolve() / "images" / "a.png"
    assert confined_path(tmp_path, "link.png") == tmp_path.resolve() / "images" / "a.png"


def test_path_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    root, outside = tmp_path / "site", tmp_path / "site-2"
    root.mkdir()
    outside.mkdir()
    (root / "link.png").symlink_to(outside / "a.png")
    (root / "folder").symlink_to(outside)
    for relative in ("../site-2/a.png", str(outside / "a.png"), "link.png", "folder/a.png", "x/../../a.png"):
        with pytest.raises(ImageError, match="leads out of"):
            confined_path(root, relative)


def test_null_character_and_loop_of_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ImageError, match="no usable path"):
        confined_path(tmp_path, "null\0.png")
    with pytest.raises(ImageError):  # By one or the other: versions of Python differ in where they notice.
        read_grey(confined_path(tmp_path, "a/image.png"))
