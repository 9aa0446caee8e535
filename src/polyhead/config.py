"""The study file: every setting of a study, with its default and its allowed range.

Paths are relative to the file. An unknown key is an error that names the nearest known one.
"""

import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from polyhead.errors import StudyError
from polyhead.findings import closest

__all__ = [
    "Augmentation",
    "Evaluation",
    "Federation",
    "Findings",
    "Model",
    "Pixels",
    "StudyConfig",
    "StudySite",
    "Training",
    "load_study",
    "parse_study",
]

# Names become folders of the run directory and text of the report.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]*$", max_length=64)]

# Settings are never converted, so that `true` is not 1; only a path is written as text.
FilePath = Annotated[Path, Field(strict=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class StudySite(_Section):
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
    """

    name: Name
    manifest: FilePath
    findings: Annotated[list[str], Field(min_length=1)] | None = None
    train_images: Annotated[int, Field(ge=1)] | None = None
    shard: Annotated[str, Field(pattern=r"^[1-9]\d{0,3}/[1-9]\d{0,3}$")] | None = None

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


class Findings(_Section):
    """Names of findings: ``aliases = {spelling: name to compare under}``, on top of the built-in ones."""

    aliases: dict[str, Annotated[str, Field(min_length=1)]] = {}


class Pixels(_Section):
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


class Model(_Section):
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
    """

    backbone: str = "resnet18"
    width: Annotated[float, Field(ge=0.0625, le=4)] = 1.0
    image_size: Annotated[int, Field(ge=32, le=2048)] = 224
    weights: FilePath | None = None


class Federation(_Section):
    """Who averages what, how often.

    Attributes
    ----------
    rounds, local_steps
        Number of rounds, and of optimizer steps a site takes in each.
    weighting
        ``equal``: every site counts the same; ``examples``: in proportion to its training images.
    batch_norm
        ``shared``: BatchNorm is averaged with the rest; ``private``: weights and statistics stay at the site.
    finetune, finetune_steps
        After the last round each site trains on alone: nothing, its ``head``, or the ``full`` network, for so many
        steps. Every method gets them, so that all are compared at equal optimizer steps.
    """

    rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 80
    local_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    weighting: Literal["equal", "examples"] = "equal"
    batch_norm: Literal["shared", "private"] = "shared"
    finetune: Literal["none", "head", "full"] = "none"
    finetune_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 100


class Augmentation(_Section):
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


class Training(_Section):
    """Optimisation at a site: AdamW with a cosine schedule over the study's total steps.

    Attributes
    ----------
    optimizer_state
        ``keep``: the site's private optimizer state lives through all rounds; ``reset``: made anew each round.
    device
        ``auto`` is CUDA where there is one, else the CPU; or a PyTorch device such as ``cpu`` or ``cuda:1``.
    """

    batch_size: Annotated[int, Field(ge=2, le=4096)] = 32
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    optimizer_state: Literal["keep", "reset"] = "keep"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:(0|[1-9]\d?))?|mps)$")] = "auto"
    augment: Augmentation = Augmentation()


class Evaluation(_Section):
    """Statistics: number of bootstrap replicates over patients."""

    replicates: Annotated[int, Field(ge=100, le=100_000)] = 1000


class StudyConfig(_Section):
    """A whole study.

    Attributes
    ----------
    cache
        Folder for the pixel caches; by default each site's own folder, which must then be writable.
    bad_images
        Largest share of a site's images that may be unreadable; they are left out.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)]
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)] = [0]
    methods: Annotated[list[str], Field(min_length=1)] = ["local", "ffl"]
    cache: FilePath | None = None
    bad_images: Annotated[float, Field(ge=0, lt=1)] = 0.01
    site: Annotated[list[StudySite], Field(min_length=1)]
    findings: Findings = Findings()
    pixels: Pixels = Pixels()
    model: Model = Model()
    federation: Federation = Federation()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    @field_validator("seeds", "methods", "site")
    @classmethod
    def _no_repeats(cls, values: list[Any]) -> list[Any]:
        # Folders of a run must differ on file systems that ignore case.
        _refuse_repeats([str(getattr(value, "name", value)).casefold() for value in values])
        return values


def _refuse_repeats(names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} stands twice")


def load_study(path: Path) -> StudyConfig:
    """Read a study file.

    Raises
    ------
    StudyError
        Naming the file, the key, what was found and what is allowed.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as problem:
        raise StudyError(f"{path}: cannot be read ({problem.strerror}).") from problem
    except UnicodeDecodeError as problem:
        raise StudyError(f"{path}: is not UTF-8 text ({problem.reason} at byte {problem.start}).") from problem
    return parse_study(text, path.parent, str(path))


def parse_study(text: str, folder: Path, source: str) -> StudyConfig:
    """Parse a study's TOML text; paths in it are relative to `folder`, errors name `source`."""
    try:
        study = StudyConfig.model_validate(tomllib.loads(text))
    except ValidationError as problem:
        raise StudyError("\n".join(f"{source}: {_explain(error)}" for error in problem.errors())) from problem
    except (ValueError, RecursionError) as problem:
        raise StudyError(f"{source}: not valid TOML: {problem}.") from problem
    return _with_absolute_paths(study, folder.absolute())


def _with_absolute_paths(study: StudyConfig, folder: Path) -> StudyConfig:
    sites = [site.model_copy(update={"manifest": folder / site.manifest}) for site in study.site]
    weights = study.model.weights and folder / study.model.weights
    return study.model_copy(
        update={
            "site": sites,
            "cache": study.cache and folder / study.cache,
            "model": study.model.model_copy(update={"weights": weights}),
        }
    )


def _explain(error: Any) -> str:
    """Turn one of pydantic's error records into a line for a person."""
    location = error["loc"]
    key = ".".join(f"{part + 1}" if isinstance(part, int) else str(part) for part in location)
    if error["type"] == "extra_forbidden":
        section = _section_at(location[:-1])
        return f"unknown key {key!r}; {closest(str(location[-1]), section.model_fields)}."
    if error["type"] == "missing":
        return f"key {key!r} is missing."
    return f"key {key!r}: found {error['input']!r}; {error['msg'].removeprefix('Value error, ')}."


def _section_at(location: tuple[str | int, ...]) -> type[BaseModel]:
    section: type[BaseModel] = StudyConfig
    for part in location:
        if isinstance(part, str):
            section = _model_in(section.model_fields[part].annotation)
    return section


def _model_in(annotation: Any) -> type[BaseModel]:
    candidates = (annotation, *get_args(annotation))
    return next(one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel))
