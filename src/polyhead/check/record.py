"""A check as JSON. Keys stay; new ones may come. docs/data.md describes them."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from polyhead.check.matches import Matches
from polyhead.check.result import CheckResult, ManifestCheck, SiteCheck, count_problems
from polyhead.problems import Problem

__all__ = ["to_json"]

_FORMAT = 1


def to_json(result: CheckResult) -> str:
    """Return everything that a check found, as one JSON object; for the hospital's own use, as it names images."""
    problems = result.all_problems()
    record = {
        "format": _FORMAT,
        "sound": result.sound,
        "errors": count_problems(problems, "error"),
        "warnings": count_problems(problems, "warning"),
        "study": result.study,
        "problems": _problems(result.problems),
        "manifests": [_manifest(manifest) for manifest in result.manifests],
        "sites": [_site(site) for site in result.sites],
        **_matches(result.matches),
        "estimate": asdict(result.estimate) if result.estimate else None,
    }
    return json.dumps(record, indent=2, default=_text)


def _problems(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    return [asdict(problem) for problem in problems]


def _manifest(manifest: ManifestCheck) -> dict[str, Any]:
    return {
        "path": manifest.path,
        "images": manifest.images,
        "patients": manifest.patients,
        "images_read": manifest.images_read,
        "policies": dict(manifest.policies),
        "cache": asdict(manifest.cache) if manifest.cache else None,
        "problems": _problems(manifest.problems),
    }


def _site(site: SiteCheck) -> dict[str, Any]:
    return {
        "name": site.name,
        "manifest": site.manifest,
        "findings": site.findings,
        "counts": site.counts.to_dicts(),
        "problems": _problems(site.problems),
    }


def _matches(matches: Matches | None) -> dict[str, Any]:
    if matches is None:
        return {"matches": None, "near_misses": None}
    named = [
        {"canonical": match.canonical, "sites": {site: asdict(name) for site, name in match.spellings.items()}}
        for match in matches.matches
    ]
    return {"matches": named, "near_misses": [asdict(miss) for miss in matches.near_misses]}


def _text(value: Path) -> str:
    return str(value)
