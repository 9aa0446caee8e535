"""What a site keeps for itself between rounds, on its own disk.

``sites/SITE/private-R.safetensors`` is its state after R rounds. The file of a round that counted is never changed,
only followed by the next one, so a site whose round did not count goes on from the one before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from polyhead.errors import RunError, UpdateError
from polyhead.training.tensor_file import Stored, read_tensors, write_tensors

__all__ = ["PrivateFile", "PrivateState", "check_private", "load_private", "private_path", "save_private"]

# Of four axes, the channels last.
_LAST = "optimizer, channels last/"


@dataclass(frozen=True)
class PrivateState:
    """What never leaves a site.

    There is no random state beside it: order of the data, augmentation and dropout follow from the study's seed, the
    site's name and the number of the step.

    Attributes
    ----------
    model
        The entries of its model that are not shared: the head, and private BatchNorm layers.
    optimizer
        Its optimizer's state; empty before the first round.
    rounds_done
        Number of rounds of the federation after which it is; 0 is what the site begins with.
    """

    model: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor] = field(default_factory=dict)
    rounds_done: int = 0


@dataclass(frozen=True)
class PrivateFile:
    """A private state on disk: that after `rounds_done` rounds, which is earlier than the federation's if one did not
    count; with its size and hash, or None if it lies in its site's own house, where nobody else sees it."""

    rounds_done: int
    stored: Stored | None


def private_path(folder: Path, site: str, rounds_done: int) -> Path:
    """Return where a site's private state lies after so many rounds."""
    # A folder of their own: a site may be called anything, `round-1.json` too.
    return folder / "sites" / site / f"private-{rounds_done}.safetensors"


def check_private(private: PrivateState) -> None:
    """Refuse a private state that training has spoiled.

    Raises
    ------
    UpdateError
        Naming the entry that is not finite.
    """
    for name, tensor in private.model.items():
        if not tensor.isfinite().all():
            raise UpdateError(f"{name}, which stays at the site, is not finite. Lower training.learning_rate.")


def save_private(folder: Path, site: str, rounds_done: int, private: PrivateState) -> PrivateFile:
    """Write a site's private state.

    Raises
    ------
    DiskError
        If the disk is full.
    """
    tensors = {f"model/{name}": tensor for name, tensor in private.model.items()}
    for name, tensor in private.optimizer.items():
        # As it lies in memory: putting it into the usual order and back would take as long as writing it.
        if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
            tensors[f"{_LAST}{name}"] = tensor.permute(0, 2, 3, 1)
        else:
            tensors[f"optimizer/{name}"] = tensor
    return PrivateFile(rounds_done, write_tensors(private_path(folder, site, rounds_done), tensors, mode=0o600))


def load_private(folder: Path, site: str, file: PrivateFile) -> PrivateState:
    """Read a site's private state.

    Raises
    ------
    RunError
        If the file is not the one that was written.
    """
    path = private_path(folder, site, file.rounds_done)
    if file.stored is None:
        raise RunError(f"{path}: is not kept here, but in the house of {site}. Ask that site.")
    tensors = read_tensors(path, RunError, most_bytes=file.stored.bytes, stored=file.stored)
    last = {name: tensor.permute(0, 3, 1, 2) for name, tensor in _part(tensors, _LAST).items()}
    return PrivateState(_part(tensors, "model/"), _part(tensors, "optimizer/") | last, file.rounds_done)


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
