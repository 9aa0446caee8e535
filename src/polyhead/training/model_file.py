"""A site's trained model on disk: ``backbone.safetensors``, ``head.safetensors``, ``model.json``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from polyhead.atomic import write_atomically
from polyhead.config import Model
from polyhead.errors import StudyError, WeightsError
from polyhead.imaging.pixels import PATH_VERSION
from polyhead.imaging.recipe import Recipe
from polyhead.limited_file import read_limited
from polyhead.training.backbone import build_backbone, feature_count
from polyhead.training.model import SiteModel, load_state, model_state
from polyhead.training.tensor_file import MOST_HEADER_BYTES, Stored, read_tensors, write_tensors
from polyhead.training.weights import misfits, state_bytes

__all__ = ["load_model", "model_files", "save_model"]

_MOST_DESCRIPTION_BYTES = 2**20
_LONGEST_LIST = 1000
_REMEDY = "Copy the model's folder again, whole, from the run that wrote it."


def model_files(folder: Path) -> list[Path]:
    """Return the files that `save_model` writes."""
    return [folder / name for name in ("backbone.safetensors", "head.safetensors", "model.json")]


def save_model(model: SiteModel, settings: Model, recipe: Recipe, about: Mapping[str, Any], folder: Path) -> None:
    """Write a model; ``model.json`` comes last, so a folder that has it is complete.

    Parameters
    ----------
    settings
        What the backbone was built from.
    recipe
        How the images that it was trained on became squares; whoever uses the model must make them so, too.
    about
        Whatever else ``model.json`` should say: method, seed, site, thresholds.
    """
    state = model_state(model)
    files = {}
    for part in ("backbone", "head"):
        prefix = f"{part}."
        tensors = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        files[part] = write_tensors(folder / f"{part}.safetensors", tensors)
    description = {
        **about,
        "findings": list(model.findings),
        "files": {part: asdict(stored) for part, stored in files.items()},
        "model": settings.model_dump(mode="json", exclude={"weights"}),
        "preprocessing": {"path": PATH_VERSION, "recipe": asdict(recipe), "input": "value / 63.75 - 2"},
    }
    write_atomically(folder / "model.json", json.dumps(description, indent=2) + "\n")


def load_model(folder: Path, findings: Sequence[str] | None = None) -> SiteModel:
    """Read a model; on the CPU it predicts what it did where it was trained, bit for bit.

    Parameters
    ----------
    findings
        The order in which logits are wanted; by default that of training.

    Raises
    ------
    WeightsError
        If a file is missing, broken or does not fit the others, or `findings` is not the set that the model was trained
        for.
    """
    description = _read_description(folder / "model.json")
    trained, settings = _findings_and_model(description, folder / "model.json")
    files = _files(description, folder / "model.json")
    wanted = list(findings) if findings is not None else trained
    if sorted(wanted) != sorted(trained):
        raise WeightsError(f"{folder}: was trained for {_named(trained)}, not for {_named(wanted)}.")
    # Unfilled at first: what model.json asks for may be far larger than what lies beside it.
    backbone = _read_part(folder / "backbone.safetensors", _outline(settings, folder), files["backbone"])
    network = build_backbone(settings, seed=0)
    with torch.device("meta"):
        unfilled = nn.Linear(feature_count(network), len(wanted))
    head = _read_part(folder / "head.safetensors", unfilled.state_dict(), files["head"])
    model = SiteModel(network, unfilled.to_empty(device="cpu"), wanted)
    places = {finding: place for place, finding in enumerate(trained)}
    order = [places[finding] for finding in wanted]
    state = {f"backbone.{name}": tensor for name, tensor in backbone.items()}
    load_state(model, state | {f"head.{name}": tensor[order] for name, tensor in head.items()})
    # As in training: the same weights give other last bits in another format.
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _named(findings: Sequence[str]) -> str:
    text = ", ".join(findings)
    return text if len(text) <= _LONGEST_LIST else f"{text[:_LONGEST_LIST]}…"


def _read_description(file: Path) -> dict[str, Any]:
    raw = read_limited(file, WeightsError, _MOST_DESCRIPTION_BYTES)
    try:
        description = json.loads(raw)
    except (ValueError, RecursionError) as problem:
        raise WeightsError(f"{file}: is not JSON, or cut off ({problem}). {_REMEDY}") from problem
    if not isinstance(description, dict):
        raise WeightsError(f"{file}: is not a JSON object. {_REMEDY}")
    return description


def _findings_and_model(description: Mapping[str, Any], file: Path) -> tuple[list[str], Model]:
    findings = description.get("findings")
    if not isinstance(findings, list) or not findings or not all(isinstance(name, str) for name in findings):
        raise WeightsError(f"{file}: key 'findings' is not a list of names. {_REMEDY}")
    if len(set(findings)) < len(findings):
        raise WeightsError(f"{file}: key 'findings' names one twice. {_REMEDY}")
    try:
        return findings, Model.model_validate(description.get("model"))
    except ValueError as problem:
        first = " ".join(str(problem).splitlines()[1:3])[:300]
        raise WeightsError(f"{file}: key 'model' is not a model of a study ({first}). {_REMEDY}") from problem


def _files(description: Mapping[str, Any], file: Path) -> dict[str, Stored]:
    try:
        return {part: Stored(**description["files"][part]) for part in ("backbone", "head")}
    except (KeyError, TypeError) as problem:
        raise WeightsError(f"{file}: key 'files' does not say what was written beside it. {_REMEDY}") from problem


def _outline(settings: Model, folder: Path) -> Mapping[str, torch.Tensor]:
    """Return the state of a backbone without its values; timm's networks do not all stand that, so theirs has them."""
    try:
        with torch.device("cpu" if settings.backbone.startswith("timm:") else "meta"):
            return build_backbone(settings, seed=0).state_dict()
    except StudyError as problem:
        raise WeightsError(f"{folder / 'model.json'}: {problem} {_REMEDY}") from problem


def _read_part(file: Path, wanted: Mapping[str, torch.Tensor], stored: Stored) -> dict[str, torch.Tensor]:
    most_bytes = state_bytes(wanted) + MOST_HEADER_BYTES
    tensors = read_tensors(file, WeightsError, most_bytes=most_bytes, stored=stored)
    if problems := misfits(tensors, wanted):
        raise WeightsError(f"{file}: does not fit model.json. {_REMEDY}\n" + "\n".join(problems))
    return tensors
