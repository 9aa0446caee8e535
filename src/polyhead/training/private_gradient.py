"""The gradient of a step under differential privacy: patients drawn at random, each bounded, and noise on the sum.

DP-SGD (Abadi et al., CCS 2016) with the patient as the unit: every patient takes part in a step with the same
probability, by a draw of her or his own, with one image. Backbone and head are one vector here: a head without noise
would carry the data into every later step.

All chance follows from a secret key, for each patient apart: who is drawn, which image, how it is changed. So the other
patients' part of the sum is the same with one patient and without, and that sum moves by at most `clip`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import tee

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from polyhead.config import Training
from polyhead.errors import StudyError
from polyhead.training.augment import augment
from polyhead.training.dataset import SplitData, image_batch, read_ahead
from polyhead.training.loss import masked_bce
from polyhead.training.model import SiteModel

__all__ = ["Mechanism", "draw_patients", "private_gradients", "sampling_rate"]

_RANGE = 2**64  # of each of a patient's numbers


@dataclass(frozen=True)
class Mechanism:
    """Noise and bound of a site's gradients.

    Attributes
    ----------
    noise
        Standard deviation of the noise in units of `clip`, at least 0.
    clip
        Largest Euclidean norm of a patient's gradient, above 0.
    key
        32 secret bytes, of which all chance is drawn: with the same key the same steps are the same bits.
    """

    noise: float
    clip: float
    key: bytes


@dataclass(frozen=True)
class _Draw:
    """The patients of a step: an image of each, and the seeds of how it is changed and of dropout."""

    images: NDArray[np.int64]
    seeds: tuple[tuple[int, int], ...]


def sampling_rate(patients: int, batch_size: int) -> float:
    """Return the probability of each of some patients to take part in a step: a batch is drawn on average, or all."""
    return min(1.0, batch_size / max(1, patients))


def private_gradients(
    model: SiteModel, data: SplitData, training: Training, steps: range, mechanism: Mechanism
) -> Iterator[int]:
    """Yield each step's number, with the gradient of that step in the model's parameters.

    The sum of the drawn patients' gradients, each shortened to `clip`, and the noise are divided by the batch size,
    whoever was drawn: an empty draw is noise alone. One image is worked on at a time, so memory does not grow with
    the draw. No loss is reported: it would be a number without noise.

    Parameters
    ----------
    model
        In training mode. What learns has gradients, and the bound is on all of it together.
    training
        ``batch_size`` and ``augment`` are read.
    steps
        Their numbers since the start of the schedule.

    Raises
    ------
    StudyError
        If a layer of the model keeps statistics of the images.
    """
    _refuse_statistics(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    draws, again = tee(draw_patients(data.patients, training.batch_size, mechanism.key, step) for step in steps)
    ahead = read_ahead(data, (draw.images for draw in again))
    for step, draw, (images, pixels) in zip(steps, draws, ahead, strict=True):
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        labels = torch.from_numpy(data.labels[images]).to(parameters[0].device)
        for place, seeds in enumerate(draw.seeds):
            one = slice(place, place + 1)
            _add_patient(sums, model, parameters, pixels[one], labels[one], training, seeds, mechanism.clip)
        _add_noise(sums, mechanism, step)
        for parameter, total in zip(parameters, sums, strict=True):
            parameter.grad = total.div_(training.batch_size)
        yield step


def draw_patients(patients: Sequence[str], batch_size: int, key: bytes, step: int) -> _Draw:
    """Draw the patients of a step, each by a number of her or his own; the order of images changes nothing.

    Parameters
    ----------
    patients
        The patient of each image.
    """
    images: dict[str, list[int]] = {}
    for image, patient in enumerate(patients):
        images.setdefault(patient, []).append(image)
    below = int(sampling_rate(len(images), batch_size) * _RANGE)
    chosen, seeds = [], []
    for patient in sorted(images):
        drawn, which, *rest = _numbers(key, step, patient)
        if drawn < below:
            chosen.append(images[patient][which % len(images[patient])])
            seeds.append((rest[0], rest[1]))
    return _Draw(np.array(chosen, dtype=np.int64), tuple(seeds))


def _numbers(key: bytes, step: int, patient: str) -> list[int]:
    """Return four numbers from 0 to 2**64 - 1 that nobody can foresee without the key."""
    raw = hashlib.blake2b(f"{step} {patient}".encode(), key=key, digest_size=32, person=b"patient").digest()
    return [int.from_bytes(raw[place : place + 8]) for place in range(0, 32, 8)]


def _add_patient(
    sums: list[torch.Tensor],
    model: SiteModel,
    parameters: list[nn.Parameter],
    pixels: NDArray[np.uint8],
    labels: torch.Tensor,
    training: Training,
    seeds: tuple[int, int],
    clip: float,
) -> None:
    generator = torch.Generator().manual_seed(seeds[0])
    image = augment(image_batch(pixels, labels.device), training.augment, generator)
    torch.manual_seed(seeds[1])  # Dropout draws from the global generator.
    # Weights of positives would be made of the label counts of all patients.
    loss = masked_bce(model(image), labels, torch.ones(labels.shape[1], device=labels.device))
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    norms = torch.stack([torch.linalg.vector_norm(gradient, dtype=torch.float64) for gradient in gradients])
    norm = torch.linalg.vector_norm(norms).item()
    # A gradient that is not finite has no direction to keep; as nothing at all it is within the bound.
    if np.isfinite(norm):
        torch._foreach_add_(sums, gradients, alpha=min(1.0, clip / norm) if norm else 1.0)


def _add_noise(sums: list[torch.Tensor], mechanism: Mechanism, step: int) -> None:
    """Add Gaussian noise to every coordinate, in the order of the parameters and of their indices."""
    if not mechanism.noise:
        return
    # Of a seed PyTorch's own generator uses 32 bits on a CPU, which can all be tried; this one has a key of 128.
    raw = hashlib.blake2b(f"{step}".encode(), key=mechanism.key, digest_size=16, person=b"noise").digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(raw)))
    for total in sums:
        drawn = torch.from_numpy(generator.standard_normal(total.numel(), dtype=np.float32)).reshape(total.shape)
        total.add_(drawn.to(total), alpha=mechanism.noise * mechanism.clip)


def _refuse_statistics(model: nn.Module) -> None:
    for name, layer in model.named_modules():
        if isinstance(layer, _NormBase) and layer.track_running_stats:
            raise StudyError(
                f"key 'privacy.noise': layer {name} of the backbone keeps statistics of the images, which no noise "
                "would cover. Set norm = 'group' under [model], or choose another backbone."
            )
