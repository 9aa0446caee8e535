"""The mean, with numbers that can be recomputed on paper."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from polyhead.errors import UpdateError
from polyhead.federation.aggregate import SiteUpdate, weighted_mean

CURRENT = {"w": torch.zeros(2), "n": torch.tensor(0)}


def update(site: str, w: list[float], n: int, examples: int = 1) -> SiteUpdate:
    return SiteUpdate(site, 0, examples, 0.5, {"w": torch.tensor(w), "n": torch.tensor(n)})


A = update("a", [1.0, 4.0], 10, examples=1)
B = update("b", [3.0, 0.0], 13, examples=3)


def test_equal_weights_by_hand() -> None:
    mean = weighted_mean([A, B], CURRENT, "equal")
    assert mean["w"].tolist() == [2.0, 2.0]
    assert mean["n"] == 12  # 11.5, to the even neighbour


def test_weights_by_examples_by_hand() -> None:
    mean = weighted_mean([A, B], CURRENT, "examples")
    assert mean["w"].tolist() == [2.5, 1.0]
    assert mean["n"] == 12  # 12.25


def test_sums_of_an_earlier_round_leave_no_trace() -> None:
    sums: dict[str, torch.Tensor] = {}
    weighted_mean([B, A], CURRENT, "examples", sums)
    for weighting in ("examples", "equal"):
        again = weighted_mean([A, B], CURRENT, weighting, sums)
        fresh = weighted_mean([A, B], CURRENT, weighting)
        assert all(torch.equal(again[name], fresh[name]) for name in CURRENT)
    assert weighted_mean([], CURRENT, "equal", sums)["w"].tolist() == [0.0, 0.0]


def test_types_are_kept() -> None:
    mean = weighted_mean([A, B], CURRENT, "equal")
    assert {name: tensor.dtype for name, tensor in mean.items()} == {"w": torch.float32, "n": torch.int64}


def test_one_update_is_its_own_mean() -> None:
    mean = weighted_mean([A], CURRENT, "examples")
    assert all(torch.equal(mean[name], A.state[name]) for name in CURRENT)


def test_without_an_update_the_current_state_stays() -> None:
    current = {"w": torch.tensor([5.0, 6.0]), "n": torch.tensor(7)}
    mean = weighted_mean([], current, "equal")
    assert all(torch.equal(mean[name], current[name]) for name in current)


@given(st.lists(st.integers(-(2**24), 2**24), min_size=1, max_size=8))
@example([2**24, 1, -(2**24), 1])
def test_the_sum_is_taken_in_float64_and_rounded_once(values: list[int]) -> None:
    updates = [update(str(index), [float(value), 0.0], 0) for index, value in enumerate(values)]
    mean = weighted_mean(updates, CURRENT, "equal")["w"][0]
    assert mean == torch.tensor(sum(values) / len(values), dtype=torch.float64).float()


def test_updates_are_consumed_one_by_one() -> None:
    alive: list[int] = []

    def stream() -> Iterator[SiteUpdate]:
        for index in range(5):
            state = {"w": torch.full((2,), float(index)), "n": torch.tensor(0)}
            alive.append(index)
            yield SiteUpdate(str(index), 0, 1, 0.0, state)
            # The one before has been added when the next is asked for: nothing was collected first.
            assert alive == list(range(index + 1))

    assert weighted_mean(stream(), CURRENT, "equal")["w"].tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (replace(A, state={"w": A.state["w"]}), "n is missing"),
        (replace(A, state={**A.state, "head.weight": torch.zeros(1)}), "head.weight is not to be shared"),
        (
            replace(A, state={**A.state, "w": torch.zeros(3)}),
            r"w is torch.float32 \(3,\) instead of torch.float32 \(2,\)",
        ),
        (replace(A, state={**A.state, "w": torch.zeros(2, dtype=torch.float64)}), "w is torch.float64"),
        (replace(A, state={**A.state, "w": torch.tensor([1.0, math.nan])}), "w holds a value that is not finite"),
        (replace(A, state={**A.state, "w": torch.tensor([math.inf, -math.inf])}), "w holds a value that is not finite"),
        (replace(A, examples=0), "0 examples"),
        (replace(A, loss=math.nan), "the loss is nan"),
    ],
)
def test_an_update_that_cannot_be_averaged_is_refused_by_name(broken: SiteUpdate, message: str) -> None:
    with pytest.raises(UpdateError, match=f"site a, round 0.*{message}"):
        weighted_mean([B, broken], CURRENT, "equal")
