"""Sites checked by themselves: folders with a manifest, before there is a study."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from polyhead.check.across import add_pixels_elsewhere
from polyhead.check.estimate import disk_problems, estimate_sites
from polyhead.check.images import Reading, cache_use, image_problems, policies, read_images
from polyhead.check.labels import balance, label_problems
from polyhead.check.matches import Matches, find_matches
from polyhead.check.result import CheckResult, ManifestCheck, SiteCheck
from polyhead.errors import ManifestError, StudyError
from polyhead.imaging.dicom.tags import is_lateral
from polyhead.manifest import SPLITS, Manifest, check_manifest
from polyhead.problems import Problem

__all__ = ["check_file", "check_labels", "check_sites", "match_sites"]


def check_sites(sites: Sequence[Path], reading: Reading | None = None) -> CheckResult:
    """Check sites without a study: each table, each image once, and how their findings match.

    Parameters
    ----------
    sites
        Folders with ``manifest.csv``, or manifest files.
    reading
        How images are read; by default at 224 pixels into each site's own folder. Without images no step is timed
        either.
    """
    reading = reading or Reading()
    paths = [site / "manifest.csv" if site.is_dir() or not site.suffix else site for site in sites]
    checked = {path: check_file(path, reading) for path in paths}
    usable = [
        (name, manifest, file)
        for name, (file, manifest) in zip(_names(list(checked)), checked.values(), strict=True)
        if manifest is not None
    ]
    results = tuple(check_labels(*site) for site in usable)
    matches, problems = match_sites(results, {})
    estimate = estimate_sites(results, reading.size, timed=reading.images)
    named = [(name, manifest) for name, manifest, _ in usable]
    manifests = add_pixels_elsewhere([check for check, _ in checked.values()], named, reading, "warning")
    problems += tuple(disk_problems(manifests, estimate))
    return CheckResult(None, problems, manifests, results, matches, estimate)


def check_file(path: Path, reading: Reading) -> tuple[ManifestCheck, Manifest | None]:
    """Check one manifest file and its images.

    Returns
    -------
    ManifestCheck
        What was found.
    Manifest or None
        What can be used: faulty rows and unreadable images are left out, faulty labels blank. None if there is no
        telling what the columns mean.
    """
    try:
        problems, manifest = check_manifest(path)
    except ManifestError as problem:
        return ManifestCheck(path, (Problem("error", "table", str(problem)),)), None
    if manifest is None:
        return ManifestCheck(path, problems), None
    problems = (*problems, *_views(manifest))
    check = ManifestCheck(
        path,
        problems,
        images=manifest.frame.height,
        patients=manifest.frame["patient_id"].n_unique(),
        empty_splits=tuple(split for split in SPLITS if not manifest.split(split).height),
    )
    if reading.images and manifest.frame.height:
        check, manifest = _check_images(check, manifest, reading)
    return replace(check, cache=cache_use(manifest, reading, is_read=check.images_read)), manifest


def _check_images(check: ManifestCheck, manifest: Manifest, reading: Reading) -> tuple[ManifestCheck, Manifest]:
    """Add what the images gave, and leave out of the manifest those that cannot be read."""
    cache, problems = read_images(manifest, reading)
    if cache is None:
        return replace(check, problems=check.problems + problems), manifest
    problems = (*check.problems, *image_problems(manifest, cache, reading))
    readable = manifest.frame.filter(~pl.col("image").is_in(list(cache.bad)))
    check = replace(check, problems=problems, images_read=True, policies=policies(cache))
    return check, replace(manifest, frame=readable)


def check_labels(name: str, manifest: Manifest, file: ManifestCheck) -> SiteCheck:
    """Check what a site, narrowed to what a study asks for, can teach.

    Parameters
    ----------
    file
        The check of the manifest's file; what it says of empty splits is not said again.
    """
    counts = balance(manifest)
    problems = tuple(label_problems(manifest, counts, file.empty_splits))
    return SiteCheck(name, manifest.path, problems, manifest.findings, counts)


def match_sites(sites: Sequence[SiteCheck], aliases: dict[str, str]) -> tuple[Matches | None, tuple[Problem, ...]]:
    """Match the sites' findings; names that contradict each other are a problem."""
    try:
        return find_matches({site.name: site.findings for site in sites}, aliases), ()
    except StudyError as problem:
        return None, (Problem("error", "findings", str(problem)),)


def _names(paths: Sequence[Path]) -> list[str]:
    """Name each site after its folder, or in full where two folders have the same name."""
    short = [path.resolve().parent.name for path in paths]
    return [name if short.count(name) == 1 else str(path) for name, path in zip(short, paths, strict=True)]


def _views(manifest: Manifest) -> Iterator[Problem]:
    if "view" not in manifest.frame.columns:
        return
    views = manifest.frame["view"].drop_nulls().str.to_uppercase()
    lateral = [view for view in views.unique() if is_lateral(view)]
    if count := int(views.is_in(lateral).sum()):
        text = f"column 'view': {count:,} lateral images. Frontal ones are expected; a mixture teaches the view."
        yield Problem("note", "lateral-view", text, count)
