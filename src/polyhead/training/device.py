"""Where tensors are computed."""

from typing import Any

import torch

from polyhead.errors import StudyError

__all__ = ["Device", "describe_device", "resolve_device", "threads_in_use", "use_threads"]

Device = torch.device


def resolve_device(name: str) -> Device:
    """Turn the study's ``training.device`` into a device that exists.

    Raises
    ------
    StudyError
        If a device is asked for by name that this machine does not have; ``auto`` never fails.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present[device.type]:
        raise StudyError(
            f"key 'training.device': this machine has no {name!r} ({torch.cuda.device_count()} CUDA devices). "
            "Use 'auto' or 'cpu', or check the driver and that PyTorch is built for the device."
        )
    return device


def describe_device(device: Device) -> dict[str, Any]:
    """Return the device's name and the number of CPU threads, for the record of a run."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, "threads": torch.get_num_threads()}


def threads_in_use() -> int:
    """Return how many CPU threads one computation of this process takes."""
    return torch.get_num_threads()


def use_threads(count: int) -> None:
    """Let computations of this process take so many CPU threads, at least 1; the last bits of results depend on it."""
    torch.set_num_threads(count)
