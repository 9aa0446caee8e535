"""Flattening: the same values in the same order as the model tensor's, and back."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from polyhead.federation.flat import flatten, unflatten


@given(st.permutations(range(4)), st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_flatten_and_unflatten_are_inverse_in_every_layout(order: list[int], shape: list[int]) -> None:
    like = torch.empty(shape).permute(order)
    tensor = torch.rand(like.shape)
    back = unflatten(flatten(tensor, like), like)
    assert torch.equal(back, tensor)
    assert torch.equal(flatten(back, like), flatten(tensor, like))


def test_tensors_that_lie_alike_are_not_copied() -> None:
    weights = torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last)
    assert flatten(weights, like=weights).data_ptr() == weights.data_ptr()
    assert unflatten(flatten(weights, like=weights), like=weights).stride() == weights.stride()


def test_a_single_number_is_flattened_too() -> None:
    number = torch.tensor(7)
    assert flatten(number, like=number).tolist() == [7]
    assert unflatten(torch.tensor([7]), like=number) == number
