"""What a check found: tables for a person are drawn from it, JSON for a machine, and what may be shared."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from polyhead.check.matches import Matches
from polyhead.problems import Problem, Severity

__all__ = ["CheckResult", "DiskUse", "Estimate", "ManifestCheck", "SiteCheck", "count_problems"]


@dataclass(frozen=True)
class DiskUse:
    """Bytes that something needs on disk, in which folder, how many are free there, and whether it is there already."""

    folder: Path
    needed: int
    free: int
    ready: bool = False


@dataclass(frozen=True)
class ManifestCheck:
    """One manifest file and the images it names.

    Attributes
    ----------
    problems
        Of the table as a whole and of the images.
    images, patients
        How many it names in usable rows; None if it could not be read as a manifest.
    empty_splits
        Splits without any usable row; sites that use the file are not told again.
    images_read
        Whether pixels were looked at.
    policies
        What was done to images, such as ``colour``, and to how many.
    cache
        The pixel cache; None if it could not be read as a manifest.
    """

    path: Path
    problems: tuple[Problem, ...]
    images: int | None = None
    patients: int | None = None
    empty_splits: tuple[str, ...] = ()
    images_read: bool = False
    policies: Mapping[str, int] = field(default_factory=dict)
    cache: DiskUse | None = None


@dataclass(frozen=True)
class SiteCheck:
    """One site: its manifest as narrowed by a study, without images that cannot be read.

    Attributes
    ----------
    manifest
        Path of its file; what was found there is in the `ManifestCheck` of that path.
    problems
        Of this site's labels and splits.
    counts
        A row a split and finding: ``split finding positives negatives blank images patients pos_weight``. The last is
        negatives / positives of the training split, the factor on the loss of a positive; null elsewhere and where one
        class is absent.
    """

    name: str
    manifest: Path
    problems: tuple[Problem, ...]
    findings: tuple[str, ...]
    counts: pl.DataFrame


@dataclass(frozen=True)
class Estimate:
    """What training will take on this machine. An estimate: other programs, and other images, change it.

    Attributes
    ----------
    model
        In words, with image size and batch size.
    device
        Where the steps were timed.
    step_seconds
        Of one optimizer step of one site, measured on noise; None if none was timed.
    steps
        Optimizer steps of all sites, methods and seeds together, fine-tuning included; 1000 where there is no study.
    predicted_images
        Images that are predicted in validation and test, over all methods and seeds.
    train_seconds, predict_seconds
        `steps` steps, and those predictions, at a third of a step's time an image: a forward pass without a backward.
    run
        The run directory at its largest, on the disk of the current folder; None where there is no study.
    """

    model: str
    device: str
    step_seconds: float | None
    steps: int
    predicted_images: int
    train_seconds: float | None
    predict_seconds: float | None
    run: DiskUse | None


@dataclass(frozen=True)
class CheckResult:
    """Everything.

    Attributes
    ----------
    study
        The study file, or None if sites were checked by themselves.
    problems
        Of the study as a whole.
    manifests
        Each distinct file once.
    sites
        In the order asked for; only those whose manifest could be read.
    matches
        None if the names contradict each other; `problems` says where.
    """

    study: Path | None
    problems: tuple[Problem, ...]
    manifests: tuple[ManifestCheck, ...]
    sites: tuple[SiteCheck, ...]
    matches: Matches | None
    estimate: Estimate | None

    def all_problems(self) -> tuple[Problem, ...]:
        """Return the problems of study, manifests and sites."""
        of_manifests = [problem for manifest in self.manifests for problem in manifest.problems]
        of_sites = [problem for site in self.sites for problem in site.problems]
        return (*self.problems, *of_manifests, *of_sites)

    @property
    def sound(self) -> bool:
        """Whether there is no error; warnings and notes do not count."""
        return count_problems(self.all_problems(), "error") == 0


def count_problems(problems: Iterable[Problem], severity: Severity) -> int:
    """Return how many labels, images, patients or settings have a problem of some severity."""
    return sum(problem.count for problem in problems if problem.severity == severity)
