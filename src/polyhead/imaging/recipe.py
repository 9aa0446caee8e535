"""How an image becomes a grey square of 8 bits: the choices that a study makes."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

__all__ = ["RECIPES", "STANDARD", "Recipe"]


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

    aspect: Literal["pad", "crop", "stretch"] = "pad"
    intensity: Literal["auto", "robust", "minmax"] = "auto"
    equalize: Literal["none", "histogram", "clahe"] = "none"
    frames: Literal["refuse", "first"] = "refuse"
    colour: Literal["luminance", "refuse"] = "luminance"


STANDARD = Recipe()

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "standard": STANDARD,
        # What the authors of the paper did, from their code: squashed, minimum to maximum, equalised.
        "paper": Recipe(aspect="stretch", intensity="minmax", equalize="histogram"),
    }
)
"""Presets by name."""
