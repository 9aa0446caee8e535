"""Laws of the pixel path on tiny synthetic images."""

import os
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from polyhead.errors import ImageError
from polyhead.imaging.intensity import equalize, to_uint8
from polyhead.imaging.pixels import confined_path, fit, load_square, read_radiograph
from polyhead.imaging.radiograph import MAX_PIXELS
from polyhead.imaging.recipe import RECIPES, Recipe
from tests.imaging.files import NOISE, RAMP16, animated, chunk, encoded, load_pixels, png, saved, scene, turned

shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


# Reading


@pytest.mark.parametrize(
    ("kind", "name", "claims"),
    [
        ("PNG", "image.jpg", True),
        ("JPEG", "image.png", True),
        ("PNG", "image.dcm", True),
        ("PNG", "image.TIF", True),
        ("JPEG", "image.JPEG", False),
        ("JPEG", "1.2.840.7", False),
        ("PNG", "image", False),
    ],
)
def test_content_decides_and_an_extension_that_claims_otherwise_is_noted(
    tmp_path: Path, kind: str, name: str, claims: bool
) -> None:
    right = read_radiograph(saved(tmp_path, encoded(NOISE, kind), "right." + kind.lower()))
    read = read_radiograph(saved(tmp_path, encoded(NOISE, kind), name))
    np.testing.assert_array_equal(read.grey, right.grey)
    assert read.file_format == kind
    assert right.notes == ()
    assert read.notes == (("extension says otherwise",) if claims else ())


def test_recipe_decides_on_colour_and_frames(tmp_path: Path) -> None:
    colour = saved(tmp_path, encoded(np.stack([NOISE, NOISE.T[:9, :9].repeat(2, 0)[:12], NOISE], 2)), "colour.png")
    several = saved(tmp_path, animated(NOISE, NOISE[::-1]), "several.png")
    assert load_square(colour, 8).notes == ("colour",)
    assert load_square(several, 8, Recipe(frames="first")).notes == ("first of several frames",)
    with pytest.raises(ImageError, match="stored in colour"):
        load_pixels(colour, 8, Recipe(colour="refuse"))
    with pytest.raises(ImageError, match="holds 2 frames"):
        load_pixels(several, 8)


def test_notes_say_everything_that_was_done(tmp_path: Path) -> None:
    path = saved(tmp_path, encoded(RAMP16, exif=turned(3)), "image.jpg")
    assert set(load_square(path, 8).notes) == {
        "turned by its EXIF tag",
        "more than 8 bits, windowed",
        "extension says otherwise",
    }


# Refusing


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"GIF89a....", "neither PNG, JPEG nor DICOM"),
        (encoded(NOISE, "BMP"), "neither PNG, JPEG nor DICOM"),
    ],
)
def test_unusable_file_is_refused_with_its_path(tmp_path: Path, content: bytes, message: str) -> None:
    path = saved(tmp_path, content)
    with pytest.raises(ImageError, match=message) as caught:
        read_radiograph(path)
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
            read_radiograph(path)


@pytest.mark.parametrize(("kind", "bytes_without_pixels"), [("PNG", 4 + 4 + 12), ("JPEG", 0)])
def test_file_truncated_at_every_length_is_refused_or_whole(
    tmp_path: Path, kind: str, bytes_without_pixels: int
) -> None:
    """No half image: only the PNG's two checksums and end mark may be missing, and then every pixel is there."""
    content = encoded(NOISE, kind)
    whole = read_radiograph(saved(tmp_path, content)).grey
    for length in range(len(content)):
        path = saved(tmp_path, content[:length])
        if length < len(content) - bytes_without_pixels:
            with pytest.raises(ImageError):
                read_radiograph(path)
        else:
            np.testing.assert_array_equal(read_radiograph(path).grey, whole)


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
    np.testing.assert_array_equal(read_radiograph(path).grey, NOISE)
    assert warnings.filters == filters


def test_text_that_swells_when_decompressed_is_refused(tmp_path: Path) -> None:
    """Pillow refuses it with a ValueError: one of the many that may not leave."""
    content = encoded(NOISE)
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(5_000_000)))
    with pytest.raises(ImageError, match="cannot be read"):
        read_radiograph(saved(tmp_path, content[:33] + text + content[33:]))


@pytest.mark.parametrize("side", [8_000, 60_000])
def test_bomb_is_refused_by_its_header_without_memory(tmp_path: Path, side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path = saved(tmp_path, png(header, zlib.compress(bytes(1_000_000))))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=rf"{side} x {side} pixels; at most {MAX_PIXELS:,}"):
            read_radiograph(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


# Fitting into a square


def before(path: Path, size: int) -> np.ndarray:
    """What the standard recipe gives for a square image, by other means."""
    with Image.open(path) as image:
        image.load()
        if image.mode.startswith("I"):
            values = np.sort(np.asarray(image).ravel().astype(np.int64))
            low, high = (values[int(np.ceil(share * len(values))) - 1] for share in (0.005, 0.995))
            window = np.rint(255 * np.clip((np.asarray(image) - float(low)) / (high - low), 0, 1))
            grey = Image.fromarray(window.astype(np.uint8))
        else:
            grey = image.convert("L")
    return np.asarray(grey.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0))


@pytest.mark.parametrize("kind", ["8 bit PNG", "16 bit PNG", "JPEG", "colour JPEG"])
@pytest.mark.parametrize("side", [20, 64, 100, 255, 600])
def test_square_images_stay_as_they_were_before_there_were_recipes(tmp_path: Path, kind: str, side: int) -> None:
    pixels: np.ndarray = scene(side, side)
    if kind == "16 bit PNG":
        pixels = pixels.astype(np.uint16) * 200 + np.arange(side, dtype=np.uint16)
    if kind == "colour JPEG":
        pixels = np.stack([pixels, pixels[::-1], pixels.T], axis=2)
    size = (
        160 if "JPEG" in kind and side == 600 else 64
    )  # Beyond four times the size, a JPEG is decoded at half of its.
    path = saved(tmp_path, encoded(pixels, kind.split()[-1]))
    np.testing.assert_array_equal(load_pixels(path, size), before(path, size))


@pytest.mark.parametrize("aspect", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (64, 64), (300, 200), (1, 50), (50, 1)])
def test_result_is_a_square_whatever_the_shape(tmp_path: Path, shape: tuple[int, int], aspect: str) -> None:
    path = saved(tmp_path, encoded(np.linspace(0, 255, shape[0] * shape[1]).astype(np.uint8).reshape(shape)))
    recipe = Recipe(aspect=aspect)
    if aspect == "crop" and 1 in shape:
        with pytest.raises(ImageError, match="constant image"):
            load_pixels(path, 32, recipe)
    else:
        assert load_pixels(path, 32, recipe).shape == (32, 32)


@pytest.mark.parametrize(("shape", "area"), [((300, 200), (60, 40)), ((200, 300), (40, 60)), ((300, 197), (60, 39))])
def test_pad_shows_the_whole_image_amid_black(tmp_path: Path, shape: tuple[int, int], area: tuple[int, int]) -> None:
    bright = np.maximum(scene(*shape), 20)
    square = load_pixels(saved(tmp_path, encoded(bright)), 60)
    rows, columns = np.flatnonzero(square.any(axis=1)), np.flatnonzero(square.any(axis=0))
    assert (len(rows), len(columns)) == area
    inside = square[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    np.testing.assert_array_equal(inside, fit(bright, 60, "pad"))
    for first, last in ((rows[0], 59 - rows[-1]), (columns[0], 59 - columns[-1])):
        assert last - first in (0, 1)  # In the middle, to the pixel.


@pytest.mark.parametrize("turn", [lambda pixels: pixels, np.transpose])
def test_crop_shows_the_middle(tmp_path: Path, turn: Callable[[np.ndarray], np.ndarray]) -> None:
    pixels = turn(np.concatenate([np.full((40, 64), 255, np.uint8), scene(64, 64), np.full((40, 64), 255, np.uint8)]))
    path = saved(tmp_path, encoded(pixels))
    np.testing.assert_array_equal(load_pixels(path, 64, Recipe(aspect="crop")), turn(scene(64, 64)))


def test_stretch_fills_the_square(tmp_path: Path) -> None:
    path = saved(tmp_path, encoded(np.maximum(scene(300, 200), 20)))
    square = load_pixels(path, 60, Recipe(aspect="stretch"))
    assert square.min() >= 20
    assert abs(square.mean() - scene(300, 200).mean()) < 1


@pytest.mark.parametrize("equalization", ["histogram", "clahe"])
def test_added_black_is_no_part_of_the_histogram(tmp_path: Path, equalization: str) -> None:
    pixels = scene(200, 100)
    square = load_pixels(saved(tmp_path, encoded(pixels)), 100, Recipe(equalize=equalization))
    np.testing.assert_array_equal(square[:, 25:75], equalize(fit(pixels, 100, "pad"), equalization))
    assert not square[:, :25].any()
    assert not square[:, 75:].any()


def test_same_size_is_left_alone() -> None:
    square = NOISE[:9, :9]
    np.testing.assert_array_equal(fit(square, 9, "pad"), square)


def test_resizing_averages_a_checkerboard_away() -> None:
    """Picking single pixels would give 0 and 255."""
    checkerboard = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.abs(fit(checkerboard, 16, "pad").astype(int) - 127).max() <= 2


def test_16_bits_are_windowed_before_they_are_resized(tmp_path: Path) -> None:
    path = saved(tmp_path, encoded(RAMP16))
    np.testing.assert_array_equal(load_pixels(path, 64), np.pad(fit(to_uint8(RAMP16), 64, "pad"), ((0, 0), (7, 7))))
    assert np.ptp(load_pixels(path, 16).astype(int)) > 230


def test_recipe_of_the_paper_by_hand(tmp_path: Path) -> None:
    """Squashed, from minimum to maximum, then each level at the share of pixels not brighter than it."""
    pixels = scene(90, 60) // 2 + 30
    spread = np.rint(255 * ((pixels - float(pixels.min())) / np.ptp(pixels))).astype(np.uint8)
    squashed = np.asarray(Image.fromarray(spread).resize((48, 48), Image.Resampling.BILINEAR, reducing_gap=3.0))
    darkest = (squashed == squashed.min()).sum()
    share = np.array([[(squashed <= level).sum() for level in row] for row in squashed])
    expected = np.rint(255 * (share - darkest) / (squashed.size - darkest))
    np.testing.assert_array_equal(load_pixels(saved(tmp_path, encoded(pixels)), 48, RECIPES["paper"]), expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("recipe", [Recipe(), Recipe(aspect="crop"), RECIPES["paper"]])
def test_large_jpeg_gives_nearly_what_its_every_pixel_gives(tmp_path: Path, mode: str, recipe: Recipe) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(scene(700, 610)).convert(mode).save(path, quality=90, exif=turned(8))
    whole = equalize(fit(to_uint8(read_radiograph(path).grey, recipe.intensity), 64, recipe.aspect), recipe.equalize)
    short = [64 - side for side in whole.shape]
    whole = np.pad(whole, [(one // 2, one - one // 2) for one in short])
    square = load_square(path, 64, recipe)
    assert np.abs(square.pixels.astype(int) - whole).mean() < (3 if recipe.equalize == "histogram" else 1)
    assert square.notes == (("turned by its EXIF tag",) if mode == "L" else ("colour", "turned by its EXIF tag"))


@pytest.mark.parametrize("recipe", [Recipe(), RECIPES["paper"], Recipe(equalize="clahe", intensity="robust")])
@pytest.mark.parametrize("pixels", [np.full((5, 4), 77, np.uint8), np.full((5, 4), 7_777, np.uint16)])
def test_constant_image_is_refused_with_its_value(tmp_path: Path, pixels: np.ndarray, recipe: Recipe) -> None:
    path = saved(tmp_path, encoded(pixels))
    with pytest.raises(ImageError, match=f"{path}: constant image: every pixel is {pixels[0, 0]}"):
        load_pixels(path, 8, recipe)


@pytest.mark.parametrize("shape", [(64, 64), (64, 32)])
def test_image_that_is_constant_only_after_resizing_is_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Black that is added to a grey image does not make it worth keeping."""
    pixels = np.full(shape, 90, np.uint8)
    pixels[3, 3] = 91
    with pytest.raises(ImageError, match="constant image: every pixel is 90"):
        load_pixels(saved(tmp_path, encoded(pixels)), 8)


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
        read_radiograph(confined_path(tmp_path, "a/image.png"))
