"""What a server makes of a round's mean: the next state itself, or a longer or shorter step towards it, with a memory.

Without a rule the mean is the next state. With one, how far the mean lies from what the sites started from is taken for
a gradient, and an optimizer of the server follows it. Only parameters: BatchNorm's statistics and counters are no place
to walk on from, so of them the mean is taken as it is. Which entries are parameters is asked of the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from polyhead.errors import RunError
from polyhead.training.model import SiteModel

__all__ = ["ServerRule", "first_moments", "server_step"]

_FIRST, _SECOND = "first/", "second/"
# Of all rounds before, the share that the mean square keeps in a round: that of the paper's experiments.
_SECOND_DECAY = 0.99


@dataclass(frozen=True)
class ServerRule:
    """An optimizer of the server.

    With `d` a parameter's move from what the sites started from to their mean, and all memory beginning at 0:

    ============  =============================================================================================
    ``momentum``  ``m = momentum * m + d``, and the step is ``rate * m`` (FedAvgM; Hsu et al., 2019)
    ``adam``      ``m = momentum * m + (1 - momentum) * d``; ``v = 0.99 * v + 0.01 * d**2``, which begins at
                  ``epsilon**2``; and the step is ``rate * m / (sqrt(v) + epsilon)`` (FedAdam; Reddi et al., ICLR 2021)
    ============  =============================================================================================
    """

    kind: Literal["momentum", "adam"]
    rate: float
    momentum: float
    epsilon: float = 0.0

    @property
    def kept(self) -> int:
        """How many numbers it keeps for each parameter."""
        return 2 if self.kind == "adam" else 1


def first_moments(
    rule: ServerRule | None, model: SiteModel, shared: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return what a rule keeps before the first round: of each parameter that is shared, and of nothing else.

    Parameters
    ----------
    model
        Tells parameters from other entries of a state.
    """
    names = [name for name, _ in model.named_parameters() if name in shared] if rule else []
    moments = {f"{_FIRST}{name}": torch.zeros(shared[name].shape, dtype=shared[name].dtype) for name in names}
    if rule and rule.kind == "adam":
        moments |= {f"{_SECOND}{name}": torch.full_like(moments[_FIRST + name], rule.epsilon**2) for name in names}
    return moments


def server_step(
    rule: ServerRule,
    start: Mapping[str, torch.Tensor],
    mean: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the next state and what the rule keeps after it; nothing given is changed.

    Parameters
    ----------
    start
        The shared entries that the sites started from.
    mean
        What they came to; with momentum 0 and rate 1 it is the next state, bit for bit.
    moments
        From the round before, or `first_moments`.

    Raises
    ------
    RunError
        If the step, or what is kept of it, goes beyond all numbers.
    """
    state, kept = dict(mean), dict[str, torch.Tensor]()
    for name in (key.removeprefix(_FIRST) for key in moments if key.startswith(_FIRST)):
        moved = mean[name].double() - start[name].double()
        step, own = _step(rule, moved, {part: moments[part + name] for part in _parts(rule)})
        # Not start + step: so written, a step that is the move itself leaves the mean as it is.
        state[name] = (mean[name].double() - (moved - step)).to(mean[name].dtype)
        kept |= {part + name: tensor.to(moments[part + name].dtype) for part, tensor in own.items()}
        _refuse_infinite(name, state[name])
        # An infinite mean square would hold the parameter still for ever, and in silence.
        for part in _parts(rule):
            _refuse_infinite(f"its memory of {name}", kept[part + name])
    return state, kept


def _refuse_infinite(what: str, tensor: torch.Tensor) -> None:
    if not tensor.isfinite().all():
        raise RunError(
            f"the server's own step made {what} not finite. Lower the server's learning rate under [federation], "
            "or training.learning_rate; the state before this round is kept."
        )


def _parts(rule: ServerRule) -> tuple[str, ...]:
    return (_FIRST, _SECOND)[: rule.kept]


def _step(
    rule: ServerRule, moved: torch.Tensor, moments: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return a parameter's step, and what is kept of it, in float64."""
    if rule.kind == "momentum":
        first = rule.momentum * moments[_FIRST].double() + moved
        return rule.rate * first, {_FIRST: first}
    first = rule.momentum * moments[_FIRST].double() + (1 - rule.momentum) * moved
    second = _SECOND_DECAY * moments[_SECOND].double() + (1 - _SECOND_DECAY) * moved.square()
    return rule.rate * first / (second.sqrt() + rule.epsilon), {_FIRST: first, _SECOND: second}
