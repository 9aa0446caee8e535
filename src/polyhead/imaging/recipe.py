"""How an image becomes a grey square of 8 bits: the choices that a study makes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

__all__ = [
    "RECIPES",
    "STANDARD",
    "Aspect",
    "Colour",
    "Equalize",
    "Frames",
    "Intensity",
    "Preset",
    "Recipe",
    "make_recipe",
]

Aspect = Literal["pad", "crop", "stretch"]
Intensity = Literal["auto", "robust", "minmax"]
Equalize = Literal["none", "histogram", "clahe"]
Frames = Literal["refuse", "first"]
Colour = Literal["luminance", "refuse"]
Preset = Literal["standard", "paper"]


@dataclass(frozen=True)
class Recipe:
    """The choices.

    Attributes
    ----------
    aspect
        ``pad``: the whole image, black added to the shorter side; ``crop``: the middle, filling the square;
        ``stretch``: the whole image, squashed.
    intensity
        ``auto``: 8 bits stay, more are windowed from their 0.5 % to their 99.5 % quantile; ``robust``: every image is
        windowed so; ``minmax``: from darkest to brightest pixel.
    equalize
        ``none``; ``histogram``: every grey level equally often; ``clahe``: that, in 8 x 8 tiles with limited contrast.
    frames
        Of a file with several: ``refuse`` it, or take the ``first``.
    colour
        ``luminance``: 0.299 R + 0.587 G + 0.114 B (ITU-R 601), or ``refuse`` the file.
    """

    aspect: Aspect = "pad"
    intensity: Intensity = "auto"
    equalize: Equalize = "none"
    frames: Frames = "refuse"
    colour: Colour = "luminance"


STANDARD = Recipe()

RECIPES: Mapping[Preset, Recipe] = MappingProxyType(
    {
        "standard": STANDARD,
        # What the authors of the paper did, from their code: squashed, minimum to maximum, equalised.
        "paper": Recipe(aspect="stretch", intensity="minmax", equalize="histogram"),
    }
)
"""Presets by name."""


def make_recipe(preset: Preset, changes: Mapping[str, Any]) -> Recipe:
    """Return a preset with some of its choices changed; a change to None leaves the preset's choice."""
    return replace(RECIPES[preset], **{choice: value for choice, value in changes.items() if value is not None})
