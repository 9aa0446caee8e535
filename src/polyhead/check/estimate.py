"""What training will take here: time, measured on a few real steps, and disk, from the model's real size."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from polyhead.atomic import free_bytes
from polyhead.check.images import disk_of
from polyhead.check.result import DiskUse, Estimate, ManifestCheck, SiteCheck
from polyhead.config import Federation, Model, StudyConfig, Training
from polyhead.problems import Problem

__all__ = ["disk_problems", "estimate_sites", "estimate_study"]

_STEPS_WITHOUT_STUDY = 1000
# A row of a predictions file: image and patient compress well, a label and a score hardly.
_BYTES_A_PREDICTION = 20
# AdamW keeps two numbers for each weight.
_OPTIMIZER = 2


def estimate_sites(sites: Sequence[SiteCheck], size: int, *, timed: bool) -> Estimate | None:
    """Time 1000 steps of the default model at some image size; None if not timed."""
    if not timed or not sites:
        return None
    model, training = Model(image_size=size), Training()
    # Imported here, so that tables are checked without PyTorch.
    from polyhead.training.timing import time_steps

    time = time_steps(model, training, max(len(site.findings) for site in sites))
    total = _STEPS_WITHOUT_STUDY * time.seconds
    return Estimate(_words(model, training), time.device, time.seconds, _STEPS_WITHOUT_STUDY, 0, total, None, None)


def estimate_study(study: StudyConfig, sites: Sequence[SiteCheck], *, timed: bool, run: Path | None = None) -> Estimate:
    """Estimate a whole study.

    Parameters
    ----------
    run
        Where its results are to lie; by default on the disk of the current folder.

    Raises
    ------
    StudyError
        If its model cannot be built or timed.
    """
    from polyhead.federation.methods import METHODS
    from polyhead.federation.snapshot import KEPT
    from polyhead.training.private_gradient import Mechanism
    from polyhead.training.timing import model_bytes, time_steps

    findings = max((len(site.findings) for site in sites), default=1)
    backbone, head = model_bytes(study.model, findings)
    runs = len(study.methods) * len(study.seeds)
    predicted = runs * sum(_images(site, "val") + _images(site, "test") for site in sites)
    steps = runs * _steps_a_site(study.federation) * sum(_images(site, "train") >= 2 for site in sites)
    predictions = runs * sum(
        (_images(site, "val") + _images(site, "test")) * len(site.findings) * _BYTES_A_PREDICTION for site in sites
    )
    # Where heads are released, they are one model more.
    models = runs * (len(sites) + any(site.release_head for site in study.site)) * (backbone + head)
    # A snapshot is written whole before an older one goes; the updates of a round lie beside it.
    kept = KEPT + 1 + (study.federation.validate_every > 0)
    rules = [METHODS[method].rule(study.federation) for method in study.methods if method in METHODS]
    moments = max((rule.kept for rule in rules if rule), default=0)
    snapshots = kept * ((1 + moments) * backbone + len(sites) * (backbone + head + _OPTIMIZER * (backbone + head)))
    place = run or Path.cwd()
    disk = DiskUse(place, models + predictions + snapshots + len(sites) * backbone, free_bytes(place))
    words = _words(study.model, study.training)
    if not timed:
        return Estimate(words, study.training.device, None, steps, predicted, None, None, disk)
    privacy = study.privacy
    private = [Mechanism(privacy.noise, privacy.clip, bytes(32))] if privacy.noise else []
    time = time_steps(study.model, study.training, findings, *private)
    predict = predicted * time.seconds / study.training.batch_size / 3
    return Estimate(words, time.device, time.seconds, steps, predicted, steps * time.seconds, predict, disk)


def disk_problems(manifests: Sequence[ManifestCheck], estimate: Estimate | None) -> Iterator[Problem]:
    """Yield where a disk is too small: for the pixel caches on it an error, for a run beside them a warning."""
    missing = [manifest.cache for manifest in manifests if manifest.cache and not manifest.cache.ready]
    on_disk = {
        disk: [use for use in missing if disk_of(use.folder) == disk]
        for disk in dict.fromkeys(disk_of(use.folder) for use in missing)
    }
    for uses in on_disk.values():
        if (needed := sum(use.needed for use in uses)) > uses[0].free:
            folders = ", ".join(sorted({str(use.folder) for use in uses}))
            text = f"{folders}: the pixel caches need {needed:,} bytes, {uses[0].free:,} are free."
            yield Problem("error", "disk", text)
    if estimate and (run := estimate.run):
        caches = sum(use.needed for use in on_disk.get(disk_of(run.folder), []))
        if run.needed + caches > run.free:
            beside = f", beside {caches:,} for pixel caches" if caches else ""
            text = f"{run.folder}: a run needs about {run.needed:,} bytes{beside}; {run.free:,} are free."
            yield Problem("warning", "disk", f"{text} Choose another disk for it.")


def _steps_a_site(federation: Federation) -> int:
    alone = 0 if federation.finetune == "none" else federation.finetune_steps
    return federation.rounds * federation.local_steps + alone


def _images(site: SiteCheck, split: str) -> int:
    of_split = site.counts.filter(pl.col("split") == split)["images"]
    return int(of_split[0]) if len(of_split) else 0


def _words(model: Model, training: Training) -> str:
    width = "" if model.width == 1 else f", width {model.width:g}"
    return f"{model.backbone}{width}, {model.image_size} x {model.image_size} pixels, batches of {training.batch_size}"
