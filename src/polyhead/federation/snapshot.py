"""The state of a federation on disk, so that an interrupted run goes on where it was.

``SITE/private-R.safetensors`` in each site's folder, then ``shared.safetensors``, which names the round R. Each file is
renamed into place, the shared one last: a snapshot is whole or it is not there.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from polyhead.errors import RunError
from polyhead.federation.site import PrivateState
from polyhead.training.model_file import write_tensors

__all__ = ["Snapshot", "load_snapshot", "save_snapshot"]


@dataclass(frozen=True)
class Snapshot:
    """State between two rounds.

    Attributes
    ----------
    rounds_done
        Number of rounds that went into it.
    shared
        The shared entries of the sites' models.
    private
        Each site's private state.
    """

    rounds_done: int
    shared: Mapping[str, torch.Tensor]
    private: Mapping[str, PrivateState]


def save_snapshot(snapshot: Snapshot, folder: Path) -> None:
    """Write a snapshot and remove the one before."""
    for site, private in snapshot.private.items():
        write_tensors(_private_file(folder, site, snapshot.rounds_done), _flatten(private))
    write_tensors(folder / "shared.safetensors", snapshot.shared, {"rounds_done": snapshot.rounds_done})
    for site in snapshot.private:
        current = _private_file(folder, site, snapshot.rounds_done)
        for file in current.parent.glob("private-*.safetensors"):
            if file != current:
                file.unlink()


def load_snapshot(folder: Path, sites: Sequence[str]) -> Snapshot | None:
    """Return the snapshot of a folder, or None if there is none.

    Raises
    ------
    RunError
        If it is broken, with the folder to remove.
    """
    if not (folder / "shared.safetensors").exists():
        return None
    try:
        shared, metadata = _read(folder / "shared.safetensors")
        rounds_done = int(json.loads(metadata["polyhead"])["rounds_done"])
        private = {site: _unflatten(_read(_private_file(folder, site, rounds_done))[0]) for site in sites}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as problem:
        raise RunError(
            f"{folder}: the snapshot is broken ({problem}). Remove this folder to begin it anew."
        ) from problem
    return Snapshot(rounds_done, shared, private)


def _private_file(folder: Path, site: str, rounds_done: int) -> Path:
    return folder / site / f"private-{rounds_done}.safetensors"


def _flatten(private: PrivateState) -> dict[str, torch.Tensor]:
    model = {f"model/{name}": tensor for name, tensor in private.model.items()}
    return model | {f"optimizer/{name}": tensor for name, tensor in private.optimizer.items()}


def _unflatten(tensors: Mapping[str, torch.Tensor]) -> PrivateState:
    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    return PrivateState(part("model/"), part("optimizer/"))


def _read(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(file, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
