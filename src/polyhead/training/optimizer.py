"""AdamW with its schedule, and its state as named tensors that can be saved without pickle."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from polyhead.config import Training

__all__ = ["build_optimizer", "learning_rate", "optimizer_tensors"]


def build_optimizer(module: nn.Module, training: Training, state: Mapping[str, torch.Tensor]) -> torch.optim.AdamW:
    """Make an optimizer for a module's parameters and put a saved state into it.

    Parameters
    ----------
    state
        From `optimizer_tensors`; empty for a fresh start. The optimizer takes its tensors over and changes them:
        copying them each round would cost more than everything else that federation adds to training.
    """
    # Without fusion AdamW takes as long on the CPU as a small network's backward pass.
    device = next(module.parameters()).device
    optimizer = torch.optim.AdamW(
        module.parameters(),
        lr=training.learning_rate,
        weight_decay=training.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
    by_parameter: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in state.items():
        parameter_name, _, key = name.rpartition(".")
        by_parameter.setdefault(parameter_name, {})[key] = tensor
    for name, parameter in module.named_parameters():
        if name in by_parameter:
            saved = by_parameter[name].items()
            optimizer.state[parameter] = {key: _like(tensor, parameter) for key, tensor in saved}
    return optimizer


def optimizer_tensors(module: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    """Return an optimizer's state on the CPU as ``{parameter.key: tensor}``, not copied: use the optimizer no more."""
    return {
        f"{name}.{key}": value.detach().cpu()
        for name, parameter in module.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _like(tensor: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
    """Bring a tensor of the state to its parameter's device and memory layout, as the fused step expects."""
    if tensor.shape != parameter.shape or tensor.stride() == parameter.stride():
        return tensor.to(parameter.device)
    return torch.empty_like(parameter).copy_(tensor)


def learning_rate(
    step: int, total_steps: int, highest: float, schedule: Literal["cosine", "constant"] = "cosine"
) -> float:
    """Return the rate of a step (from 0): half a cosine from `highest` down to 0 over `total_steps`; or `highest`."""
    if schedule == "constant":
        return highest
    return highest * 0.5 * (1 + math.cos(math.pi * step / total_steps))
