"""From the study's sites to images and labels in memory: manifests, limits, pixel caches."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from polyhead.config import StudyConfig, StudySite
from polyhead.errors import ManifestError
from polyhead.federation.site import Site
from polyhead.findings import canonical_name
from polyhead.imaging.prepare import PixelCache, prepare
from polyhead.imaging.recipe import Recipe, make_recipe
from polyhead.manifest import (
    Manifest,
    add_blank_findings,
    label_counts,
    narrow,
    read_manifest,
    select_findings,
    shuffle_training_labels,
)
from polyhead.training.dataset import load_split

__all__ = ["SiteSource", "count_labels", "open_site", "read_site", "recipe_of", "site_for", "warn_about_labels"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SiteSource:
    """A site of a study before a method has chosen findings.

    Attributes
    ----------
    manifest
        Its table as the study narrows it, without images that cannot be read.
    whole
        Its table with all images and all findings.
    cache
        Its pixels.
    """

    name: str
    manifest: Manifest
    whole: Manifest
    cache: PixelCache


def read_site(site: StudySite) -> Manifest:
    """Read a site's manifest and narrow it to what the study asks for.

    Raises
    ------
    ManifestError
        If the manifest is faulty, lacks a finding, or has no image left in a split.
    """
    try:
        manifest = narrow(read_manifest(site.manifest), site.findings, site.shard, site.train_images)
    except ManifestError as problem:
        raise ManifestError(f"site {site.name}: {problem}") from problem
    _refuse_empty(site, manifest)
    if not site.shuffle_labels:
        return manifest
    _log.warning("site %s: the labels of its training images are shuffled; this is a control.", site.name)
    return shuffle_training_labels(manifest, site.name)


def _refuse_empty(site: StudySite, manifest: Manifest) -> None:
    for split in ("val", "test"):
        if not manifest.split(split).height:
            raise ManifestError(f"site {site.name}: no readable image is left in {split!r} (shard: {site.shard}).")


def open_site(
    site: StudySite, manifest: Manifest, study: StudyConfig, progress: Callable[[int, int], None] | None
) -> SiteSource:
    """Build a site's pixel cache, or reuse it.

    It covers the whole manifest file, for all sites that share it, and the budget of bad images is the file's.
    """
    folder = study.cache or site.manifest.parent
    size, budget = study.model.image_size, study.bad_images
    whole = read_manifest(site.manifest)
    cache = prepare(whole, folder, size, recipe_of(study), bad_budget=budget, progress=progress)
    bad = pl.col("image").is_in(list(cache.bad))
    for image in manifest.frame.filter(bad)["image"]:
        _log.warning("site %s: %s is left out: %s", site.name, image, cache.bad[image])
    readable = replace(manifest, frame=manifest.frame.filter(~bad))
    _refuse_empty(site, readable)
    return SiteSource(site.name, readable, whole, cache)


def recipe_of(study: StudyConfig) -> Recipe:
    """Return how a study's images become squares."""
    return make_recipe(study.pixels.recipe, study.pixels.model_dump(exclude={"recipe"}))


def site_for(source: SiteSource, findings: Sequence[str], aliases: Mapping[str, str]) -> Site:
    """Give a site's images with labels for the findings that a method trains; those it does not annotate are blank."""
    blank = tuple(finding for finding in findings if finding not in source.manifest.findings)
    manifest = select_findings(add_blank_findings(source.manifest, blank), findings)
    train, val, test = (load_split(manifest, source.cache, split) for split in ("train", "val", "test"))
    canonical = tuple(finding if finding in blank else canonical_name(finding, aliases) for finding in findings)
    return Site(source.name, tuple(findings), canonical, train, val, test, blank=blank)


def count_labels(sources: Sequence[SiteSource], aliases: Mapping[str, str]) -> pl.DataFrame:
    """Return the contents of ``sites.csv``: labels a site, finding and split, with canonical names."""
    parts = []
    for source in sources:
        counts = label_counts(source.manifest)
        canonical = [canonical_name(finding, aliases) for finding in counts["finding"]]
        parts.append(
            counts.select(
                pl.lit(source.name).alias("site"),
                "finding",
                pl.Series("canonical", canonical),
                pl.exclude("finding"),
            )
        )
    return pl.concat(parts)


def warn_about_labels(counts: pl.DataFrame) -> None:
    """Say which findings a site cannot learn from: never annotated, or of one class only."""
    for row in counts.filter(pl.col("split") == "train").iter_rows(named=True):
        where = f"site {row['site']}, finding {row['finding']!r}"
        if row["positives"] + row["negatives"] == 0:
            _log.warning("%s: no training image is annotated; the finding is masked.", where)
        elif row["positives"] == 0 or row["negatives"] == 0:
            only = "positive" if row["positives"] else "negative"
            _log.warning("%s: all annotated training images are %s; nothing can be learned from it.", where, only)
