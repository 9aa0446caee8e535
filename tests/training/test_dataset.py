"""The order of training, and reading ahead in it."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from polyhead.training.dataset import SplitData, batch_rows, pool_splits, read_ahead
from tests.conftest import make_split


@given(st.integers(1, 50), st.integers(2, 40), st.integers(1, 30))
def test_every_image_is_seen_equally_often_and_every_batch_is_full(n: int, batch_size: int, steps: int) -> None:
    batches = [batch_rows(n, batch_size, step, 0, "a") for step in range(steps)]
    assert {len(batch) for batch in batches} == {batch_size}
    seen = Counter(np.concatenate(batches).tolist())
    counts = [seen[row] for row in range(n)]
    assert max(counts) - min(counts) <= 1


def test_a_step_can_be_asked_for_alone() -> None:
    in_turn = [batch_rows(10, 4, step, 0, "a").tolist() for step in range(6)]
    assert batch_rows(10, 4, 5, 0, "a").tolist() == in_turn[5]


def test_sites_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(batch_rows(100, 50, 0, seed, site)) for seed in (0, 1) for site in ("a", "b")}
    assert len(orders) == 4


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_reading_ahead_gives_the_same_pixels_in_the_same_order(count: int) -> None:
    split = make_split(12, 1, seed=0)
    batches = [batch_rows(12, 5, step, 0, "a") for step in range(count)]
    ahead = list(read_ahead(split, batches))
    assert len(ahead) == count
    for expected, (indices, pixels) in zip(batches, ahead, strict=True):
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_array_equal(pixels, split.pixels[split.rows[indices]])


def test_the_next_batch_is_read_while_this_one_is_worked_on_and_no_further() -> None:
    asked: list[int] = []

    def batches() -> Iterator[NDArray[np.int64]]:
        for first in range(4):
            asked.append(first)
            yield np.arange(first, first + 2)

    reading = read_ahead(make_split(12, 1, seed=0), batches())
    next(reading)
    assert asked == [0, 1]
    next(reading)
    assert asked == [0, 1, 2]


def test_a_reading_error_reaches_the_training() -> None:
    with pytest.raises(IndexError):
        list(read_ahead(make_split(12, 1, seed=0), [np.array([12])]))


def test_a_pool_has_the_images_of_each_site_where_they_are() -> None:
    one, other = make_split(6, 2, seed=0), make_split(4, 2, seed=1)
    some = SplitData(one.pixels, one.rows[[4, 1]], one.labels[[4, 1]], ("x", "y"), ("p1", "p2"))
    pool = pool_splits({"a": some, "b": SplitData(other.pixels, other.rows, other.labels, tuple("wxyz"), ("p1",) * 4)})
    assert len(pool) == 6
    np.testing.assert_array_equal(pool.read(np.arange(6)), np.concatenate([one.pixels[[4, 1]], other.pixels]))
    np.testing.assert_array_equal(pool.labels, np.concatenate([one.labels[[4, 1]], other.labels]))
    # A name that two sites have is two images', and two patients'.
    assert pool.images == ("a/x", "a/y", "b/w", "b/x", "b/y", "b/z")
    assert pool.patients == ("a/p1", "a/p2", *("b/p1",) * 4)
    # Nothing was copied.
    assert pool.pixels is one.pixels
    assert pool.further == (other.pixels,)


def test_a_pool_of_pools_is_read_like_any_other() -> None:
    parts = {name: make_split(3, 1, seed) for seed, name in enumerate("abc")}
    pool = pool_splits({"d": pool_splits({"a": parts["a"], "b": parts["b"]}), "c": parts["c"]})
    np.testing.assert_array_equal(pool.read(np.arange(9)), np.concatenate([one.pixels for one in parts.values()]))


def test_a_finding_is_annotated_if_one_image_is() -> None:
    labels = np.array([[1, np.nan, np.nan], [0, np.nan, 0]], np.float32)
    one = make_split(2, 3, seed=0)
    split = SplitData(one.pixels, one.rows, labels, one.images, one.patients)
    assert split.annotated == (True, False, True)
    assert all(type(found) is bool for found in split.annotated)
