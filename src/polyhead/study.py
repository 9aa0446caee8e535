"""A study: every method with every seed on all sites, then evaluation and report."""

import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from rich.text import Text

from polyhead.atomic import write_atomically
from polyhead.config import StudyConfig, load_study
from polyhead.environment import keep_environment, keep_inputs, keep_sources
from polyhead.errors import StudyError
from polyhead.evaluation import evaluate_run, youden_threshold
from polyhead.federation.methods import Method, choose_methods
from polyhead.federation.rounds import RoundRow, append_round, trim_rounds
from polyhead.federation.run_dir import model_folder, open_run, predictions_folder, state_folder
from polyhead.federation.simulate import simulate
from polyhead.federation.site import Plan, Site, finetune
from polyhead.federation.snapshot import load_snapshot
from polyhead.federation.start import build_models, check_model, initial_state
from polyhead.findings import check_aliases, match_findings
from polyhead.manifest import Manifest
from polyhead.predictions import write_predictions
from polyhead.progress import progress_bar
from polyhead.report import write_report
from polyhead.sites import SiteSource, count_labels, open_site, read_site, recipe_of, site_for, warn_about_labels
from polyhead.summary import print_summary
from polyhead.training.device import Device, describe_device, resolve_device
from polyhead.training.model import SiteModel, load_state
from polyhead.training.model_file import save_model
from polyhead.training.predict import predict_split, predictions_table

__all__ = ["run_study"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    study: StudyConfig
    run: Path
    device: Device


def run_study(study_file: Path, out: Path, console: Console) -> Path:
    """Run a study, or go on with it, and write everything to a run directory.

    Everything that can be refused is refused before the first image is read.

    Returns
    -------
    pathlib.Path
        The report.

    Raises
    ------
    PolyheadError
        With the site, file or key that is at fault.
    """
    study = load_study(study_file)
    device = resolve_device(study.training.device)
    manifests = {site.name: read_site(site) for site in study.site}
    findings = {name: manifest.findings for name, manifest in manifests.items()}
    check_aliases(findings, study.findings.aliases)
    methods = choose_methods(study.methods, findings, study.findings.aliases)
    if all(manifest.split("train").height < 2 for manifest in manifests.values()):
        raise StudyError("no site has two training images: there is nothing to train on.")
    check_model(study.model)
    console.print(f"Device: {describe_device(device)['device']}")
    _print_matches(findings, study, console)
    with open_run(out, study_file) as known:
        if known:
            console.print(f"{out} is there already: going on where it stopped.", markup=False, highlight=False)
        keep_inputs(out / "inputs.json", study, manifests)
        keep_sources(out / "sources.json", study)
        keep_environment(out / "environment.json", study, device)
        with progress_bar(console) as progress:
            sources = _prepare_sites(study, manifests, progress)
            counts = count_labels(sources, study.findings.aliases)
            warn_about_labels(counts)
            write_atomically(out / "sites.csv", counts.write_csv())
            _train_all(_Job(study, out, device), methods, sources, progress)
        with console.status("Resampling patients for intervals and p-values"):
            evaluate_run(out, study.evaluation.replicates, [method.name for method in methods])
        with console.status("Drawing the report"):
            report = write_report(out)
    print_summary(out, console)
    console.print(f"Report: {report}", markup=False, highlight=False, soft_wrap=True)
    return report


def _print_matches(findings: Mapping[str, Sequence[str]], study: StudyConfig, console: Console) -> None:
    """Say which findings of different sites count as the same, as each site spells them."""
    table = Table(*findings, title="Findings in common, matched by name", title_justify="left")
    for spellings in match_findings(findings, study.findings.aliases).values():
        if len(spellings) > 1:
            table.add_row(*(Text(spellings.get(site, "")) for site in findings))
    console.print(table if table.row_count else "No finding is common to two sites.")


def _prepare_sites(study: StudyConfig, manifests: dict[str, Manifest], progress: Progress) -> list[SiteSource]:
    sources = []
    for site in study.site:
        task = progress.add_task(f"Pixels of {site.name}", total=None)

        def show(done: int, total: int, task: TaskID = task) -> None:
            progress.update(task, completed=done, total=total)

        sources.append(open_site(site, manifests[site.name], study, show))
        progress.remove_task(task)
    return sources


def _train_all(job: _Job, methods: Sequence[Method], sources: Sequence[SiteSource], progress: Progress) -> None:
    """Train every method with every seed that is not complete yet."""
    for seed in job.study.seeds:
        for method in methods:
            if not all(_is_complete(job.run, method.name, seed, source.name) for source in sources):
                _train(job, method, seed, sources, progress)


def _is_complete(run: Path, method: str, seed: int, site: str) -> bool:
    model, predictions = model_folder(run, method, seed, site), predictions_folder(run, method, seed, site)
    files = [model / name for name in ("backbone.safetensors", "head.safetensors", "model.json")]
    return all(file.exists() for file in (*files, predictions / "val.parquet", predictions / "test.parquet"))


def _train(job: _Job, method: Method, seed: int, sources: Sequence[SiteSource], progress: Progress) -> None:
    """Train one method with one seed, and write every site's model and predictions."""
    study = job.study
    sites = _sites_for(method, study, sources)
    sharing = method.sharing(study.federation)
    models = build_models(sites, study.model, sharing, seed, job.device)
    folder = state_folder(job.run, method.name, seed)
    start = load_snapshot(folder, list(models)) or initial_state(models, sharing)
    trim_rounds(job.run, method.name, seed, start.rounds_done)
    task = progress.add_task(f"{method.name}, seed {seed}", total=study.federation.rounds, completed=start.rounds_done)

    def record(row: RoundRow) -> None:
        append_round(job.run, method.name, seed, row)
        progress.update(task, completed=row.round + 1)

    plan = Plan(seed, study.federation, study.training)
    for site in sites:
        if not site.can_train:
            _log.warning("site %s: %d training images; it takes no part in training.", site.name, len(site.train))
            if start.rounds_done == 0:
                record(RoundRow(0, site.name, math.nan, 0.0, 0, 0, "no training images"))
    end = simulate([site for site in sites if site.can_train], models, plan, start, folder, record)
    for site in sites:
        model = models[site.name]
        load_state(model, {**end.shared, **end.private[site.name].model})
        if study.federation.finetune != "none" and site.can_train:
            began = time.monotonic()
            loss = finetune(site, model, plan)
            seconds = time.monotonic() - began
            record(RoundRow(study.federation.rounds, site.name, loss, seconds, 0, 0, "alone"))
        _write_site(job, method.name, seed, site, model)
    shutil.rmtree(folder, ignore_errors=True)
    for emptied in (folder.parent, folder.parent.parent):
        if emptied.exists() and not any(emptied.iterdir()):
            emptied.rmdir()
    progress.remove_task(task)


def _sites_for(method: Method, study: StudyConfig, sources: Sequence[SiteSource]) -> list[Site]:
    aliases = study.findings.aliases
    chosen = method.findings({source.name: source.manifest.findings for source in sources}, aliases)
    return [site_for(source, chosen[source.name], aliases) for source in sources]


def _write_site(job: _Job, method: str, seed: int, site: Site, model: SiteModel) -> None:
    """Predict a site's validation and test images, choose thresholds on validation, and save the model last."""
    folder = predictions_folder(job.run, method, seed, site.name)
    val = predictions_table(site.val, site.findings, predict_split(model, site.val))
    write_predictions(val, folder / "val.parquet")
    write_predictions(
        predictions_table(site.test, site.findings, predict_split(model, site.test)), folder / "test.parquet"
    )
    thresholds = {finding: _threshold(val.filter(pl.col("finding") == finding)) for finding in site.findings}
    about = {"method": method, "seed": seed, "site": site.name, "thresholds": thresholds}
    model_to = model_folder(job.run, method, seed, site.name)
    save_model(model, job.study.model, recipe_of(job.study), about, model_to)


def _threshold(predictions: pl.DataFrame) -> float | None:
    annotated = predictions.drop_nulls("label")
    threshold = youden_threshold(annotated["label"].to_numpy(), annotated["score"].to_numpy())
    return None if math.isnan(threshold) else threshold
