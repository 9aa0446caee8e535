"""The proximal term of FedProx (Li et al., MLSys 2020): what a site shares is pulled back to where its round began."""

from dataclasses import dataclass

import torch

from polyhead.training.model import SiteModel

__all__ = ["Anchor", "Pull", "add_pull", "cast_anchor"]

Anchor = list[tuple[torch.nn.Parameter, torch.Tensor]]
"""Parameters, each with the values that it is pulled to."""


@dataclass(frozen=True)
class Pull:
    """A proximal term: ``strength / 2`` times the squared distance of some parameters from where training began.

    Attributes
    ----------
    strength
        At least 0; what FedProx calls mu.
    names
        Entries of the model's state. Those that are no parameters, such as BatchNorm's statistics, are not pulled.
    """

    strength: float
    names: frozenset[str]


def cast_anchor(model: SiteModel, pull: Pull) -> Anchor:
    """Return the parameters to pull, with a copy of their values now."""
    named = model.named_parameters()
    return [(parameter, parameter.detach().clone()) for name, parameter in named if name in pull.names]


def add_pull(anchor: Anchor, strength: float) -> None:
    """Add the gradient of the term, ``strength`` times the way from the anchor, to each parameter's own.

    It is a function of weights alone: where gradients are private, it tells no more of the data than they do.
    """
    with torch.no_grad():
        for parameter, start in anchor:
            # One that the model does not use has no gradient, and did not move.
            if parameter.grad is not None:
                parameter.grad.add_(parameter - start, alpha=strength)
