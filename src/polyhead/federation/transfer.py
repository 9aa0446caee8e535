"""In which precision shared entries travel between a server and its sites.

In half precision every weight of two or more dimensions, which is nearly all of a network's bytes, is rounded to the
nearest float16 by who sends it. What is few in number and delicate travels as it is: biases, normalisation with its
running statistics, counters. Who receives computes in the precision that the model has; so does the server, whose mean
is never rounded to less, only the copy that it sends.

float16 has eleven significant bits: a weight is moved by at most a share of 1/2048, below 6e-5 by at most 3e-8. Its
largest value is 65,504; larger weights are refused by who would send them, since they would become infinite.
"""

from collections.abc import Mapping
from typing import Literal

import torch

from polyhead.errors import UpdateError

__all__ = ["Transfer", "narrowed", "travelling_type", "widened"]

Transfer = Literal["full", "half"]

_MOST = torch.finfo(torch.float16).max


def travelling_type(tensor: torch.Tensor, transfer: Transfer) -> torch.dtype:
    """Return the type of values in which an entry travels; of one that has travelled, its own."""
    return torch.float16 if transfer == "half" and tensor.dtype == torch.float32 and tensor.dim() >= 2 else tensor.dtype


def narrowed(state: Mapping[str, torch.Tensor], transfer: Transfer) -> dict[str, torch.Tensor]:
    """Return shared entries as they travel; those whose type stays are not copied.

    Values that are not finite stay so: to refuse them is the receiver's business, who says whose they are.

    Raises
    ------
    UpdateError
        Naming the first entry that is finite and has a value beyond what half precision holds.
    """
    return {name: _narrow(name, tensor, travelling_type(tensor, transfer)) for name, tensor in state.items()}


def widened(state: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return entries that travelled in the types of `like`, which changes no value; of those types, not copied."""
    return {name: tensor.to(like[name].dtype) for name, tensor in state.items()}


def _narrow(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if tensor.dtype == dtype:
        return tensor
    half = tensor.detach().to(dtype)
    if not half.isfinite().all() and tensor.isfinite().all():
        raise UpdateError(
            f"{name} holds a value of {tensor.abs().max().item():g}, and half precision ends at {_MOST:,.0f}. "
            "Lower the learning rate, or set federation.transfer = 'full'."
        )
    return half
