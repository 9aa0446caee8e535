"""Recipes: settings of a study under one name, beneath everything that the study says itself."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["RECIPES", "settings_under"]

RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "standard": {},
        # What the authors of the paper did, from their code; what of it is left out, and why: docs/methods.md.
        "paper": {
            "pixels": {"recipe": "paper"},
            "model": {"backbone": "resnet50", "image_size": 512},
            "federation": {"local_steps": 1, "weighting": "equal", "batch_norm": "shared"},
            "training": {
                "batch_size": 8,
                "learning_rate": 5e-5,
                "weight_decay": 0.0,
                "schedule": "constant",
                "optimizer_state": "reset",
                "augment": {"rotation": 10.0, "shift": 0.0, "scale": 0.0, "contrast": 0.0, "noise": 0.0, "flip": 0.5},
            },
        },
    }
)
"""Settings of a study by the name of their recipe."""


def settings_under(settings: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's settings with those of a recipe where the study says nothing; nothing given is changed."""
    merged = dict(settings)
    for key, value in recipe.items():
        said = settings.get(key, {} if isinstance(value, Mapping) else value)
        both = isinstance(value, Mapping) and isinstance(said, Mapping)
        merged[key] = settings_under(said, value) if both else said
    return merged
