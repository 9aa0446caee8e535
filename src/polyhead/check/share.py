"""A summary that may leave the hospital: no patient can be told from it.

It holds names of findings, and counts. Names of sites, files and images, ids, lines, values and the texts of problems
stay behind. Every count is rounded down by itself to a multiple of `K`, and 0 to 4 are all "<5": the images of a
split minus the other labels of a finding leave at least three of these five open. Columns that depend on each other, as
"No Finding" on all others, would narrow them, so a split in which any finding has fewer than `K` positives shows
positives only. A total over splits would narrow them too, so there is none. A study is not summarized: it may count
the same patients in many overlapping parts.

For the same reason the kinds of problem are always listed in full, so that none and a few look alike; and kinds that
follow from a small count of labels, such as a finding with one class only, are not listed at all.
"""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from polyhead.atomic import write_atomically
from polyhead.check.result import CheckResult, Estimate, ManifestCheck, SiteCheck
from polyhead.errors import UsageError
from polyhead.manifest import SPLITS
from polyhead.problems import Problem

__all__ = ["KINDS", "K", "check_writable", "rounded", "summarize", "write_share"]

K = 5
"""No count below it is shown."""

KINDS = (
    *("table", "column", "blank", "label", "split", "path", "row-twice", "patient-in-two-splits"),
    *("missing-images", "cache", "bad-image", "same-pixels-two-splits", "same-pixels-two-sites", "same-pixels"),
    *("near-duplicate-two-splits", "near-duplicate", "lateral-view", "policy"),
)
"""Problems of which a number may be told."""

_FORMAT = 1
_KEYS = {"format", "about", "manifests", "sites", "machine"}
_ABOUT = (
    f"Counts are rounded down to multiples of {K}; '<{K}' is 0 to {K - 1}. Sites are numbered in the order in which "
    "they were checked. Where a finding of a split has few positives, only positives are told. Share this once: two "
    "summaries of nearly the same patients tell what changed between them."
)


def check_writable(path: Path) -> None:
    """Make sure, before hours of work, that a summary can be written to a file.

    Raises
    ------
    UsageError
        Its folder is not there or cannot be written, it is a folder, or it is a file that is no earlier summary.
    """
    if path.is_dir():
        raise UsageError(f"--share {path}: this is a folder. Name a file in it, such as {path / 'summary.json'}.")
    if not path.parent.is_dir():
        raise UsageError(f"--share {path}: there is no folder {path.parent}. Make it, or name a file elsewhere.")
    if path.exists() and not _is_summary(path):
        raise UsageError(f"--share {path}: this file is no earlier summary and stays. Name another, or remove it.")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as problem:
        raise UsageError(f"--share {path}: the folder cannot be written ({problem.strerror}).") from problem


def _is_summary(path: Path) -> bool:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() == _KEYS


def write_share(result: CheckResult, path: Path) -> None:
    """Write the summary as JSON."""
    write_atomically(path, json.dumps(summarize(result), indent=2) + "\n")


def summarize(result: CheckResult) -> dict[str, Any]:
    """Return the summary."""
    numbers = {manifest.path: number for number, manifest in enumerate(result.manifests, start=1)}
    return {
        "format": _FORMAT,
        "about": _ABOUT,
        "manifests": [_manifest(number, manifest) for number, manifest in enumerate(result.manifests, start=1)],
        "sites": [_site(number, site, numbers[site.manifest]) for number, site in enumerate(result.sites, start=1)],
        "machine": _machine(result.estimate) if result.estimate else None,
    }


def rounded(count: int) -> int | str:
    """Return the count as it may be shown."""
    return count // K * K if count >= K else f"<{K}"


def _manifest(number: int, manifest: ManifestCheck) -> dict[str, Any]:
    return {
        "manifest": number,
        "images_read": manifest.images_read,
        "problems": _counted(manifest.problems),
    }


def _counted(problems: Iterable[Problem]) -> dict[str, int | str]:
    counts = dict.fromkeys(KINDS, 0)
    for problem in problems:
        if problem.kind in counts:
            counts[problem.kind] += problem.count
    return {kind: rounded(count) for kind, count in counts.items()}


def _site(number: int, site: SiteCheck, manifest: int) -> dict[str, Any]:
    counts = {(row["split"], row["finding"]): row for row in site.counts.iter_rows(named=True)}
    rare = {split for (split, _), row in counts.items() if row["positives"] < K}
    return {
        "site": number,
        "manifest": manifest,
        "splits": {
            split: {what: rounded(counts[split, site.findings[0]][what]) for what in ("images", "patients")}
            for split in SPLITS
        },
        "findings": {
            finding: {
                split: {
                    what: None if what != "positives" and split in rare else rounded(counts[split, finding][what])
                    for what in ("positives", "negatives", "blank")
                }
                for split in SPLITS
            }
            for finding in site.findings
        },
    }


def _machine(estimate: Estimate) -> dict[str, Any]:
    # To two digits, and no time or size that grows with the number of images.
    seconds = estimate.step_seconds
    return {
        "model": estimate.model,
        "device": estimate.device,
        "seconds_per_step": None if seconds is None else float(f"{seconds:.2g}"),
    }
