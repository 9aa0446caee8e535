"""Every setting of a study, with its default and its allowed range. Read from a file by `polyhead.study_file`."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from polyhead.config_recipes import RECIPES, settings_under
from polyhead.config_training import Augmentation, Privacy, Section, Training

__all__ = [
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
    manifest
        Its table; see `polyhead.manifest`.
    findings
        The columns it annotates; by default every finding column.
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
        ``standard``, or ``paper``: what the authors did.
    aspect, intensity, equalize, frames, colour
        Each changes one of the recipe's choices; see `polyhead.imaging.recipe.Recipe`.
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


class Federation(Section):
    """Who averages what, how often.

    Attributes
    ----------
    rounds, local_steps
        Number of rounds, and of optimizer steps a site takes in each.
    weighting
        ``equal``: every site counts the same; ``examples``: in proportion to its training images.
    transfer
        Precision in which what is shared travels, both ways: ``full``; or ``half``: weights rounded to float16, half
        the bytes.
    batch_norm
        ``shared``: BatchNorm is averaged with the rest; ``private``: weights and statistics stay at the site.
    finetune, finetune_steps
        After the last round each site trains on alone: nothing, its ``head``, or the ``full`` network, for so many
        steps. Every method gets them, so that all are compared at equal optimizer steps.
    min_sites
        A round counts only if the updates of so many sites are accepted; by default half of the sites that train,
        rounded up. Raise it where a round without some hospital would be misleading.
    round_attempts
        How often a round with fewer sites is tried in all before the run stops.
    aggregation
        ``mean``, weighted; ``median`` of each parameter over the sites, or ``trimmed_mean``: without its extreme
        values. The last two keep one faulty site from moving the backbone, and learn less from a site unlike the rest.
    trim
        ``trimmed_mean`` only: share of the sites left out at each end of every parameter.
    distance_rule
        What happens to an update too far from the current backbone: ``reject`` leaves the site out of the round,
        ``clip`` shortens its step to the limit, ``off`` accepts any finite update.
    distance_factor
        The limit, in medians of the round's distances. With one or two sites there is no limit.
    validate_every
        Every so many rounds each site measures the AUROC on its validation images; 0 is never.
    select
        Which state becomes a site's model: the ``last``, or the ``best`` by the site's own validation AUROC, which is
        worth it where training runs into overfitting. ``best`` needs `validate_every`.
    proximal
        Of ``fedprox``: strength of the pull back to where a round began, its authors' mu.
    server_momentum
        Of ``fedavgm`` and ``fedadam``: how much of its direction the server keeps from round to round.
    server_learning_rate
        Of ``fedavgm``: 1 goes as far as the mean, and by a momentum of 0.9 up to ten times as far.
    server_adam_learning_rate, server_adam_epsilon
        Of ``fedadam``: about how far a weight moves in a round; and the move below which it moves less, its authors'
        tau.
    """

    rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 40
    local_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    weighting: Literal["equal", "examples"] = "equal"
    transfer: Literal["full", "half"] = "full"
    batch_norm: Literal["shared", "private"] = "shared"
    finetune: Literal["none", "head", "full"] = "none"
    finetune_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    min_sites: Annotated[int, Field(ge=1)] | None = None
    round_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    aggregation: Literal["mean", "median", "trimmed_mean"] = "mean"
    trim: Annotated[float, Field(ge=0, lt=0.5)] = 0.2
    distance_rule: Literal["reject", "clip", "off"] = "reject"
    distance_factor: Annotated[float, Field(gt=1)] = 10.0
    validate_every: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    select: Literal["last", "best"] = "last"
    proximal: Annotated[float, Field(ge=0, le=1e6)] = 0.01
    server_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    server_learning_rate: Annotated[float, Field(gt=0)] = 0.1
    server_adam_learning_rate: Annotated[float, Field(gt=0)] = 0.003
    server_adam_epsilon: Annotated[float, Field(ge=1e-12, le=1e6)] = 1e-3

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        if self.aggregation != "mean" and self.weighting == "examples":
            raise ValueError(
                f"aggregation = {self.aggregation!r} counts every site the same, so it does not go with weighting = "
                "'examples'; set weighting = 'equal', or aggregation = 'mean'"
            )
        if self.select == "best" and self.validate_every == 0:
            raise ValueError(
                "select = 'best' has nothing to choose by while validate_every = 0; set validate_every to a number of "
                "rounds, such as 10, or select = 'last'"
            )
        return self


class Evaluation(Section):
    """Statistics: number of bootstrap replicates over patients."""

    replicates: Annotated[int, Field(ge=100, le=100_000)] = 1000


class StudyConfig(Section):
    """A whole study.

    Attributes
    ----------
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


def _refuse_repeats(names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} stands twice")
