"""The order of training."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from polyhead.training.dataset import batch_rows


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
