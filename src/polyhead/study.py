"""A study: every method with every seed on all sites, then evaluation and report."""

import hashlib
import json
import logging
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from rich.text import Text

from polyhead.atomic import write_atomically
from polyhead.config import StudyConfig
from polyhead.environment import keep_environment, keep_inputs, keep_sources
from polyhead.errors import StudyError
from polyhead.evaluation import evaluate_cross_site, evaluate_run
from polyhead.federation.methods import Method, choose_methods, refuse_settings
from polyhead.federation.rounds import sort_rounds
from polyhead.federation.run_dir import Opened, open_run
from polyhead.federation.start import check_model
from polyhead.findings import check_aliases, match_findings
from polyhead.job import Job, run_job
from polyhead.manifest import Manifest
from polyhead.privacy_cost import cost_table, costly
from polyhead.progress import progress_bar
from polyhead.report import write_report
from polyhead.run_log import log_to
from polyhead.sites import SiteSource, count_labels, open_site, read_site, warn_about_labels
from polyhead.study_file import load_study
from polyhead.summary import print_gains, print_summary
from polyhead.training.device import Device, describe_device, resolve_device, threads_in_use, use_threads
from polyhead.union import check_release, warn_about_release
from polyhead.workers import run_jobs

__all__ = ["run_study"]

_log = logging.getLogger(__name__)


def run_study(
    study_file: Path,
    out: Path,
    console: Console,
    restart: bool = False,
    jobs: int = 1,
    threads: int | None = None,
) -> Path:
    """Run a study, or go on with it, and write everything to a run directory.

    Everything that can be refused is refused before the first image is read.

    Parameters
    ----------
    restart
        Begin anew; what `out` holds is kept beside it under another name.
    jobs
        How many methods and seeds are trained at a time, at least 1: more take as many processes. Results are the same.
    threads
        CPU threads of each training, at least 1; by default as PyTorch chooses. The last bits of results depend on it.

    Returns
    -------
    pathlib.Path
        The report.

    Raises
    ------
    PolyheadError
        With the site, file or key that is at fault.
    """
    if threads is not None:
        use_threads(threads)
    study = load_study(study_file)
    device = resolve_device(study.training.device)
    manifests = {site.name: read_site(site) for site in study.site}
    findings = {name: manifest.findings for name, manifest in manifests.items()}
    check_aliases(findings, study.findings.aliases)
    methods = choose_methods(study.methods, findings, study.findings)
    _refuse_impossible(study, manifests)
    privacy = _privacy(study, manifests)
    console.print(f"Device: {describe_device(device)['device']}")
    _print_matches(findings, study, console)
    _print_privacy(privacy, console)
    with open_run(out, study_file, restart) as opened, log_to(out / "run.log"):
        if opened.study != study:
            raise StudyError(f"{study_file}: was changed since this command began. Give the command again.")
        _say_how_it_begins(out, opened, console)
        keep_inputs(out / "inputs.json", study, manifests)
        keep_sources(out / "sources.json", study)
        keep_environment(out / "environment.json", study, device)
        if not privacy.is_empty():
            write_atomically(out / "privacy.csv", privacy.write_csv())
        with progress_bar(console) as progress:
            sources = _prepare_sites(study, manifests, progress)
            _keep_counts(out, count_labels(sources, study.findings.aliases))
            _train(_jobs(study, out, device, methods), sources, jobs, progress)
        with console.status("Resampling patients for intervals and p-values"):
            _evaluate(out, study)
        with console.status("Drawing the report"):
            report = write_report(out)
        _log.info("finished.")
    print_summary(out, console)
    print_gains(out, console)
    console.print(f"Report: {report}", markup=False, highlight=False, soft_wrap=True)
    return report


def _keep_counts(out: Path, counts: pl.DataFrame) -> None:
    warn_about_labels(counts)
    write_atomically(out / "sites.csv", counts.write_csv())


def _refuse_impossible(study: StudyConfig, manifests: Mapping[str, Manifest]) -> None:
    check_release(study)
    _refuse_idle(study, manifests.values())
    check_model(study.model)
    refuse_settings(study.methods, study)


def _refuse_idle(study: StudyConfig, manifests: Iterable[Manifest]) -> None:
    federation = study.federation
    training = sum(manifest.split("train").height >= 2 for manifest in manifests)
    if not training:
        raise StudyError("no site has two readable training images: there is nothing to train on.")
    if federation.min_sites and federation.min_sites > training:
        raise StudyError(f"key 'federation.min_sites': found {federation.min_sites}, but only {training} sites train.")


def _privacy(study: StudyConfig, manifests: Mapping[str, Manifest]) -> pl.DataFrame:
    """Compute what the study's noise is worth, before any training; an empty table if there is none."""
    if not (study.privacy.noise and costly(study.methods, study.federation)):
        return cost_table(study, {})
    train = {name: manifest.split("train") for name, manifest in manifests.items()}
    return cost_table(
        study, {name: frame["patient_id"].n_unique() for name, frame in train.items() if frame.height >= 2}
    )


def _print_privacy(privacy: pl.DataFrame, console: Console) -> None:
    for row in privacy.iter_rows(named=True):
        what = "all methods and seeds" if row["method"] == "all" else row["method"]
        text = f"Privacy, {row['site']}, {what}: epsilon {row['epsilon']:.2f} at delta {row['delta']:g}"
        console.print(text, markup=False, highlight=False)


def _say_how_it_begins(out: Path, opened: Opened, console: Console) -> None:
    if opened.moved_to:
        console.print(f"What was in {out} is now {opened.moved_to}.", markup=False, highlight=False, soft_wrap=True)
    if opened.known:
        console.print(f"{out} is there already: going on where it stopped.", markup=False, highlight=False)
    if opened.unfinished:
        _log.warning("%s", opened.unfinished)
    _log.info("going on." if opened.known else "begun.")


def _train(jobs: Sequence[Job], sources: Sequence[SiteSource], at_a_time: int, progress: Progress) -> None:
    if at_a_time > 1 and len(jobs) > 1:
        _warn_of_crowding(min(at_a_time, len(jobs)), threads_in_use())
        run_jobs(jobs, at_a_time, threads_in_use(), progress)
    else:
        for job in jobs:
            run_job(job, sources, progress)
    sort_rounds(jobs[0].run, [(job.method.name, job.seed) for job in jobs])


def _warn_of_crowding(jobs: int, threads: int) -> None:
    cores = os.cpu_count() or 1
    if jobs * threads > cores:
        _log.warning(
            "%d trainings at a time of %d threads each are too many for %d cores: they slow each other down. "
            "Better: --threads %d; the last bits of results depend on it.",
            *(jobs, threads, cores, max(1, cores // jobs)),
        )


def _evaluate(run: Path, study: StudyConfig) -> None:
    evaluate_run(run, study.evaluation.replicates, study.methods)
    evaluate_cross_site(run, study.evaluation.replicates, study.methods, study.findings.aliases)


def _jobs(study: StudyConfig, run: Path, device: Device, methods: Sequence[Method]) -> list[Job]:
    # Of the settings, not of the file's bytes: a comment may change.
    settings = tomllib.loads((run / "study.toml").read_bytes().decode())
    inputs = json.loads((run / "inputs.json").read_bytes())
    jobs = []
    for seed, method in product(study.seeds, methods):
        whose = json.dumps([settings, inputs, method.name, seed], sort_keys=True, default=str)
        key = hashlib.sha256(whose.encode()).hexdigest()
        jobs.append(Job(study, run, device, key, method, seed))
    return jobs


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
    # Again: images that cannot be read are left out.
    _refuse_idle(study, [source.manifest for source in sources])
    warn_about_release(study, sources)
    return sources
