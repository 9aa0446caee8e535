"""Every setting of a study, with its default and its allowed range. Read from a file by `polyhead.study_file`."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from polyhead.config_federation import Federation
from polyhead.config_recipes import RECIPES, settings_under
from polyhead.config_training import Augmentation, Privacy, Section, Training

__all__ = [
    "PLACES",
    "Augmentation",
    "Evaluation",
    "Federation",
    "Findings",
    "Model",
    "Pixels",
    "Privacy",
    "StudyConfig",
    "StudySite",
    "Training",
]

# Names become folders of the run directory and text of the report.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]*$", max_length=64)]

# Settings are never converted, so that `true` is not 1; only a path is written as text.
FilePath = Annotated[Path, Field(strict=False)]


class StudySite(Section):
    """One hospital.

    Attributes
    ----------
    name
        Letters, digits, dot, underscore, hyphen, blank; at most 64. Folders and rows of a run are called so.
    manifest
        Its table, relative to the study file; see `polyhead.manifest`.
    findings
        The columns it trains; by default every finding column.
    train_images
        At most so many training images, whole patients; by default all.
    shard
        ``"i/n"``: only the patients of shard i of n, so that one manifest can play several hospitals.
    shuffle_labels
        A control: deal the labels of its training images out among them at random, so that nothing can be learned from
        them. What another site gains beside it all the same is not the labels' doing.
    release_head
        Whether its trained head may become part of one model for all findings; see `polyhead.union`. Only in `polyhead
        run`: hospitals in houses of their own keep their heads.
    """

    name: Name
    manifest: FilePath
    findings: Annotated[list[str], Field(min_length=1)] | None = None
    train_images: Annotated[int, Field(ge=1)] | None = None
    shard: Annotated[str, Field(pattern=r"^[1-9]\d{0,3}/[1-9]\d{0,3}$")] | None = None
    shuffle_labels: bool = False
    release_head: bool = False

    @field_validator("findings")
    @classmethod
    def _no_finding_twice(cls, findings: list[str] | None) -> list[str] | None:
        _refuse_repeats(findings or [])
        return findings

    @field_validator("shard")
    @classmethod
    def _shard_exists(cls, shard: str | None) -> str | None:
        if shard and int(shard.split("/")[0]) > int(shard.split("/")[1]):
            raise ValueError("the first number must not exceed the second")
        return shard


class Findings(Section):
    """Names of findings, and which of them all sites share.

    Attributes
    ----------
    aliases
        ``{spelling: name to compare under}``, on top of the built-in ones.
    common
        The findings of a head that all sites share, as ``conventional`` trains it, in any site's spelling; each site
        must annotate all of them. By default those that every site annotates. Hospitals in houses of their own, which
        do not see each other's findings, must agree on them here.
    """

    aliases: dict[str, Annotated[str, Field(min_length=1)]] = {}  # noqa: RUF012
    common: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = None

    @field_validator("common")
    @classmethod
    def _no_common_finding_twice(cls, common: list[str] | None) -> list[str] | None:
        _refuse_repeats(common or [])
        return common


class Pixels(Section):
    """How an image becomes a grey square.

    Attributes
    ----------
    recipe
        ``standard``, or ``paper``: what the authors did. The other keys each change one of its choices; see
        `polyhead.imaging.recipe.Recipe`.
    aspect
        To a square: ``pad`` with black, ``crop`` the middle, or ``stretch``.
    intensity
        To 8 bits: ``auto``: more than 8 are windowed by quantiles; ``robust``: all are; ``minmax``: from the darkest
        pixel to the brightest.
    equalize
        Grey levels: ``none``, all equally often (``histogram``), or in tiles with limited contrast (``clahe``).
    frames
        Of a file with several: ``refuse`` it, or take the ``first``.
    colour
        Of a colour file: its ``luminance``, or ``refuse`` it.
    """

    recipe: Literal["standard", "paper"] = "standard"
    aspect: Literal["pad", "crop", "stretch"] | None = None
    intensity: Literal["auto", "robust", "minmax"] | None = None
    equalize: Literal["none", "histogram", "clahe"] | None = None
    frames: Literal["refuse", "first"] | None = None
    colour: Literal["luminance", "refuse"] | None = None


class Model(Section):
    """The network.

    Attributes
    ----------
    backbone
        A MONAI network: ``resnet18``, ``resnet50``, ``densenet121``, ``efficientnet-b0``, ...; or ``timm:NAME``.
    width
        Factor on a ResNet's channels.
    image_size
        Side of the square input in pixels.
    weights
        Initial backbone as safetensors; by default random.
    norm
        ``batch``: the network's own BatchNorm layers; ``group``: GroupNorm in their place, with which no image of a
        batch changes what comes of another.
    """

    backbone: str = "resnet18"
    width: Annotated[float, Field(ge=0.0625, le=4)] = 1.0
    image_size: Annotated[int, Field(ge=32, le=2048)] = 224
    weights: FilePath | None = None
    norm: Literal["batch", "group"] = "batch"


class Evaluation(Section):
    """Statistics.

    Attributes
    ----------
    replicates
        Of the bootstrap over patients; no p-value is below 2 / (replicates + 1).
    """

    replicates: Annotated[int, Field(ge=100, le=100_000)] = 1000


class StudyConfig(Section):
    """A whole study.

    Attributes
    ----------
    name
        What its report is called.
    seeds
        Each is a training of its own: initial weights, order of the images, augmentation.
    methods
        In the order of the report; see docs/methods.md.
    recipe
        Settings that hold where the study says nothing: the defaults here, or the ``paper``'s; see
        `polyhead.config_recipes`.
    cache
        Folder for the pixel caches; by default each site's own folder, which must then be writable.
    bad_images
        Largest share of a site's images that may be unreadable; they are left out.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)]
    recipe: Literal["standard", "paper"] = "standard"
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)] = [0]  # noqa: RUF012
    methods: Annotated[list[str], Field(min_length=1)] = ["local", "ffl"]  # noqa: RUF012
    cache: FilePath | None = None
    bad_images: Annotated[float, Field(ge=0, lt=1)] = 0.01
    site: Annotated[list[StudySite], Field(min_length=1)]
    findings: Findings = Findings()
    pixels: Pixels = Pixels()
    model: Model = Model()
    federation: Federation = Federation()
    training: Training = Training()
    privacy: Privacy = Privacy()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="before")
    @classmethod
    def _recipe_beneath(cls, settings: Any) -> Any:
        recipe = settings.get("recipe") if isinstance(settings, dict) else None
        return settings_under(settings, RECIPES[recipe]) if isinstance(recipe, str) and recipe in RECIPES else settings

    @field_validator("seeds", "methods", "site")
    @classmethod
    def _no_repeats(cls, values: list[Any]) -> list[Any]:
        # Folders of a run must differ on file systems that ignore case.
        _refuse_repeats([str(getattr(value, "name", value)).casefold() for value in values])
        return values

    @model_validator(mode="after")
    def _nothing_leaves_beside_the_noise(self) -> Self:
        if self.privacy.noise and self.model.norm == "batch":
            raise ValueError(
                "key 'privacy.noise' does not go with BatchNorm, which mixes the images of patients; set norm = "
                "'group' under [model]"
            )
        if self.privacy.noise and self.federation.weighting == "examples":
            raise ValueError(
                "key 'privacy.noise' does not go with weighting = 'examples', for which sites would send how many "
                "images they have; set weighting = 'equal' under [federation]"
            )
        return self


PLACES: Mapping[str, Any] = MappingProxyType({"site": True, "cache": True, "model": {"weights"}})
"""The settings that are the sites' own, or paths, as pydantic's ``exclude``: what is kept, or agreed on, has none."""


def _refuse_repeats(names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} stands twice")
