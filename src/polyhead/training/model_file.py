"""A site's trained model on disk: ``backbone.safetensors``, ``head.safetensors``, ``model.json``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from polyhead.atomic import replacing, write_atomically
from polyhead.config import Model
from polyhead.errors import WeightsError
from polyhead.imaging.pixels import PATH_VERSION
from polyhead.imaging.recipe import Recipe
from polyhead.training.backbone import build_backbone, feature_count
from polyhead.training.model import SiteModel, build_head, load_state, model_state

__all__ = ["load_model", "save_model", "write_tensors"]


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
    for part in ("backbone", "head"):
        prefix = f"{part}."
        tensors = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        write_tensors(folder / f"{part}.safetensors", tensors)
    description = {
        **about,
        "findings": list(model.findings),
        "model": settings.model_dump(mode="json", exclude={"weights"}),
        "preprocessing": {"path": PATH_VERSION, "recipe": asdict(recipe), "input": "value / 63.75 - 2"},
    }
    write_atomically(folder / "model.json", json.dumps(description, indent=2) + "\n")


def load_model(folder: Path, findings: Sequence[str] | None = None) -> SiteModel:
    """Read a model.

    Parameters
    ----------
    findings
        The order in which logits are wanted; by default that of training.

    Raises
    ------
    WeightsError
        If a file is missing or broken, or `findings` is not the set that the model was trained for.
    """
    try:
        description = json.loads((folder / "model.json").read_text())
        parts = {part: load_file(folder / f"{part}.safetensors") for part in ("backbone", "head")}
    except (OSError, ValueError, SafetensorError) as problem:
        raise WeightsError(f"{folder}: is no complete model ({problem}).") from problem
    trained: list[str] = description["findings"]
    wanted = list(findings) if findings is not None else trained
    if sorted(wanted) != sorted(trained):
        raise WeightsError(f"{folder}: was trained for {', '.join(trained)}, not for {', '.join(wanted)}.")
    backbone = build_backbone(Model(**description["model"]), seed=0)
    model = SiteModel(backbone, build_head(feature_count(backbone), wanted), wanted)
    order = [trained.index(finding) for finding in wanted]
    head = {name: tensor[order] for name, tensor in parts["head"].items()}
    state = {f"backbone.{name}": tensor for name, tensor in parts["backbone"].items()}
    load_state(model, state | {f"head.{name}": tensor for name, tensor in head.items()})
    return model


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any] | None = None) -> None:
    """Write tensors as safetensors, atomically; `about` is kept in the header, under ``polyhead``, as JSON."""
    with replacing(path) as temporary:
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, temporary, {"polyhead": json.dumps(about or {})})
