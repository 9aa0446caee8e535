"""The order of training, and reading ahead in it."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from polyhead.training.dataset import batch_rows, read_ahead
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
