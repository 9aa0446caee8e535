"""Training at one site: some optimizer steps on its own images. The only training loop there is."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from polyhead.config import Training
from polyhead.seeds import derive_seed
from polyhead.training.augment import augment
from polyhead.training.dataset import SplitData, batch_rows, image_batch, read_ahead
from polyhead.training.loss import masked_bce, positive_weights
from polyhead.training.model import SiteModel
from polyhead.training.optimizer import build_optimizer, learning_rate, optimizer_tensors
from polyhead.training.private_gradient import Mechanism, private_gradients
from polyhead.training.proximal import Pull, add_pull, cast_anchor

__all__ = ["Stretch", "train_locally"]


@dataclass(frozen=True)
class Stretch:
    """A stretch of optimizer steps.

    Attributes
    ----------
    first_step, steps
        Number of the first step since the start of the schedule, from 0, and how many to take.
    total_steps
        Length of the schedule of the learning rate.
    seed_parts
        What all chance depends on: the study's seed and the site.
    part
        What learns: ``all`` of the model; its ``head`` or its ``backbone``, while the other stays as it is, BatchNorm
        statistics included.
    """

    first_step: int
    steps: int
    total_steps: int
    seed_parts: tuple[str | int, ...]
    part: Literal["all", "head", "backbone"] = "all"


def train_locally(
    model: SiteModel,
    data: SplitData,
    training: Training,
    stretch: Stretch,
    optimizer_state: Mapping[str, torch.Tensor],
    on_step: Callable[[], None] | None = None,
    mechanism: Mechanism | None = None,
    pull: Pull | None = None,
) -> tuple[float, dict[str, torch.Tensor]]:
    """Train a model in place.

    Parameters
    ----------
    optimizer_state
        As returned by the stretch before; empty at the start.
    on_step
        Called after each step; what it raises ends the training there.
    mechanism
        Bounds and noise of the gradients, where they are private.
    pull
        A proximal term, which is no part of the loss that is returned.

    Returns
    -------
    float
        Mean training loss of the steps; not a number where gradients are private, and none is computed.
    dict
        The optimizer's state after them.
    """
    trained = {"all": model, "head": model.head, "backbone": model.backbone}[stretch.part]
    device = model.head.weight.device
    optimizer = build_optimizer(trained, training, optimizer_state)
    model.requires_grad_(False)
    trained.requires_grad_(True)
    model.eval()
    trained.train()
    anchor = cast_anchor(model, pull) if pull else []
    total_loss = torch.zeros((), device=device)
    # Dropout draws from the global generator; it gets a seed of its own here and is put back afterwards.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed("dropout", *stretch.seed_parts, stretch.first_step))
        for step, loss in _gradients(model, data, training, stretch, mechanism):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, stretch.total_steps, training.learning_rate, training.schedule)
            if pull:
                add_pull(anchor, pull.strength)
            optimizer.step()
            total_loss += loss
            if on_step:
                on_step()
    return total_loss.item() / stretch.steps, optimizer_tensors(trained, optimizer)


def _gradients(
    model: SiteModel, data: SplitData, training: Training, stretch: Stretch, mechanism: Mechanism | None
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield each step's number and loss, with its gradient in the model's parameters; a private one tells no loss."""
    device = model.head.weight.device
    if mechanism:
        steps = range(stretch.first_step, stretch.first_step + stretch.steps)
        for step in private_gradients(model, data, training, steps, mechanism):
            yield step, torch.full((), torch.nan, device=device)
        return
    pos_weight = torch.from_numpy(positive_weights(data.labels)).to(device)
    for step, images, labels in _batches(data, training, stretch, device):
        loss = masked_bce(model(images), labels, pos_weight)
        model.zero_grad()
        torch.autograd.backward(loss)
        yield step, loss.detach()


def _batches(
    data: SplitData, training: Training, stretch: Stretch, device: torch.device
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Yield each step's number, augmented images and labels."""
    steps = range(stretch.first_step, stretch.first_step + stretch.steps)
    order = (batch_rows(len(data), training.batch_size, step, *stretch.seed_parts) for step in steps)
    for step, (indices, pixels) in zip(steps, read_ahead(data, order), strict=True):
        generator = torch.Generator().manual_seed(derive_seed("augment", *stretch.seed_parts, step))
        images = augment(image_batch(pixels, device), training.augment, generator)
        yield step, images, torch.from_numpy(data.labels[indices]).to(device)
