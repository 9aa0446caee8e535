"""Tensors as they lie in memory, flattened without a copy.

A convolution's weights may lie channels-last. To go through two tensors in pieces, both are flattened in the order of
one of them; where they lie alike, nothing is copied.
"""

import torch

__all__ = ["flatten", "unflatten"]


def flatten(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a tensor's values in the order in which those of `like` lie in memory, shape ``(n,)``."""
    return tensor.permute(_memory_order(like)).reshape(-1)


def unflatten(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Undo `flatten`: a view of `values` with the shape, and the order in memory, of `like`."""
    order = _memory_order(like)
    back = sorted(range(len(order)), key=order.__getitem__)
    return values.view([like.shape[axis] for axis in order]).permute(back)


def _memory_order(tensor: torch.Tensor) -> list[int]:
    return sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
