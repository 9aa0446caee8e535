"""A study checked before it runs: its sites as it narrows them, and what it asks of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from polyhead.check.across import add_pixels_elsewhere
from polyhead.check.estimate import disk_problems, estimate_study
from polyhead.check.images import Reading
from polyhead.check.result import CheckResult, Estimate, SiteCheck
from polyhead.check.site import check_file, check_labels, match_sites
from polyhead.config import StudyConfig, StudySite
from polyhead.errors import PolyheadError, StudyError
from polyhead.federation.methods import choose_methods, refuse_settings
from polyhead.federation.start import check_model
from polyhead.findings import check_aliases, closest
from polyhead.manifest import Manifest, narrow
from polyhead.problems import Problem
from polyhead.sites import recipe_of
from polyhead.study_file import load_study
from polyhead.training.device import resolve_device
from polyhead.union import check_release

__all__ = ["check_settings", "check_study"]


def check_study(study_file: Path, reading: Reading | None = None) -> CheckResult:
    """Check a study: each distinct manifest once, each site as the study narrows it, and the study's own demands.

    Parameters
    ----------
    reading
        Says whether images are read and who is told. Size, recipe, budget and cache are the study's.

    Raises
    ------
    StudyError
        If the file cannot be read as a study.
    """
    return check_settings(load_study(study_file), study_file, reading)


def check_settings(
    study: StudyConfig,
    study_file: Path,
    reading: Reading | None = None,
    *,
    whole: bool = True,
    run: Path | None = None,
) -> CheckResult:
    """Check a study that has been read; see `check_study`.

    Parameters
    ----------
    whole
        Whether all of the study's sites are in it; if not, an alias may be of a finding that another site has.
    run
        Where results are to lie; by default on the disk of the current folder.
    """
    reading = replace(
        reading or Reading(),
        size=study.model.image_size,
        recipe=recipe_of(study),
        bad_budget=study.bad_images,
        cache=study.cache,
    )
    paths = dict.fromkeys(site.manifest for site in study.site)
    checked = {path: check_file(path, reading) for path in paths}
    parts: list[tuple[str, Manifest]] = []
    sites: list[SiteCheck] = []
    left_out: tuple[Problem, ...] = ()
    for site in study.site:
        file, manifest = checked[site.manifest]
        if manifest is None:
            continue
        part, missing = _narrow_site(site, manifest)
        if part is None:
            left_out += missing
            continue
        parts.append((site.name, part))
        check = check_labels(site.name, part, file)
        sites.append(replace(check, problems=missing + check.problems))
    matches, problems = match_sites(sites, study.findings.aliases)
    problems += left_out + tuple(_demands(study, sites, matched=matches is not None, whole=whole))
    estimate = None
    if not any(problem.kind in ("device", "model") for problem in problems):
        estimate, refused = _estimate(study, sites, run, timed=reading.images)
        problems += refused
    manifests = add_pixels_elsewhere([check for check, _ in checked.values()], parts, reading, "error")
    problems += tuple(disk_problems(manifests, estimate))
    return CheckResult(study_file, tuple(dict.fromkeys(problems)), manifests, tuple(sites), matches, estimate)


def _narrow_site(site: StudySite, manifest: Manifest) -> tuple[Manifest | None, tuple[Problem, ...]]:
    """Keep what the study asks of a site, and say which findings are missing; None if all of them are."""
    known = [name for name in site.findings or manifest.findings if name in manifest.findings]
    missing = tuple(
        Problem("error", "missing-finding", f"no finding {name!r}; {closest(name, manifest.findings)}.")
        for name in site.findings or ()
        if name not in known
    )
    if not known:
        return None, tuple(replace(one, text=f"site {site.name}, left out: {one.text}") for one in missing)
    return narrow(manifest, known, site.shard, site.train_images), missing


def _demands(study: StudyConfig, sites: Sequence[SiteCheck], *, matched: bool, whole: bool) -> Iterator[Problem]:
    """Yield what the study asks for and cannot have; methods only if the findings could be matched."""
    yield from _refused("device", lambda: resolve_device(study.training.device))
    misfit = [*_refused("model", lambda: check_model(study.model))]
    yield from misfit
    for method in () if misfit else study.methods:
        yield from _refused("methods", partial(refuse_settings, [method], study))
    yield from _refused("release", lambda: check_release(study))
    if len(sites) < len(study.site):
        yield Problem("note", "not-checked", "methods and aliases: not checked while a site is left out.")
        return
    findings = {site.name: site.findings for site in sites}
    if whole:
        yield from _refused("findings", lambda: check_aliases(findings, study.findings.aliases))
    for method in study.methods if matched else ():
        yield from _refused("methods", partial(choose_methods, [method], findings, study.findings))
    if all("no-training" in {problem.kind for problem in site.problems} for site in sites):
        yield Problem("error", "no-training", "no site has two training images: there is nothing to train on.")


def _refused(kind: str, ask: Callable[[], object]) -> Iterator[Problem]:
    try:
        ask()
    except PolyheadError as problem:
        yield Problem("error", kind, str(problem))


def _estimate(
    study: StudyConfig, sites: Sequence[SiteCheck], run: Path | None, *, timed: bool
) -> tuple[Estimate | None, tuple[Problem, ...]]:
    try:
        return estimate_study(study, sites, timed=timed, run=run), ()
    except StudyError as problem:
        return None, (Problem("error", "model", str(problem)),)
