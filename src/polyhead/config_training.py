"""How a site trains: the settings of augmentation, optimiser and noise, which `polyhead.config` puts into a study."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Augmentation", "Privacy", "Section", "Training"]


class Section(BaseModel):
    """A table of a study's file: strict, frozen, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Augmentation(Section):
    """Random changes of a training image; each number is the largest, drawn uniformly in both directions.

    Attributes
    ----------
    rotation
        Degrees.
    shift
        Share of the image's side.
    scale
        Share of the size: 0.1 is 0.9 to 1.1.
    contrast
        Share of the contrast, about the image's mean.
    noise
        Standard deviation of Gaussian noise, in units of the image's normalised intensity.
    flip
        Probability of a horizontal flip. Off by default: it moves the heart and swaps left and right findings.
    """

    rotation: Annotated[float, Field(ge=0, le=180)] = 7.0
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.08
    contrast: Annotated[float, Field(ge=0, le=1)] = 0.15
    noise: Annotated[float, Field(ge=0, le=1)] = 0.02
    flip: Annotated[float, Field(ge=0, le=1)] = 0.0


class Training(Section):
    """Optimisation at a site with AdamW.

    Attributes
    ----------
    batch_size
        Images of an optimizer step.
    learning_rate
        The highest, with which the first step is taken.
    weight_decay
        AdamW's; 0 makes it Adam.
    schedule
        Of the learning rate: half a ``cosine``, down to 0 over all steps of the rounds; or ``constant``.
    optimizer_state
        ``keep``: the site's private optimizer state lives through all rounds; ``reset``: made anew each round.
    device
        ``auto`` is CUDA where there is one, else the CPU; or a PyTorch device such as ``cpu`` or ``cuda:1``.
    """

    batch_size: Annotated[int, Field(ge=2, le=4096)] = 32
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    schedule: Literal["cosine", "constant"] = "cosine"
    optimizer_state: Literal["keep", "reset"] = "keep"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:(0|[1-9]\d?))?|mps)$")] = "auto"
    augment: Augmentation = Augmentation()


class Privacy(Section):
    """Differential privacy of what a site sends while it trains; see docs/privacy.md.

    Attributes
    ----------
    noise
        Standard deviation of the noise in units of `clip`; 0: no privacy of this kind.
    clip
        Largest Euclidean norm of one patient's gradient.
    delta
        The probability for which the bound epsilon need not hold; far below 1 / patients.
    """

    noise: Annotated[float, Field(ge=0, le=1000)] = 0.0
    clip: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    delta: Annotated[float, Field(gt=0, lt=0.1)] = 1e-5
