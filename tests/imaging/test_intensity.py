"""Laws of the way to 8 bits and of equalisation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from polyhead.errors import ImageError
from polyhead.imaging.intensity import CLIP_LIMIT, equalize, refuse_constant, to_uint8
from polyhead.imaging.recipe import Intensity
from tests.imaging.files import NOISE, RAMP16, scene

RNG = np.random.default_rng(0)
SCENE = scene(130, 90)
images = arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(2, 40))).filter(lambda pixels: np.ptp(pixels) > 0)


# To 8 bits


def test_8_bit_values_stay() -> None:
    np.testing.assert_array_equal(to_uint8(NOISE), NOISE)


@pytest.mark.parametrize("intensity", ["auto", "robust"])
def test_16_bit_window_by_hand(intensity: str) -> None:
    """1,000 pixels with values 0 to 999: the least that 0.5 % and 99.5 % do not exceed are 4 and 994."""
    pixels = np.arange(1000, dtype=np.uint16).reshape(40, 25)
    expected = np.rint(255 * np.clip((pixels - 4.0) / 990, 0, 1))
    np.testing.assert_array_equal(to_uint8(pixels, intensity), expected)


def test_robust_windows_8_bits_too() -> None:
    """Of 1,000 pixels five are 10 and five are 90: the window is theirs; ten beyond are cut."""
    pixels = np.array([10] * 5 + list(range(11, 90)) * 12 + [90] * 42 + [200] * 5, np.uint8)[None]
    expected = np.rint(255 * np.clip((pixels - 10.0) / 80, 0, 1))
    np.testing.assert_array_equal(to_uint8(pixels, "robust"), expected)


@pytest.mark.parametrize("pixels", [NOISE // 3 + 20, RAMP16 // 2])
def test_minmax_by_hand(pixels: np.ndarray) -> None:
    low, high = int(pixels.min()), int(pixels.max())
    np.testing.assert_array_equal(to_uint8(pixels, "minmax"), np.rint(255 * ((pixels - float(low)) / (high - low))))


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


@pytest.mark.parametrize("intensity", ["auto", "robust", "minmax"])
def test_nearly_constant_16_bit_image_falls_back_to_its_extremes(intensity: str) -> None:
    pixels = np.full((100, 100), 500, np.uint16)
    pixels[0, 0] = 600
    expected = np.zeros((100, 100), np.uint8)
    expected[0, 0] = 255
    np.testing.assert_array_equal(to_uint8(pixels, intensity), expected)


def test_images_taller_than_a_block_are_treated_as_one() -> None:
    pixels = np.arange(700 * 3, dtype=np.uint16).reshape(700, 3)
    np.testing.assert_array_equal(to_uint8(pixels).ravel(), to_uint8(pixels.reshape(1, -1)).ravel())


@pytest.mark.parametrize("intensity", ["auto", "robust", "minmax"])
@pytest.mark.parametrize("pixels", [np.full((5, 4), 77, np.uint8), np.full((5, 4), 7_777, np.uint16)])
def test_constant_image_is_refused_with_its_value(pixels: np.ndarray, intensity: str) -> None:
    with pytest.raises(ImageError, match=f"constant image: every pixel is {pixels[0, 0]}"):
        to_uint8(pixels, intensity)
    with pytest.raises(ImageError, match="constant"):
        refuse_constant(pixels)


# Equalising


def test_none_changes_nothing() -> None:
    assert equalize(NOISE, "none") is NOISE


@given(images)
def test_histogram_is_as_flat_as_its_levels_allow(pixels: np.ndarray) -> None:
    """Order is kept, the ends are black and white, and no level is further from its share than its own weight."""
    equal = equalize(pixels, "histogram")
    order = np.argsort(pixels.ravel(), kind="stable")
    assert (np.diff(equal.ravel()[order].astype(int)) >= 0).all()
    assert (equal.min(), equal.max()) == (0, 255)
    heaviest = np.bincount(pixels.ravel()).max() / pixels.size
    for level in np.unique(equal):
        assert abs((equal <= level).mean() - level / 255) <= heaviest + 0.5 / 255 + 1e-9


def test_histogram_by_hand() -> None:
    """Levels 7, 9 and 200 in 1, 2 and 2 pixels: beside the darkest there are 4 pixels, of which 2 and 4 lie below."""
    np.testing.assert_array_equal(
        equalize(np.array([[9, 7, 200, 200, 9]], np.uint8), "histogram"), [[128, 0, 255, 255, 128]]
    )


@given(images, st.integers(1, 100))
def test_histogram_does_not_depend_on_brightness(pixels: np.ndarray, offset: int) -> None:
    darker = (pixels // 2).astype(np.uint8)
    if np.ptp(darker):
        brighter = (darker + offset).astype(np.uint8)
        np.testing.assert_array_equal(equalize(brighter, "histogram"), equalize(darker, "histogram"))


@given(images)
def test_clahe_keeps_shape_and_never_divides_by_zero(pixels: np.ndarray) -> None:
    assert equalize(pixels, "clahe").shape == pixels.shape
    assert equalize(pixels, "clahe").dtype == np.uint8


def test_clahe_keeps_the_order_within_a_tile() -> None:
    """Half a tile at a corner of the image is mapped by its tile alone."""
    pixels = scene(160, 160)
    before, after = pixels[:10, :10].ravel(), equalize(pixels, "clahe")[:10, :10].ravel().astype(int)
    order = np.argsort(before, kind="stable")
    assert (np.diff(after[order]) >= 0).all()
    same = np.diff(before[order]) == 0
    assert (np.diff(after[order])[same] == 0).all()


def test_clahe_stretches_no_step_beyond_its_limit() -> None:
    """A tile of two levels would become black and white if the limit did not hold."""
    pixels = RNG.choice(np.array([100, 110], np.uint8), (80, 80))
    after = equalize(pixels, "clahe").astype(int)
    step = np.abs(after[pixels == 110].mean() - after[pixels == 100].mean())
    assert 10 / 2 < step <= 10 * (CLIP_LIMIT + 1)
    for size in (64, 90, 131):
        smooth = scene(size, size)
        after = equalize(smooth, "clahe").astype(int)[:4, :4].ravel()
        before = smooth[:4, :4].astype(int).ravel()
        rise = np.abs(after[:, None] - after[None]) - (CLIP_LIMIT + 1) * np.abs(before[:, None] - before[None])
        assert rise.max() <= 1


@pytest.mark.parametrize("level", [0, 60, 200, 255])
def test_clahe_leaves_a_constant_part_as_it_is(level: int) -> None:
    """Without the limit a flat background would become white."""
    pixels = np.full((160, 160), level, np.uint8)
    pixels[80:, :] = scene(80, 160)
    after = equalize(pixels, "clahe")[:60]
    assert np.ptp(after) == 0
    assert abs(int(after[0, 0]) - level) <= CLIP_LIMIT / 2 + 1


def test_clahe_leaves_an_equalised_image_as_it_is() -> None:
    tile = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = np.tile(tile, (8, 8))
    assert np.abs(equalize(pixels, "clahe").astype(int) - pixels).max() <= 1


def test_clahe_brings_out_a_faint_detail_beside_a_bright_half() -> None:
    pixels = np.where(np.indices((160, 160))[1] < 80, 40, 180) + RNG.integers(-3, 4, (160, 160))
    pixels[46:54, 26:34] += 6
    pixels = pixels.astype(np.uint8)

    def contrast(image: np.ndarray) -> float:
        return float(image[46:54, 26:34].mean() - image[60:68, 26:34].mean())

    assert contrast(equalize(pixels, "clahe")) > 2 * contrast(pixels) > 10


@pytest.mark.parametrize("turn", [np.fliplr, np.flipud, np.transpose])
def test_clahe_treats_all_directions_alike(turn: object) -> None:
    pixels = scene(160, 80)
    np.testing.assert_array_equal(equalize(turn(pixels).copy(), "clahe"), turn(equalize(pixels, "clahe")))


def test_clahe_joins_tiles_without_a_seam() -> None:
    """A slow ramp stays slow across the borders of tiles."""
    ramp = np.tile(np.linspace(0, 255, 400).astype(np.uint8), (100, 1))
    steps = np.abs(np.diff(equalize(ramp, "clahe").astype(int), axis=1))
    assert steps.max() <= CLIP_LIMIT + 2


# Samples with a table


@pytest.mark.parametrize("intensity", ["auto", "robust", "minmax"])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["any", "rising", "falling"]))
def test_a_table_beside_its_samples_gives_what_its_values_give(
    intensity: Intensity, depth: type, seed: int, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(0, np.iinfo(depth).max, 2**16).astype(depth)
    table[[0, -1]] = 0, np.iinfo(depth).max
    if kind != "any":
        table = np.sort(table)[:: 1 if kind == "rising" else -1]
    samples = rng.integers(0, rng.integers(2, 2**16), (9, 7)).astype(np.uint16)
    samples[0, :2] = 0, 2**16 - 1
    np.testing.assert_array_equal(to_uint8(samples, intensity, table), to_uint8(table[samples], intensity))


def test_a_table_that_makes_all_pixels_equal_is_a_constant_image() -> None:
    with pytest.raises(ImageError, match="every pixel is 7"):
        to_uint8(RAMP16, "robust", np.full(2**16, 7, np.uint16))


def test_some_rows_of_a_large_image_give_its_window() -> None:
    """Above 2 megapixels not every row is counted; half a level is all that this may change."""
    rng = np.random.default_rng(0)
    large = (30_000 + 9_000 * rng.standard_normal((3_000, 2_500))).clip(0, 65_535).astype(np.uint16)
    low, high = np.quantile(large, (0.005, 0.995), method="inverted_cdf").astype(float)
    expected = 255 * np.clip((large - low) / (high - low), 0, 1)
    assert np.abs(to_uint8(large) - expected).max() <= 1.5
