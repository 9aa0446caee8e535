"""One method with one seed: train its sites together, then write every site's model and predictions."""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from polyhead.config import StudyConfig
from polyhead.errors import DiskError, PolyheadError, RunError
from polyhead.federation.failure import describe_failure
from polyhead.federation.methods import Method, plan_for
from polyhead.federation.pool import model_for, plan_in_pool, pool_sites
from polyhead.federation.private_state import load_private
from polyhead.federation.rounds import RoundRow, append_rounds, mend_rounds, trim_rounds
from polyhead.federation.run_dir import model_folder, predictions_folder, refuse_folders, state_folder
from polyhead.federation.simulate import Watch, simulate
from polyhead.federation.site import Plan, Site, finetune
from polyhead.federation.snapshot import (
    Snapshot,
    Store,
    load_shared,
    load_snapshot,
    remove_snapshots,
    save_snapshot,
    snapshot_files,
)
from polyhead.federation.start import build_models, initial_state
from polyhead.federation.transfer import narrowed
from polyhead.finished import damage_to_finished, write_finished
from polyhead.outputs import output_files, write_outputs
from polyhead.sites import SiteSource, site_for
from polyhead.stopping import gently
from polyhead.training.device import Device
from polyhead.training.model import SiteModel, load_state
from polyhead.union import union_files, write_union
from polyhead.validation import validation_auroc

__all__ = ["Job", "RoundTable", "run_job"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RoundTable:
    """Who writes to ``rounds.csv``: this process, or for several of them a single one, which all of them ask."""

    append: Callable[[Path, str, int, Sequence[RoundRow]], None] = append_rounds
    trim: Callable[[Path, str, int, int], None] = trim_rounds
    mend: Callable[[Path, str, int, int], None] = mend_rounds


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
    table: RoundTable = RoundTable()

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
        If a round had too few sites; method, seed, round and sites are named. If sites failed after the last round. If
        a folder stands where a file belongs, or a file cannot be read now.
    DiskError
        If the disk is full.
    """
    done = job.store.folder / "done.json"
    outputs = [file for source in sources for file in _outputs(job, source.name)]
    outputs += union_files(job.run, job.study, job.method, job.seed, sources)
    refuse_folders((done, *outputs, *snapshot_files(job.store)))
    if _is_whole(job, done, outputs):
        job.table.mend(job.run, job.method.name, job.seed, job.study.federation.rounds)
    else:
        _forget(done, outputs)
        _train(job, sources, progress)
        write_finished(done, job.run, outputs)
    remove_snapshots(job.store)


def _outputs(job: Job, site: str) -> list[Path]:
    where = job.run, job.method.name, job.seed, site
    return output_files(model_folder(*where), predictions_folder(*where))


def _is_whole(job: Job, done: Path, outputs: Sequence[Path]) -> bool:
    if not os.path.lexists(done):
        return False
    damage = damage_to_finished(done, job.run, outputs)
    if damage:
        _log.warning("%s is trained again. %s", job.name, damage)
    return damage is None


def _forget(done: Path, outputs: Sequence[Path]) -> None:
    """Remove what was finished and is damaged since, before what vouched for it: a number could be computed from it."""
    if os.path.lexists(done):
        for file in (*outputs, done):
            file.unlink(missing_ok=True)


def _train(job: Job, sources: Sequence[SiteSource], progress: Progress) -> None:
    study, method = job.study, job.method
    chosen = method.findings({source.name: source.manifest.findings for source in sources}, study.findings)
    sites = [site_for(source, chosen[source.name], study.findings.aliases) for source in sources]
    plan = plan_for(method, job.seed, study.federation, study.training, study.privacy)
    training = [site for site in sites if site.can_train]
    pool = pool_sites(training) if method.pooled and training else None
    if pool:
        plan = plan_in_pool(plan, len(training))
    models = build_models([pool] if pool else sites, study.model, plan.sharing, job.seed, job.device)
    start = load_snapshot(job.store, list(models))
    if start is None:
        start = save_snapshot(initial_state(models, plan.sharing, job.store, plan.rule), job.store)
    job.table.trim(job.run, method.name, job.seed, start.rounds_done)
    _say_where(job, start.rounds_done, progress)
    _note_idle_sites(job, sites, start.rounds_done)
    with gently(_log.warning) as stop_here:
        watch, close = _watch(job, len(training), start.rounds_done, progress, stop_here)
        try:
            end = simulate([pool] if pool else training, models, plan, start, job.store, watch)
        except RunError as problem:
            raise RunError(f"{job.name}, {problem}") from problem
        finally:
            close()
    trained = {site.name: pool.name if pool else site.name for site in sites}
    _finish(job, sites, trained, models, plan, end)
    write_union(job.run, study, method, job.seed, sources, models)


def _say_where(job: Job, rounds_done: int, progress: Progress) -> None:
    if rounds_done:
        text = f"{job.name}: going on after {rounds_done} of {job.study.federation.rounds} rounds."
        progress.console.print(text, markup=False, highlight=False)
    _log.info("%s: %d of %d rounds are done.", job.name, rounds_done, job.study.federation.rounds)


def _note_idle_sites(job: Job, sites: Sequence[Site], rounds_done: int) -> None:
    for site in sites:
        if not site.can_train:
            _log.warning("site %s: %d training images; it takes no part in training.", site.name, len(site.train))
    idle = [RoundRow(0, s.name, math.nan, 0.0, 0, 0, "no training images") for s in sites if not s.can_train]
    if rounds_done == 0 and idle:
        job.table.append(job.run, job.method.name, job.seed, idle)


def _watch(
    job: Job, sites: int, rounds_done: int, progress: Progress, stop_here: Callable[[], None]
) -> tuple[Watch, Callable[[], None]]:
    """Return who is told of the training, and how to take its progress bar away."""
    federation = job.study.federation
    steps = sites * federation.local_steps
    task = progress.add_task(job.name, total=federation.rounds * steps, completed=rounds_done * steps)

    def on_round(rows: list[RoundRow], repeated: bool) -> None:
        job.table.append(job.run, job.method.name, job.seed, rows)
        done = rows[0].round + (0 if repeated else 1)
        progress.update(task, completed=done * steps, description=f"{job.name}, {done} of {federation.rounds} rounds")

    def on_step() -> None:
        progress.advance(task)
        stop_here()

    return Watch(on_round, on_step, validation_auroc), lambda: progress.remove_task(task)


def _finish(
    job: Job,
    sites: Sequence[Site],
    trained: Mapping[str, str],
    models: Mapping[str, SiteModel],
    plan: Plan,
    end: Snapshot,
) -> None:
    """Finish each site; one that fails does not keep the others from their results.

    `trained` tells for each site whose model becomes its own: that which it trained itself, or the pool's.
    """
    failed: dict[str, Exception] = {}
    for site in sites:
        try:
            whose = trained[site.name]
            _finish_site(job, site, whose, model_for(site, models[whose]), plan, end)
        except (DiskError, OSError):  # The run's folder is everybody's.
            raise
        except Exception as problem:
            _log.info("%s, site %s failed at the end: %s", job.name, site.name, problem, exc_info=problem)
            failed[site.name] = problem
    if failed:
        reasons = "; ".join(f"site {name}: {_reason(problem).rstrip('.')}" for name, problem in failed.items())
        others = " What the others trained is written." if len(failed) < len(sites) else ""
        raise RunError(
            f"{job.name}: after the last round {len(failed)} of {len(sites)} sites failed. {reasons}.{others} Mend "
            "this, then give the same command again."
        ) from next(iter(failed.values()))


def _reason(problem: Exception) -> str:
    return str(problem) if isinstance(problem, PolyheadError) else describe_failure(problem)


def _finish_site(job: Job, site: Site, whose: str, model: SiteModel, plan: Plan, end: Snapshot) -> None:
    """Give a site its model, train it on if the study says so, and write the site's files."""
    rounds_done = _load_final(job, site, whose, model, end)
    if job.study.federation.finetune != "none" and site.can_train:
        began = time.monotonic()
        with gently(_log.warning) as stop_here:
            loss = finetune(site, model, plan, stop_here)
        row = RoundRow(plan.federation.rounds, site.name, loss, time.monotonic() - began, 0, 0, "alone")
        job.table.append(job.run, job.method.name, job.seed, [row])
        _refuse_diverged(model)
    about = {"method": job.method.name, "seed": job.seed, "site": site.name, "rounds": rounds_done}
    models_to = model_folder(job.run, job.method.name, job.seed, site.name)
    predictions_to = predictions_folder(job.run, job.method.name, job.seed, site.name)
    write_outputs(site, model, job.study, about, models_to, predictions_to)


def _load_final(job: Job, site: Site, whose: str, model: SiteModel, end: Snapshot) -> int:
    """Load the state that becomes a site's model: the last, or its best; return after how many rounds that was.

    It is the state as it travels: what a site in a house of its own would get.
    """
    transfer = job.study.federation.transfer
    best = end.best.get(whose)
    if best is None:
        if job.study.federation.select == "best" and site.can_train:
            _log.warning("%s, site %s: has no validation AUROC; it gets the last state.", job.name, site.name)
        own = load_private(job.store.folder, whose, end.private[whose])
        load_state(model, {**narrowed(end.shared, transfer), **own.model})
        return end.rounds_done
    _log.info("%s, site %s: best after %d rounds (%.4f).", job.name, site.name, best.rounds_done, best.auroc)
    own = load_private(job.store.folder, whose, best.private)
    shared = load_shared(job.store, best.rounds_done, best.shared)
    load_state(model, {**narrowed(shared, transfer), **own.model})
    return best.rounds_done


def _refuse_diverged(model: SiteModel) -> None:
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise RunError(
                f"fine-tuning diverged: {name} is not finite. Lower training.learning_rate or finetune_steps."
            )
