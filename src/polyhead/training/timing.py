"""How long an optimizer step takes on this machine, and how large a model is on disk."""

import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from polyhead.config import Model, Training
from polyhead.errors import StudyError
from polyhead.training.backbone import build_backbone, feature_count
from polyhead.training.dataset import SplitData
from polyhead.training.device import describe_device, resolve_device
from polyhead.training.local import Stretch, train_locally
from polyhead.training.model import SiteModel, build_head
from polyhead.training.private_gradient import Mechanism

__all__ = ["StepTime", "model_bytes", "time_steps"]

# After a step for warming up, steps are timed for about so long.
_SECONDS = 2.0
_MOST_STEPS = 20
_SMALL = 2


@dataclass(frozen=True)
class StepTime:
    """The time of one optimizer step.

    Attributes
    ----------
    seconds
        Of a whole batch.
    batch
        Images in the batches that were timed; if fewer than the study's, the time was scaled up.
    device
        Name of the device.
    """

    seconds: float
    batch: int
    device: str


def time_steps(model: Model, training: Training, findings: int, mechanism: Mechanism | None = None) -> StepTime:
    """Time real optimizer steps on noise, augmentation included; takes a few seconds.

    Where a whole batch would take much longer than that, smaller ones are timed. With a mechanism steps are private.

    Raises
    ------
    StudyError
        If there is no such device or backbone, or a batch does not fit into the device's memory.
    """
    device = resolve_device(training.device)
    seconds_of = partial(_seconds, mechanism=mechanism) if mechanism else _seconds
    network = _site_model(model, findings, device)
    batch = training.batch_size
    try:
        seconds_of(network, model, training, _SMALL, 1)
        an_image = seconds_of(network, model, training, _SMALL, 1) / _SMALL
        while batch > _SMALL and batch * an_image > _SECONDS:
            batch = max(_SMALL, batch // 2)
        warm = seconds_of(network, model, training, batch, 1)
        steps = int(np.clip(_SECONDS / warm, 1, _MOST_STEPS))
        seconds = seconds_of(network, model, training, batch, steps) / steps
    except torch.OutOfMemoryError as problem:
        raise StudyError(
            f"key 'training.batch_size': {batch} images of {model.image_size} pixels do not fit into the memory of "
            f"{describe_device(device)['device']}. Make the batch, the image or the backbone smaller."
        ) from problem
    return StepTime(seconds * training.batch_size / batch, batch, str(describe_device(device)["device"]))


def model_bytes(model: Model, findings: int) -> tuple[int, int]:
    """Return the bytes of a backbone's tensors, and of a head for so many findings."""
    site_model = _site_model(model, findings, torch.device("cpu"))
    return _bytes(site_model.backbone), _bytes(site_model.head)


def _site_model(model: Model, findings: int, device: torch.device) -> SiteModel:
    backbone = build_backbone(model, seed=0)
    names = [f"finding {number}" for number in range(findings)]
    with torch.random.fork_rng(devices=[]):
        head = build_head(feature_count(backbone), names, 0)
    site_model = SiteModel(backbone, head, names).to(device)
    # The stubs of PyTorch lack this keyword.
    return site_model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _bytes(module: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def _seconds(
    network: SiteModel, model: Model, training: Training, batch: int, steps: int, mechanism: Mechanism | None = None
) -> float:
    """Train for some steps and return how long that took, all of the device's work included."""
    data = _noise(batch, model.image_size, len(network.findings))
    settings = training.model_copy(update={"batch_size": batch})
    began = time.perf_counter()
    train_locally(network, data, settings, Stretch(0, steps, steps, (0, "timing")), {}, None, mechanism)
    return time.perf_counter() - began


def _noise(images: int, size: int, findings: int) -> SplitData:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (_SMALL, size, size), np.uint8)
    labels = rng.integers(0, 2, (images, findings)).astype(np.float32)
    names = tuple(map(str, range(images)))
    return SplitData(pixels, np.arange(images) % _SMALL, labels, names, names)
