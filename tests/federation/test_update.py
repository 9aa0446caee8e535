"""Whatever a stranger sends is averaged or refused in a short sentence; nothing else happens."""

import math
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from polyhead.errors import UpdateError
from polyhead.federation.update import SiteUpdate, check_finite, check_update, counted_rows, reason_of, shown

CURRENT = {"backbone.w": torch.zeros(2), "backbone.n": torch.tensor(0)}
SOUND = SiteUpdate("a", 3, 10, 0.5, {"backbone.w": torch.tensor([1.0, 4.0]), "backbone.n": torch.tensor(10)})


def sending(**entries: Any) -> SiteUpdate:
    return replace(SOUND, state={**SOUND.state, **{f"backbone.{name}": value for name, value in entries.items()}})


WITH_HEAD = {**CURRENT, "head.weight": torch.zeros(3, 2), "head.bias": torch.zeros(3)}
CHOOSING = replace(SOUND, state={**SOUND.state, "head.weight": torch.ones(3, 2), "head.bias": torch.ones(3)})


@pytest.mark.parametrize("rows", [(True, False, True), (False,) * 3])
def test_a_choice_of_rows_is_accepted_where_it_is_asked_for(rows: tuple[bool, ...]) -> None:
    check_update(replace(CHOOSING, rows=rows), WITH_HEAD, by_row=True)
    with pytest.raises(UpdateError, match=r"^site a, round 3: it says which rows of the head count\. Site and server"):
        check_update(replace(CHOOSING, rows=rows), WITH_HEAD)


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (None, "found nothing"),
        ((True, True), "found 2 values"),
        ((True,) * 10**5, "found 100000 values"),
        ((), "found 0 values"),
        ((1, 0, 1), "found 3 values"),
        ((True, None, False), "found 3 values"),
        ((np.True_,) * 3, "found 3 values"),
        ([True, True, True], "found a list"),
        (torch.ones(3, dtype=torch.bool), "found a Tensor"),
        ("\x1b[2J\n", r"found \\x1b\[2J\\n"),
        (7, "found 7"),
    ],
)
def test_another_choice_of_rows_is_refused_in_words(rows: Any, found: str) -> None:
    words = rf"^site a, round 3: which rows of the head count: {found}\. Send 3 times true or false"
    with pytest.raises(UpdateError, match=words) as caught:
        check_update(replace(CHOOSING, rows=rows), WITH_HEAD, by_row=True)
    assert str(caught.value).isprintable()


def test_rows_that_do_not_count_are_as_if_they_had_not_moved() -> None:
    sent = {**CHOOSING.state, "head.weight": torch.tensor([[1.0, 2.0], [math.nan, 1e30], [3.0, 4.0]])}
    seen = counted_rows(replace(CHOOSING, state=sent, rows=(True, False, True)), WITH_HEAD)
    check_finite(seen)
    assert seen.state["head.weight"].tolist() == [[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]]
    assert seen.state["head.bias"].tolist() == [1.0, 0.0, 1.0]
    assert seen.state["backbone.w"] is CHOOSING.state["backbone.w"]
    assert counted_rows(CHOOSING, WITH_HEAD) is CHOOSING


def _shrunk() -> torch.Tensor:
    tensor = torch.zeros(2)
    tensor.untyped_storage().resize_(0)
    return tensor


def test_a_sound_update_is_accepted() -> None:
    check_update(SOUND, CURRENT)
    check_update(SOUND, CURRENT, expected_round=3)
    check_finite(SOUND)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.float32])
def test_an_entry_without_values_is_accepted(dtype: torch.dtype) -> None:
    empty = {"backbone.none": torch.empty(0, dtype=dtype)}
    check_update(replace(SOUND, state=empty), empty)
    check_finite(replace(SOUND, state=empty))


@pytest.mark.parametrize("examples", [1, 10**9])
@pytest.mark.parametrize("loss", [0, 0.5, -1.0, 1e300, np.float64(0.5)])
def test_counts_and_losses_within_the_limits_are_accepted(examples: int, loss: float) -> None:
    check_update(replace(SOUND, examples=examples, loss=loss), CURRENT)


BROKEN: list[tuple[SiteUpdate, str]] = [
    # U02: other names, shapes, types
    (replace(SOUND, state={"backbone.w": torch.zeros(2)}), r"backbone\.n is missing"),
    (replace(SOUND, state={}), r"backbone\.n, backbone\.w are missing"),
    (sending(w=torch.zeros(3)), r"backbone\.w is torch.float32 \(3,\) instead of torch.float32 \(2,\)"),
    (sending(w=torch.zeros(2, dtype=torch.float64)), r"backbone\.w is torch.float64 \(2,\)"),
    (sending(w=torch.zeros([1] * 40)), r"backbone\.w is torch.float32 of 40 dimensions"),
    # U03: what is not shared
    (
        replace(SOUND, state={**SOUND.state, "head.weight": torch.zeros(1)}),
        r"head\.weight is not shared and must not leave the site\. The head stays",
    ),
    (sending(bn=torch.zeros(1)), r"backbone\.bn is not shared and must not leave the site\.$"),
    (replace(SOUND, state={"x": torch.zeros(1)}), r"x is not shared .*backbone\.n, backbone\.w are missing"),
    (replace(SOUND, state={1: torch.zeros(1)}), "not a table of tensors by name"),  # type: ignore[dict-item]
    (replace(SOUND, state=[torch.zeros(1)]), "not a table of tensors by name"),  # type: ignore[arg-type]
    # no dense tensors of plain numbers
    (sending(w=[1.0, 2.0]), r"backbone\.w is a list, not a plain tensor"),
    (sending(w=np.zeros(2, np.float32)), r"backbone\.w is a ndarray, not a plain tensor"),
    (sending(w=nn.Parameter(torch.zeros(2))), r"backbone\.w is a Parameter"),
    (sending(w=torch.zeros(2, requires_grad=True)), r"backbone\.w is bound to a computation"),
    (sending(w=torch.zeros(2).to_sparse()), r"backbone\.w is not a dense tensor on the CPU \(torch.sparse_coo"),
    (sending(w=torch.zeros(2, device="meta")), r"backbone\.w is not a dense tensor on the CPU \(torch.strided, meta"),
    (sending(w=torch.zeros(2, dtype=torch.complex64)), r"backbone\.w is torch.complex64"),
    (sending(w=torch.conj(torch.ones(2, dtype=torch.complex64)).imag), r"backbone\.w is bound to a computation"),
    # integers
    (sending(n=torch.tensor(-1)), r"backbone\.n counts from -1 to -1"),
    (sending(n=torch.tensor(2**53 + 1)), r"backbone\.n counts .* allowed is from 0 to \d+\."),
    (sending(n=CURRENT["backbone.n"] + 2**20 + 1), r"backbone\.n counts .* allowed is from 0 to \d+\."),
    # a tensor whose memory was taken away
    (sending(w=_shrunk()), r"backbone\.w has no values"),
    # U05: counts and losses
    *((replace(SOUND, examples=count), rf"{count} examples\. .* from 1 to") for count in (0, -1, 10**9 + 1, 10**12)),
    *((replace(SOUND, examples=count), r"examples\. Send") for count in (True, 3.0, math.nan, "3", None, 10**5000)),
    *((replace(SOUND, loss=loss), "the loss is") for loss in (math.nan, -math.inf, True, "0.5", 10**5000, 1j)),
    # about the round
    (replace(SOUND, round=2), "not of round 3"),
    (replace(SOUND, round=True), "not of round 3"),
    (replace(SOUND, round="3"), "not of round 3"),  # type: ignore[arg-type]
    (replace(SOUND, round=10**5000), "not of round 3"),
    (replace(SOUND, site=7), "name of the site"),  # type: ignore[arg-type]
    (replace(SOUND, site=["a"]), "name of the site"),  # type: ignore[arg-type]
    (replace(SOUND, site=""), "name of the site"),
]


@pytest.mark.parametrize(("broken", "reason"), BROKEN)
def test_what_cannot_be_averaged_is_refused_with_the_difference(broken: SiteUpdate, reason: str) -> None:
    with pytest.raises(UpdateError, match=rf"^site .*, round .*: .*{reason}") as caught:
        check_update(broken, CURRENT, expected_round=3)
    assert str(caught.value).endswith(reason_of(broken, caught.value))
    assert not reason_of(broken, caught.value).startswith("site")


def test_a_liars_counter_cannot_lock_honest_sites_out() -> None:
    """The most that one may claim, averaged in, leaves room for every honest site's next count, and so on."""
    counter = torch.tensor(10)
    for _ in range(50):
        current = {**CURRENT, "backbone.n": counter}
        lie, honest = counter + 2**20, counter + 20
        for sent in (lie, honest):
            check_update(sending(n=sent), current)
        counter = (lie + honest) // 2


@pytest.mark.parametrize("tensor", [torch.zeros(4)[::2], torch.zeros(1).expand(2), torch.zeros(5)[3:]])
def test_a_view_of_memory_that_is_there_is_accepted(tensor: torch.Tensor) -> None:
    check_update(sending(w=tensor), CURRENT)


def test_finite_values_whose_sum_overflows_are_finite() -> None:
    check_finite(sending(w=torch.tensor([2e38, 2e38])))


def test_without_an_expected_round_any_from_0_will_do() -> None:
    check_update(replace(SOUND, round=10**6), CURRENT)
    with pytest.raises(UpdateError, match="not of a number from 0"):
        check_update(replace(SOUND, round=-1), CURRENT)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.filterwarnings("ignore:.*nested tensors")
def test_quantised_and_nested_tensors_are_refused() -> None:
    odd = [torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8), torch.nested.nested_tensor([torch.ones(2)])]
    for tensor in odd:
        with pytest.raises(UpdateError, match="not a dense tensor"):
            check_update(sending(w=tensor), CURRENT)


@pytest.mark.parametrize("values", [[1.0, math.nan], [math.inf, 0.0], [math.inf, -math.inf]])
def test_a_value_that_is_not_finite_is_refused_by_name(values: list[float]) -> None:
    with pytest.raises(UpdateError, match=r"^site a, round 3: backbone\.w holds a value that is not finite"):
        check_finite(sending(w=torch.tensor(values)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_an_honest_sum_beyond_half_precision_is_accepted(dtype: torch.dtype) -> None:
    check_finite(sending(w=torch.full((1000,), 500.0, dtype=dtype)))


@pytest.mark.parametrize(
    "hostile",
    [
        replace(SOUND, state={f"name{number:06}": torch.zeros(1) for number in range(100_000)}),
        replace(SOUND, state={**SOUND.state, "x" * 2**20: torch.zeros(1)}),
        replace(SOUND, state={**SOUND.state, "\x1b[2J\n\U000e0001\ud800" * 2**16: torch.zeros(1)}),
        replace(SOUND, site="y" * 2**20, examples=0),
        replace(SOUND, site="\x1b]0;\n" * 100, examples=0),
    ],
    ids=["100,000 names", "a long name", "control characters", "a long site", "a site of control characters"],
)
def test_hostile_names_give_a_short_message_in_one_printable_line(hostile: SiteUpdate) -> None:
    with pytest.raises(UpdateError) as caught:
        check_update(hostile, CURRENT)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


def test_many_names_are_counted_and_the_first_named() -> None:
    many = replace(SOUND, state={**SOUND.state, **{f"x{number}": torch.zeros(1) for number in range(1005)}})
    with pytest.raises(UpdateError, match=r": x0, x1, x10 and 1,002 more are not shared"):
        check_update(many, CURRENT)


NUMBERS = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.none(), st.text(), st.binary(), st.integers(2**60, 2**4000)
)
TENSORS = st.builds(
    lambda shape, dtype, fill: torch.full(shape, fill).to(dtype),
    st.sampled_from([(2,), (), (0,), (3,), (1, 2), (2, 0)]),
    st.sampled_from(
        [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]
    ),
    st.sampled_from([0.0, -1.0, 3.5, 1e30, math.nan, math.inf]),
)
ODD: list[Callable[[torch.Tensor], object]] = [
    lambda tensor: tensor,
    lambda tensor: tensor.to("meta"),
    lambda tensor: tensor.to_sparse(),
    lambda tensor: nn.Parameter(tensor, requires_grad=False),
    lambda tensor: tensor.numpy() if tensor.dtype != torch.bfloat16 else None,
]
VALUES = st.one_of(st.builds(lambda tensor, turn: turn(tensor), TENSORS, st.sampled_from(ODD)), NUMBERS)
NAMES = st.one_of(st.sampled_from(["backbone.w", "backbone.n", "head.bias"]), st.text(max_size=300), NUMBERS)
STATES = st.one_of(st.dictionaries(NAMES, VALUES), st.fixed_dictionaries(dict.fromkeys(CURRENT, VALUES)), NUMBERS)


def fault_of(update: SiteUpdate) -> str | None:
    try:
        check_update(update, CURRENT)
        check_finite(update)
    except UpdateError as problem:
        return str(problem)
    return None


@given(st.builds(replace, st.just(CHOOSING), rows=st.one_of(NUMBERS, st.lists(NUMBERS), st.lists(NUMBERS).map(tuple))))
def test_whatever_choice_of_rows_is_sent_nothing_but_an_update_error_comes_of_it(update: SiteUpdate) -> None:
    with suppress(UpdateError):
        check_update(update, WITH_HEAD, by_row=True)
        assert counted_rows(update, WITH_HEAD).state.keys() == WITH_HEAD.keys()


@given(st.builds(SiteUpdate, NAMES, NUMBERS, NUMBERS, NUMBERS, STATES))  # type: ignore[arg-type]
def test_whatever_is_sent_nothing_but_an_update_error_comes_of_it(update: SiteUpdate) -> None:
    message = fault_of(update)
    assert message is None or (len(message) < 1000 and message.isprintable())


@given(st.builds(SiteUpdate, st.just("a"), st.just(0), st.just(1), st.just(0.5), STATES))  # type: ignore[arg-type]
def test_whatever_tensors_are_sent_what_passes_fits(update: SiteUpdate) -> None:
    if fault_of(update):
        return
    assert update.state["backbone.w"].isfinite().all()
    assert 0 <= int(update.state["backbone.n"]) <= 2**53


@given(st.one_of(NUMBERS, st.text(min_size=50)))
def test_shown_values_are_short_and_printable(value: object) -> None:
    text = shown(value)
    assert len(text) <= 80
    assert text.isprintable()


def test_an_ordinary_name_is_shown_as_it_is() -> None:
    assert re.fullmatch(r"[a-z]+", shown("guangzhou"))
    assert shown("b" * 64) == "b" * 64
