"""The means, with numbers that can be recomputed on paper, and held against numpy's and scipy's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from polyhead.federation import means
from polyhead.federation.flat import flatten
from polyhead.federation.means import ReadPiece, coordinate_median, trimmed_mean, weighted_mean
from polyhead.federation.update import SiteUpdate

State = Mapping[str, torch.Tensor]
CURRENT = {"w": torch.zeros(2), "n": torch.tensor(0)}


def update(site: str, w: list[float], n: int, examples: int = 1) -> SiteUpdate:
    return SiteUpdate(site, 0, examples, 0.5, {"w": torch.tensor(w), "n": torch.tensor(n)})


def read(state: State, current: State, name: str, start: int, stop: int) -> torch.Tensor:
    return flatten(state[name], like=current[name])[start:stop]


def readers(states: Sequence[State], current: State) -> list[ReadPiece]:
    return [partial(read, state, current) for state in states]


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


def test_an_update_is_not_written_into() -> None:
    wide = {name: tensor.double() for name, tensor in A.state.items()}
    weighted_mean([replace(A, state=wide, examples=3), replace(B, state=wide)], CURRENT, "examples")
    assert all(torch.equal(wide[name], A.state[name].double()) for name in wide)


def test_one_update_is_its_own_mean() -> None:
    mean = weighted_mean([A], CURRENT, "examples")
    assert all(torch.equal(mean[name], A.state[name]) for name in CURRENT)


def test_without_an_update_the_current_state_stays() -> None:
    current = {"w": torch.tensor([5.0, 6.0]), "n": torch.tensor(7)}
    for mean in (
        weighted_mean([], current, "equal"),
        coordinate_median([], current),
        trimmed_mean([], current, 0.2),
    ):
        assert all(torch.equal(mean[name], current[name]) for name in current)
        assert mean["w"].data_ptr() != current["w"].data_ptr()


@given(st.lists(st.integers(-(2**24), 2**24), min_size=1, max_size=8))
@example([2**24, 1, -(2**24), 1])
def test_the_sum_is_taken_in_float64_and_rounded_once(values: list[int]) -> None:
    updates = [update(str(index), [float(value), 0.0], 0) for index, value in enumerate(values)]
    mean = weighted_mean(updates, CURRENT, "equal")["w"][0]
    assert mean == torch.tensor(sum(values) / len(values), dtype=torch.float64).float()


def test_updates_are_consumed_one_by_one() -> None:
    shared = torch.zeros(2)

    def stream() -> Iterator[SiteUpdate]:
        for index in range(5):
            # Overwritten for the next: whoever kept it would see the last five times.
            shared.fill_(index)
            yield SiteUpdate(str(index), 0, 1, 0.0, {"w": shared, "n": torch.tensor(0)})

    assert weighted_mean(stream(), CURRENT, "equal")["w"].tolist() == [2.0, 2.0]


HEAD = {"head.weight": torch.tensor([[1.0, 1.0]] * 4), "head.bias": torch.full((4,), 9.0), "w": torch.zeros(1)}


def of_rows(site: str, value: float, examples: int, *rows: bool) -> SiteUpdate:
    weight = torch.tensor([[value * 2.0**row, -0.0] for row in range(4)])
    return SiteUpdate(
        site, 0, examples, 0.5, {"head.weight": weight, "head.bias": weight[:, 0] + 1, "w": weight[0, :1]}, rows
    )


ROWS = [of_rows("a", 3.0, 1, True, True, False, False), of_rows("b", 7.0, 3, False, True, True, False)]


@pytest.mark.parametrize(("weighting", "mean"), [("equal", 5.0), ("examples", 6.0)])
def test_each_row_of_a_head_is_averaged_over_those_that_count_for_it_by_hand(weighting: Any, mean: float) -> None:
    found = weighted_mean(ROWS, HEAD, weighting)
    # The first is a's alone, the third b's, the fourth nobody's; what is no head is everybody's.
    assert found["head.weight"][:, 0].tolist() == [3.0, 2 * mean, 28.0, 1.0]
    assert found["head.bias"].tolist() == [4.0, 2 * mean + 1, 29.0, 9.0]
    assert found["w"].tolist() == [mean]


def test_a_row_of_one_site_is_its_bits_whoever_else_takes_part() -> None:
    for row, update in ((0, ROWS[0]), (2, ROWS[1])):
        for name in ("head.weight", "head.bias"):
            found = weighted_mean(ROWS, HEAD, "examples")[name][row]
            # As bytes: 0.0 is not -0.0.
            assert found.numpy().tobytes() == update.state[name][row].numpy().tobytes()


def test_where_all_rows_of_all_sites_count_the_mean_is_that_of_a_whole_head() -> None:
    chance = torch.Generator().manual_seed(0)
    states = [{name: torch.randn(one.shape, generator=chance) for name, one in HEAD.items()} for _ in range(3)]
    whole = [SiteUpdate(str(place), 0, 7 + place, 0.5, state) for place, state in enumerate(states)]
    sums: dict[str, torch.Tensor] = {}
    # Sums of another choice of rows leave no trace.
    weighted_mean(ROWS, HEAD, "examples", sums)
    for weighting in ("equal", "examples"):
        one = weighted_mean(whole, HEAD, weighting)
        other = weighted_mean([replace(update, rows=(True,) * 4) for update in whole], HEAD, weighting, sums)
        assert all(torch.equal(one[name], other[name]) for name in HEAD)


WEIGHTS, COUNTS = [1.0, 2.0, 4.0, 8.0, 1e30], [1, 2, 3, 9, 2**53]
FIVE = [update(str(n), [w, -w], n).state for w, n in zip(WEIGHTS, COUNTS, strict=True)]


def test_the_median_by_hand() -> None:
    odd = coordinate_median(readers(FIVE, CURRENT), CURRENT)
    assert (odd["w"].tolist(), int(odd["n"])) == ([4.0, -4.0], 3)
    even = coordinate_median(readers(FIVE[:4], CURRENT), CURRENT)
    assert (even["w"].tolist(), int(even["n"])) == ([3.0, -3.0], 2)  # of 2 and 3: 2.5, to the even neighbour
    assert {name: tensor.dtype for name, tensor in odd.items()} == {"w": torch.float32, "n": torch.int64}


def test_the_trimmed_mean_by_hand() -> None:
    mean = trimmed_mean(readers(FIVE, CURRENT), CURRENT, 0.2)
    assert mean["w"].tolist() == pytest.approx([14 / 3, -14 / 3], rel=1e-7)
    assert mean["n"] == 5  # of 2, 3 and 9: 14/3


def test_large_counters_lose_no_digit() -> None:
    current = {"n": torch.tensor(0)}
    sent = readers([{"n": torch.tensor(2**53 - n)} for n in (1, 1, 3)], current)
    assert coordinate_median(sent, current)["n"] == 2**53 - 1
    assert trimmed_mean(sent[:2], current, 0.2)["n"] == 2**53 - 1


def test_of_three_sites_a_fifth_is_nobody() -> None:
    three = readers(FIVE[:3], CURRENT)
    assert trimmed_mean(three, CURRENT, 0.2)["w"][0] == torch.tensor(7 / 3)
    assert trimmed_mean(three, CURRENT, 0.34)["w"][0] == 2.0


FLOATS = st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=3, max_size=3)
COLUMNS = st.lists(FLOATS, min_size=1, max_size=9)


def states(rows: list[list[float]]) -> tuple[list[State], State]:
    return [{"w": torch.tensor(row)} for row in rows], {"w": torch.zeros(3)}


@given(COLUMNS)
def test_the_median_is_numpys(rows: list[list[float]]) -> None:
    sent, current = states(rows)
    ours = coordinate_median(readers(sent, current), current)["w"]
    assert ours.tolist() == np.median(np.array(rows), axis=0).astype(np.float32).tolist()


@given(COLUMNS, st.floats(0, 0.5, exclude_max=True))
@example([[0.0] * 3] * 2, 0.49999999999999994)
def test_the_trimmed_mean_is_scipys(rows: list[list[float]], trim: float) -> None:
    sent, current = states(rows)
    ours = trimmed_mean(readers(sent, current), current, trim)["w"]
    theirs = stats.trim_mean(np.array(rows), trim, axis=0)
    # Theirs adds up in another order and is not rounded to float32, whose steps next to 0 are large beside a value.
    step = float(np.finfo(np.float32).smallest_subnormal)
    assert np.allclose(ours, theirs, rtol=1e-6, atol=1e-6 * np.abs(rows).max() + step)


@given(COLUMNS, st.randoms(), st.sampled_from([0.0, 0.2, 0.45]))
@example([[0.0, -0.0, 0.0], [-0.0, 0.0, -0.0], [-0.0, 0.0, 1.0]], None, 0.45)
def test_the_order_of_sites_changes_no_bit(rows: list[list[float]], random: object, trim: float) -> None:
    sent, current = states(rows)
    shuffled = list(reversed(sent))
    if hasattr(random, "shuffle"):
        random.shuffle(shuffled)
    for mean in (coordinate_median, partial(trimmed_mean, trim=trim)):
        one, other = (mean(readers(order, current), current)["w"] for order in (sent, shuffled))
        assert one.numpy().tobytes() == other.numpy().tobytes()


@given(st.integers(1, 40), st.sampled_from([8, 64, 1000]))
def test_the_size_of_pieces_changes_no_bit(size: int, bytes_: int) -> None:
    generator = torch.Generator().manual_seed(size)
    current = {"w": torch.randn(size, 3, generator=generator)}
    sent = readers([{"w": torch.randn(size, 3, generator=generator)} for _ in range(5)], current)
    whole = trimmed_mean(sent, current, 0.2)["w"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(means, "_PIECES", bytes_)
        assert torch.equal(trimmed_mean(sent, current, 0.2)["w"], whole)


def test_channels_last_tensors_are_averaged_in_place_of_one_another() -> None:
    current = {"w": torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last)}
    sent: list[State] = [{"w": torch.rand(4, 3, 2, 2)} for _ in range(3)]
    median = coordinate_median(readers(sent, current), current)["w"]
    assert torch.equal(median, torch.stack([state["w"] for state in sent]).median(dim=0).values)
    assert median.stride() == current["w"].stride()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.uint8])
def test_other_types_are_kept(dtype: torch.dtype) -> None:
    current = {"w": torch.zeros(2, dtype=dtype)}
    sent: list[State] = [{"w": torch.tensor([n, 2 * n]).to(dtype)} for n in (1, 2, 9)]
    median = coordinate_median(readers(sent, current), current)["w"]
    assert (median.dtype, median.tolist()) == (dtype, [2, 4])
