"""Laws of reading PNG and JPEG, on tiny synthetic images."""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from polyhead.errors import ImageError
from polyhead.imaging.raster import is_raster, read_raster
from tests.imaging.files import NOISE, RAMP16, animated, encoded, png, saved, scene, turned

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)


def luminance(colours: np.ndarray) -> np.ndarray:
    return colours.astype(float) @ [0.299, 0.587, 0.114]


def test_only_png_and_jpeg_are_raster() -> None:
    assert is_raster(encoded(NOISE))
    assert is_raster(encoded(NOISE, "JPEG"))
    assert not any(map(is_raster, (b"", b"GIF89a", bytes(128) + b"DICM", encoded(NOISE, "TIFF"))))


def test_8_bit_grey_is_read_unchanged_and_without_a_note(tmp_path: Path) -> None:
    image = read_raster(saved(tmp_path, encoded(NOISE)))
    assert image.grey.dtype == np.uint8
    np.testing.assert_array_equal(image.grey, NOISE)
    assert (image.file_format, image.notes) == ("PNG", ())
    assert read_raster(saved(tmp_path, encoded(NOISE, "JPEG"))).file_format == "JPEG"


def test_16_bit_grey_keeps_its_full_depth(tmp_path: Path) -> None:
    pixels = read_raster(saved(tmp_path, encoded(RAMP16))).grey
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, RAMP16)
    assert len(np.unique(pixels)) > 256


def test_16_bit_colour_is_refused_rather_than_cut(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 1, 2, 16, 2, 0, 0, 0)
    data = zlib.compress(b"\0" + bytes(range(6)) + b"\0" + bytes(range(6, 12)))
    with pytest.raises(ImageError, match="16-bit grey"):
        read_raster(saved(tmp_path, png(header, data)))


# Colour and transparency


def in_mode(mode: str) -> Image.Image:
    image = Image.fromarray(COLOURS)
    if mode == "P":
        return image.quantize(256)
    if mode == "LA":
        return Image.merge("LA", [image.convert("L"), Image.new("L", image.size, 0)])
    if mode == "RGBA":
        image.putalpha(0)
    return image


@pytest.mark.parametrize(
    ("mode", "notes"),
    [
        ("RGB", ("colour",)),
        ("P", ("colour",)),
        ("RGBA", ("colour", "transparency ignored")),
        ("LA", ("transparency ignored",)),
    ],
)
def test_colour_becomes_luminance_and_transparency_is_ignored(
    tmp_path: Path, mode: str, notes: tuple[str, ...]
) -> None:
    image = in_mode(mode)
    image.save(tmp_path / "image.png")
    read = read_raster(tmp_path / "image.png")
    np.testing.assert_allclose(read.grey, luminance(np.asarray(image.convert("RGB"))), atol=1)
    assert read.notes == notes


def test_transparent_palette_colour_keeps_its_grey(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).quantize(256).save(tmp_path / "image.png", transparency=bytes(256))
    expected = luminance(np.asarray(Image.fromarray(COLOURS).quantize(256).convert("RGB")))
    with warnings.catch_warnings(action="ignore"):
        read = read_raster(tmp_path / "image.png")
    np.testing.assert_allclose(read.grey, expected, atol=1)
    assert read.notes == ("colour", "transparency ignored")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colour_is_refused_if_the_recipe_says_so(tmp_path: Path, mode: str) -> None:
    in_mode(mode).save(tmp_path / "image.png")
    with pytest.raises(ImageError, match=r"image\.png: stored in colour"):
        read_raster(tmp_path / "image.png", colour="refuse")


@pytest.mark.parametrize("mode", ["CMYK", "RGB"])
def test_colour_is_noticed_in_a_jpeg_that_is_decoded_as_grey(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(scene(200, 160)).convert(mode).save(path)
    assert read_raster(path, at_least=8).notes == ("colour",)
    with pytest.raises(ImageError, match="stored in colour"):
        read_raster(path, colour="refuse", at_least=8)


@pytest.mark.parametrize("pixels", [NOISE, RAMP16, NOISE > 128], ids=["8 bit", "16 bit", "1 bit"])
def test_grey_is_never_refused_as_colour(tmp_path: Path, pixels: np.ndarray) -> None:
    assert read_raster(saved(tmp_path, encoded(pixels)), colour="refuse").notes == ()


def test_one_bit_image_is_black_and_white(tmp_path: Path) -> None:
    pixels = read_raster(saved(tmp_path, encoded(NOISE > 128))).grey
    np.testing.assert_array_equal(pixels, np.where(NOISE > 128, 255, 0))


# Orientation and frames


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_is_applied(tmp_path: Path, kind: str, orientation: int) -> None:
    path = saved(tmp_path, encoded(NOISE, kind, exif=turned(orientation)))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    read = read_raster(path)
    np.testing.assert_array_equal(read.grey, expected)
    assert (read.grey.shape == NOISE.shape) == (orientation not in (5, 6, 7, 8))
    assert read.notes == (("turned by its EXIF tag",) if orientation in range(2, 9) else ())


def test_exif_orientation_is_applied_to_16_bits(tmp_path: Path) -> None:
    path = saved(tmp_path, encoded(RAMP16, exif=turned(6)))
    np.testing.assert_array_equal(read_raster(path).grey, np.rot90(RAMP16, -1))


def test_several_frames_are_refused_or_the_first_is_taken(tmp_path: Path) -> None:
    path = saved(tmp_path, animated(NOISE, NOISE[::-1], NOISE[:, ::-1]))
    with pytest.raises(ImageError, match=r"image\.png: holds 3 frames"):
        read_raster(path)
    first = read_raster(path, frames="first")
    np.testing.assert_array_equal(first.grey, NOISE)
    assert first.notes == ("first of several frames",)


def test_a_default_image_before_an_animation_is_the_first_frame(tmp_path: Path) -> None:
    path = saved(tmp_path, animated(NOISE, NOISE[::-1], default_image=True))
    np.testing.assert_array_equal(read_raster(path, frames="first").grey, NOISE)


# Decoding at reduced size


@given(height=st.integers(1, 150), width=st.integers(1, 150), at_least=st.integers(1, 20))
@settings(max_examples=60)
def test_jpeg_is_reduced_as_far_as_twice_the_side_remains(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, at_least: int
) -> None:
    content = encoded(np.zeros((height, width), np.uint8), "JPEG")
    path = saved(tmp_path_factory.mktemp("reduced"), content)
    factor = max(factor for factor in (1, 2, 4, 8) if factor == 1 or min(height, width) // factor >= 2 * at_least)
    assert read_raster(path, at_least=at_least).grey.shape == (-(-height // factor), -(-width // factor))
    assert read_raster(path).grey.shape == (height, width)


def full(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Decode every pixel, then average blocks."""
    return np.asarray(Image.fromarray(read_raster(path).grey).resize(shape[::-1], Image.Resampling.BOX))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_reduced_jpeg_is_close_to_the_whole(tmp_path: Path, factor: int, mode: str, progressive: bool) -> None:
    path = tmp_path / "image.jpg"
    image = Image.fromarray(scene(800, 640)).convert(mode)
    if mode == "RGB":
        image = Image.merge("RGB", [image.getchannel(0), image.getchannel(1).rotate(180), image.getchannel(2)])
    image.save(path, quality=90, progressive=progressive, exif=turned(6))
    reduced = read_raster(path, at_least=640 // factor // 2).grey
    assert reduced.shape == (640 // factor, 800 // factor)
    difference = np.abs(reduced.astype(int) - full(path, reduced.shape))
    assert difference.mean() < 1
    assert difference.max() < 20


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_less_than_four_times_the_side_is_decoded_as_ever(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.jpg"
    colours = np.random.default_rng(0).integers(0, 256, (99, 120, 3), dtype=np.uint8)
    Image.fromarray(colours).convert(mode).save(path)
    np.testing.assert_array_equal(read_raster(path, at_least=25).grey, read_raster(path).grey)
    assert read_raster(path, at_least=24).grey.shape == (50, 60)


def test_a_jpeg_of_very_many_scans_is_refused(tmp_path: Path) -> None:
    """Each scan of a progressive file passes over the whole image: minutes from a small file."""
    content = encoded(NOISE, "JPEG", progressive=True)
    assert read_raster(saved(tmp_path, content)).grey.shape == NOISE.shape
    start = content.rindex(b"\xff\xda")
    many = content[:start] + content[start:-2] * 200 + content[-2:]
    with pytest.raises(ImageError, match=r"a JPEG of \d+ scans; at most 100 are read"):
        read_raster(saved(tmp_path, many))


def test_an_oversized_file_is_refused_unread(tmp_path: Path) -> None:
    path = saved(tmp_path, encoded(NOISE))
    with path.open("r+b") as file:
        file.truncate(2**29 + 1)
    with pytest.raises(ImageError, match="536,870,913 bytes; at most"):
        read_raster(path)
