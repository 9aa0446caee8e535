"""One method with one seed: train its sites together, then write every site's model and predictions."""

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from rich.progress import Progress

from polyhead.config import StudyConfig
from polyhead.errors import RunError
from polyhead.evaluation import auroc, youden_threshold
from polyhead.federation.methods import Method
from polyhead.federation.private_state import load_private
from polyhead.federation.rounds import RoundRow, append_rounds, mend_rounds, trim_rounds
from polyhead.federation.run_dir import model_folder, predictions_folder, refuse_folders, state_folder
from polyhead.federation.simulate import Watch, simulate
from polyhead.federation.site import Plan, Site, finetune
from polyhead.federation.snapshot import (
    Snapshot,
    Store,
    best_snapshot,
    load_snapshot,
    remove_snapshots,
    save_snapshot,
    snapshot_files,
)
from polyhead.federation.start import build_models, initial_state
from polyhead.finished import check_finished, write_finished
from polyhead.predictions import write_predictions
from polyhead.sites import SiteSource, recipe_of, site_for
from polyhead.stopping import gently
from polyhead.training.device import Device
from polyhead.training.model import SiteModel, load_state
from polyhead.training.model_file import save_model
from polyhead.training.predict import predict_split, predictions_table

__all__ = ["Job", "run_job"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A method of a study with one of its seeds, in a run directory.

    Attributes
    ----------
    key
        Hash of the study and its data: a snapshot of anything else is not used.
    """

    study: StudyConfig
    run: Path
    device: Device
    key: str
    method: Method
    seed: int

    @property
    def name(self) -> str:
        """What to call it before a person."""
        return f"{self.method.name}, seed {self.seed}"

    @property
    def store(self) -> Store:
        """Where its state is kept while it is trained."""
        return Store(state_folder(self.run, self.method.name, self.seed), self.key)


def run_job(job: Job, sources: Sequence[SiteSource], progress: Progress) -> None:
    """Train a method with a seed, unless it is finished, and write what it leaves.

    Raises
    ------
    RunError
        If a round had too few sites; method, seed, round and sites are named. If a folder stands where a file belongs.
    DiskError
        If the disk is full.
    """
    done = job.store.folder / "done.json"
    outputs = [file for source in sources for file in _outputs(job, source.name)]
    refuse_folders((done, *outputs, *snapshot_files(job.store)))
    if _is_whole(job, done, outputs):
        mend_rounds(job.run, job.method.name, job.seed, job.study.federation.rounds)
    else:
        done.unlink(missing_ok=True)
        _train(job, sources, progress)
        write_finished(done, job.run, outputs)
    remove_snapshots(job.store)


def _outputs(job: Job, site: str) -> list[Path]:
    model = model_folder(job.run, job.method.name, job.seed, site)
    predictions = predictions_folder(job.run, job.method.name, job.seed, site)
    files = [model / name for name in ("backbone.safetensors", "head.safetensors", "model.json")]
    return [*files, predictions / "val.parquet", predictions / "test.parquet"]


def _is_whole(job: Job, done: Path, outputs: Sequence[Path]) -> bool:
    if not os.path.lexists(done):
        return False
    try:
        check_finished(done, job.run, outputs)
    except RunError as problem:
        _log.warning("%s is trained again. %s", job.name, problem)
        return False
    return True


def _train(job: Job, sources: Sequence[SiteSource], progress: Progress) -> None:
    study, method = job.study, job.method
    chosen = method.findings({source.name: source.manifest.findings for source in sources}, study.findings.aliases)
    sites = [site_for(source, chosen[source.name], study.findings.aliases) for source in sources]
    plan = Plan(job.seed, study.federation, study.training, method.sharing(study.federation))
    models = build_models(sites, study.model, plan.sharing, job.seed, job.device)
    start = load_snapshot(job.store, list(models))
    if start is None:
        start = initial_state(models, plan.sharing, job.store)
        save_snapshot(start, job.store)
    trim_rounds(job.run, method.name, job.seed, start.rounds_done)
    _say_where(job, start.rounds_done, progress)
    training = [site for site in sites if site.can_train]
    _note_idle_sites(job, sites, start.rounds_done)
    with gently(_log.warning) as stop_here:
        watch, close = _watch(job, len(training), start.rounds_done, progress, stop_here)
        try:
            end = simulate(training, models, plan, start, job.store, watch)
        except RunError as problem:
            raise RunError(f"{job.name}, {problem}") from problem
        finally:
            close()
    _finish(job, sites, models, plan, _chosen(job, end, list(models)))


def _say_where(job: Job, rounds_done: int, progress: Progress) -> None:
    if rounds_done:
        text = f"{job.name}: going on after round {rounds_done} of {job.study.federation.rounds}."
        progress.console.print(text, markup=False, highlight=False)
    _log.info("%s: training from round %d of %d.", job.name, rounds_done, job.study.federation.rounds)


def _chosen(job: Job, end: Snapshot, sites: Sequence[str]) -> Snapshot:
    if job.study.federation.select == "last":
        return end
    best = best_snapshot(job.store, sites)
    _log.info("%s: round %d is the best, with a validation AUROC of %s.", job.name, best.rounds_done, best.validation)
    return best


def _note_idle_sites(job: Job, sites: Sequence[Site], rounds_done: int) -> None:
    for site in sites:
        if not site.can_train:
            _log.warning("site %s: %d training images; it takes no part in training.", site.name, len(site.train))
    idle = [RoundRow(0, s.name, math.nan, 0.0, 0, 0, "no training images") for s in sites if not s.can_train]
    if rounds_done == 0 and idle:
        append_rounds(job.run, job.method.name, job.seed, idle)


def _watch(
    job: Job, sites: int, rounds_done: int, progress: Progress, stop_here: Callable[[], None]
) -> tuple[Watch, Callable[[], None]]:
    """Return who is told of the training, and how to take its progress bar away."""
    federation = job.study.federation
    steps = sites * federation.local_steps
    task = progress.add_task(job.name, total=federation.rounds * steps, completed=rounds_done * steps)

    def on_round(rows: list[RoundRow]) -> None:
        append_rounds(job.run, job.method.name, job.seed, rows)
        done = rows[0].round + (0 if any(row.status.startswith("repeated") for row in rows) else 1)
        progress.update(task, completed=done * steps, description=f"{job.name}, round {done} of {federation.rounds}")

    def on_step() -> None:
        progress.advance(task)
        stop_here()

    return Watch(on_round, on_step, _validation_auroc), lambda: progress.remove_task(task)


def _validation_auroc(model: SiteModel, site: Site) -> float | None:
    scores, labels = predict_split(model, site.val), site.val.labels
    found = []
    for column in range(labels.shape[1]):
        annotated = labels[:, column] == labels[:, column]
        found.append(auroc(labels[annotated, column].astype(bool), scores[annotated, column]))
    known = [value for value in found if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else None


def _finish(job: Job, sites: Sequence[Site], models: dict[str, SiteModel], plan: Plan, end: Snapshot) -> None:
    """Give each site its model, train it on if the study says so, and write the site's files."""
    for site in sites:
        model = models[site.name]
        own = load_private(job.store.folder, site.name, end.private[site.name])
        load_state(model, {**end.shared, **own.model})
        if job.study.federation.finetune != "none" and site.can_train:
            began = time.monotonic()
            with gently(_log.warning) as stop_here:
                loss = finetune(site, model, plan, stop_here)
            row = RoundRow(plan.federation.rounds, site.name, loss, time.monotonic() - began, 0, 0, "alone")
            append_rounds(job.run, job.method.name, job.seed, [row])
        _write_site(job, site, model)


def _write_site(job: Job, site: Site, model: SiteModel) -> None:
    """Predict a site's validation and test images, choose thresholds on validation, and save the model last."""
    folder = predictions_folder(job.run, job.method.name, job.seed, site.name)
    val = predictions_table(site.val, site.findings, predict_split(model, site.val))
    write_predictions(val, folder / "val.parquet")
    test = predictions_table(site.test, site.findings, predict_split(model, site.test))
    write_predictions(test, folder / "test.parquet")
    thresholds = {finding: _threshold(val.filter(pl.col("finding") == finding)) for finding in site.findings}
    about = {"method": job.method.name, "seed": job.seed, "site": site.name, "thresholds": thresholds}
    model_to = model_folder(job.run, job.method.name, job.seed, site.name)
    save_model(model, job.study.model, recipe_of(job.study), about, model_to)


def _threshold(predictions: pl.DataFrame) -> float | None:
    annotated = predictions.drop_nulls("label")
    threshold = youden_threshold(annotated["label"].to_numpy(), annotated["score"].to_numpy())
    return None if math.isnan(threshold) else threshold
