"""Laws of hashes: equal pixels, near images, and every near pair found."""

import io
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from polyhead.imaging import hashes as module
from polyhead.imaging.hashes import HASH_SIZE, NEAR_DISTANCE, near_pairs, perceptual_hashes, pixel_hash
from polyhead.manifest import read_manifest
from tests.imaging.files import scene

RNG = np.random.default_rng(0)


def test_pixel_hash_is_of_the_pixels_and_the_shape() -> None:
    square = scene(16, 16)
    assert pixel_hash(square) == pixel_hash(np.asfortranarray(square)) == pixel_hash(square[::-1][::-1])
    changed = square.copy()
    changed[7, 7] ^= 1
    others = [changed, square.T, square.reshape(8, 32), square[:8]]
    assert len({pixel_hash(one) for one in (square, *others)}) == 5


# Perceptual hashes


def distance(a: np.ndarray, b: np.ndarray) -> int:
    first, second = (perceptual_hashes([image])[0] for image in (a, b))
    return int(np.bitwise_count(first ^ second).sum())


def test_hashes_are_packed_row_by_row() -> None:
    images = RNG.integers(0, 256, (5, 40, 40), dtype=np.uint8)
    hashes = perceptual_hashes(images)
    assert hashes.shape == (5, HASH_SIZE**2 // 64)
    assert hashes.dtype == np.uint64
    np.testing.assert_array_equal(hashes[3], perceptual_hashes(images[3:4])[0])
    assert np.bitwise_count(hashes).sum(axis=1).tolist() == [HASH_SIZE**2 // 2] * 5  # The median splits them.
    assert perceptual_hashes([]).shape == (0, HASH_SIZE**2 // 64)


def test_unrelated_images_differ_in_half_of_the_bits() -> None:
    images = RNG.integers(0, 256, (2, 64, 64), dtype=np.uint8)
    assert abs(distance(*images) - HASH_SIZE**2 / 2) < 5 * HASH_SIZE / 2


def compressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def cut(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((round(0.01 * width), round(0.01 * height), round(0.99 * width), round(0.99 * height)))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 50": lambda image: compressed(image, 50),
    "JPEG 90": lambda image: compressed(image, 90),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "brighter": lambda image: image.point(lambda value: value * 1.1),
    "less contrast": lambda image: image.point(lambda value: 128 + 0.85 * (value - 128)),
    "cut by 1 %": cut,
}


@pytest.mark.data
@pytest.mark.parametrize("site", ["nih-a", "guangzhou", "hannover"])
def test_copies_of_real_radiographs_are_near_and_other_patients_are_not(
    site: str, real_data: Callable[[str], Path]
) -> None:
    manifest = read_manifest(real_data(site))
    rows = manifest.frame.unique("patient_id", maintain_order=True).head(70)
    images = [Image.open(manifest.root / name).convert("L") for name in rows["image"]]
    hashes = perceptual_hashes(map(np.asarray, images))
    assert len(near_pairs(hashes)) == 0
    for name, copy in COPIES.items():
        copies = perceptual_hashes(np.asarray(copy(image).resize(image.size)) for image in images)
        distances = np.bitwise_count(copies ^ hashes).sum(axis=1)
        assert (distances <= NEAR_DISTANCE).mean() >= 0.95, name


# Near pairs


def brute_force(hashes: np.ndarray, most: int) -> list[list[int]]:
    return [
        [first, second]
        for first, second in combinations(range(len(hashes)), 2)
        if np.bitwise_count(hashes[first] ^ hashes[second]).sum() <= most
    ]


@given(
    n=st.integers(0, 80),
    words=st.integers(1, 9),
    flips=st.integers(0, 60),
    most=st.integers(0, 200),
    seed=st.integers(0, 1000),
)
def test_every_near_pair_is_found_and_no_other(n: int, words: int, flips: int, most: int, seed: int) -> None:
    """Hashes in families that differ in a few bits, so that distances on both sides of the limit occur."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (5, 64 * words))[rng.integers(0, 5, n)] if n else np.empty((0, 64 * words), int)
    for row in bits:
        row[rng.integers(0, 64 * words, flips)] ^= 1
    hashes = np.packbits(bits.astype(np.uint8), axis=1).view(np.uint64).reshape(n, words)
    found = near_pairs(hashes, most, workers=2)
    assert found.shape == (len(found), 2)
    assert found.tolist() == brute_force(hashes, most)


@pytest.mark.parametrize("n", [1, 31, 32, 33, 64, 100])
def test_pairs_across_blocks_are_found(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COLUMNS", 40)
    hashes = np.zeros((n, 3), np.uint64)
    assert near_pairs(hashes, 0).tolist() == [list(pair) for pair in combinations(range(n), 2)]


def test_threads_change_no_hash_and_progress_reaches_the_end() -> None:
    images = np.random.default_rng(5).integers(0, 256, (300, 48, 48), np.uint8)
    told: list[int] = []
    hashes = perceptual_hashes(iter(images), progress=told.append, workers=4)
    assert told == [256, 300]
    np.testing.assert_array_equal(hashes, perceptual_hashes(images, workers=1))
    pairs: list[tuple[int, int]] = []
    near_pairs(hashes, progress=lambda done, total: pairs.append((done, total)), workers=2)
    assert pairs == sorted(set(pairs))
    assert pairs[-1] == (300 * 299 // 2, 300 * 299 // 2)
