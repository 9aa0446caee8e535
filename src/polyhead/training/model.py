"""A site's model: the shared backbone and the site's private head, split by module.

Entries of a state are named ``backbone.*`` and ``head.*`` after the two modules that own them. Nothing anywhere looks
for words inside the names of layers to tell the two apart; that is how averaging was lost in the authors' released
code.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from polyhead.seeds import derive_seed

__all__ = ["SiteModel", "batch_norm_names", "build_head", "copy_state", "load_state", "model_state"]


class SiteModel(nn.Module):
    """A backbone with one linear head.

    Parameters
    ----------
    backbone
        Maps ``(n, 1, h, w)`` to ``(n, features)``.
    head
        Maps ``(n, features)`` to logits ``(n, findings)``.
    findings
        The finding of each logit.
    """

    def __init__(self, backbone: nn.Module, head: nn.Linear, findings: Sequence[str]) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.findings = tuple(findings)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, shape ``(n, findings)``."""
        logits: torch.Tensor = self.head(self.backbone(images))
        return logits


def build_head(features: int, findings: Sequence[str], *seed_parts: str | int) -> nn.Linear:
    """Make a head with random weights and no bias, each row drawn for its own finding.

    Rows depend on `seed_parts` and the finding alone, so the order of findings, and other findings beside it, do not
    change a row. The spread is that of `torch.nn.Linear`: uniform within ``1 / sqrt(features)``.
    """
    head = nn.Linear(features, len(findings))
    bound = features**-0.5
    with torch.no_grad():
        head.bias.zero_()
        for row, finding in enumerate(findings):
            generator = torch.Generator().manual_seed(derive_seed("head", *seed_parts, finding))
            head.weight[row] = (torch.rand(features, generator=generator) * 2 - 1) * bound
    return head


def batch_norm_names(backbone: nn.Module) -> frozenset[str]:
    """Return the names of all BatchNorm entries of a backbone's state, statistics included, found by module type."""
    return frozenset(
        f"{module_name}.{name}" if module_name else name
        for module_name, module in backbone.named_modules()
        if isinstance(module, _BatchNorm)
        for name in module.state_dict()
    )


def model_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of a model's state on the CPU."""
    return copy_state(model.state_dict())


def copy_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a copy on the CPU, each tensor contiguous, ready to be saved."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }


def load_state(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Load a whole state into a model; every entry must be there, none may be left over.

    Values take the model's types: what travelled in half precision is widened.
    """
    model.load_state_dict(dict(state), strict=True)
