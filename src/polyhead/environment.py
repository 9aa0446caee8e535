"""What a run was computed with: ``environment.json``."""

import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from polyhead.atomic import write_atomically
from polyhead.config import StudyConfig
from polyhead.training.device import Device, describe_device

__all__ = ["write_environment"]

_PACKAGES = ("polyhead", "torch", "monai", "numpy", "polars", "pillow", "scikit-learn", "safetensors")


def write_environment(path: Path, study: StudyConfig, device: Device) -> None:
    """Write versions, device, threads, seeds and the commit of the source; nothing that names a person or machine."""
    environment = {
        "versions": {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}},
        "system": f"{platform.system()} {platform.machine()}",
        **describe_device(device),
        "seeds": study.seeds,
        "commit": _commit(),
    }
    write_atomically(path, json.dumps(environment, indent=2) + "\n")


def _commit() -> str | None:
    """Return the commit of the checkout that this code lies in, or None where it was installed from a package."""
    tracked = ["git", "ls-files", "--error-unmatch", __file__]
    describe = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    folder = Path(__file__).parent
    try:
        for command in (tracked, describe):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
