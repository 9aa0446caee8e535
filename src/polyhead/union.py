"""One model for the findings of several sites: the backbone that all trained, with the heads that some release.

A head leaves its site only where ``release_head = true`` stands under its ``[[site]]``. The rows of these heads are put
side by side on the backbone, but for findings of which a site has no training images with, or none without:

* ``RUN/union/METHOD/seed-N/`` is the model, in three files as any site's. A column is called by the site's own name of
  the finding and the site, ``Edema (harbour)``, since two sites may have trained the same; ``columns`` in
  ``model.json`` says so too. Each keeps the threshold that its site chose on its own validation images.
* ``RUN/union/METHOD/seed-N/predictions/SITE/test.parquet`` is what it predicts on the test images of every site, with
  the labels of whatever the site annotates, by canonical name, whether or not it trained it; blank where it does not.

It takes a method after which the sites have one backbone and private heads; see `why_no_union`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from polyhead.config import Federation, StudyConfig
from polyhead.errors import RunError, StudyError
from polyhead.federation.methods import METHODS, Method
from polyhead.federation.run_dir import model_folder, union_folder
from polyhead.findings import canonical_name, name_at_site
from polyhead.json_file import read_object
from polyhead.manifest import Manifest
from polyhead.predictions import write_predictions
from polyhead.sites import SiteSource, recipe_of
from polyhead.training.dataset import SplitData, load_split
from polyhead.training.model import SiteModel
from polyhead.training.model_file import model_files, save_model
from polyhead.training.predict import predict_split, predictions_table
from polyhead.training.united import unite_heads

__all__ = [
    "Column",
    "check_release",
    "released_columns",
    "union_files",
    "warn_about_release",
    "why_no_union",
    "write_union",
]

_log = logging.getLogger(__name__)

_NOTHING_LEARNED = "no released head has learned anything"


@dataclass(frozen=True)
class Column:
    """A released row of a head: whose, of which finding in the site's own spelling, and its canonical name."""

    site: str
    finding: str
    canonical: str

    @property
    def name(self) -> str:
        """What it is called in the model."""
        return name_at_site(self.finding, self.site)


def why_no_union(method: Method, federation: Federation) -> str | None:
    """Return why a method leaves no backbone that all released heads fit, or None if it does."""
    sharing = method.sharing(federation)
    if sharing.head:
        return "its sites have one head in common already"
    if not sharing.backbone:
        return "its sites share no backbone"
    if not sharing.batch_norm:
        return "BatchNorm stays at each site, so no two have the same backbone"
    if federation.finetune == "full":
        return "finetune = 'full' trains each site's backbone on alone"
    if federation.select == "best":
        return "select = 'best' gives each site the backbone of another round"
    return None


def check_release(study: StudyConfig) -> None:
    """Refuse a study whose sites release heads that no method of it can put together.

    Raises
    ------
    StudyError
        With the reason for each method.
    """
    releasing = [site.name for site in study.site if site.release_head]
    reasons = {name: why_no_union(METHODS[name], study.federation) for name in study.methods if name in METHODS}
    # Methods that there are not are refused elsewhere, by name.
    if releasing and reasons and None not in reasons.values():
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise StudyError(
            f"key 'site.release_head': {', '.join(releasing)} would release a head, and no method of the study can put "
            f"heads on one backbone. {told}. Take the key out, or train by a method that can, such as 'ffl'."
        )


def warn_about_release(study: StudyConfig, sources: Sequence[SiteSource]) -> None:
    """Say which findings of sites that release their heads are left out, since nothing can be learned of them."""
    agreed = {site.name for site in study.site if site.release_head}
    manifests = [source.manifest for source in sources if source.name in agreed]
    for source in sources:
        for finding in source.manifest.findings if source.name in agreed else ():
            if finding not in _learned(source.manifest, [finding]):
                text = "site %s, finding %r: not released: there are no training images with it, or none without."
                _log.warning(text, source.name, finding)
    if agreed and study.privacy.noise and study.federation.finetune != "none":
        _log.warning(
            "key 'federation.finetune': steps after the rounds are without noise, so epsilon does not cover the heads "
            "that are released."
        )
    if agreed and not any(_learned(manifest, manifest.findings) for manifest in manifests):
        _log.warning("there is no model of released heads: %s.", _NOTHING_LEARNED)


def released_columns(study: StudyConfig, method: Method, sources: Sequence[SiteSource]) -> tuple[Column, ...]:
    """Return what a method's model of released heads predicts, by canonical name, then site; empty if there is none."""
    agreed = [site.name for site in study.site if site.release_head]
    if not agreed or why_no_union(method, study.federation):
        return ()
    chosen = method.findings({source.name: source.manifest.findings for source in sources}, study.findings)
    columns = [
        Column(source.name, finding, canonical_name(finding, study.findings.aliases))
        for source in sources
        if source.name in agreed
        for finding in _learned(source.manifest, chosen[source.name])
    ]
    return tuple(sorted(columns, key=lambda column: (column.canonical, column.site)))


def _learned(manifest: Manifest, findings: Sequence[str]) -> list[str]:
    train = manifest.split("train")
    return [finding for finding in findings if {0, 1} <= set(train[finding].unique())]


def union_files(run: Path, study: StudyConfig, method: Method, seed: int, sources: Sequence[SiteSource]) -> list[Path]:
    """Return the files that `write_union` writes; none if it writes none."""
    if not released_columns(study, method, sources):
        return []
    folder = union_folder(run, method.name, seed)
    return [*model_files(folder), *(_predictions(folder, source.name) for source in sources)]


def write_union(
    run: Path,
    study: StudyConfig,
    method: Method,
    seed: int,
    sources: Sequence[SiteSource],
    models: Mapping[str, SiteModel],
) -> None:
    """Put released heads on the backbone, predict every site's test images, and save the model last.

    Parameters
    ----------
    models
        Of every site, as they were saved in `run`.

    Raises
    ------
    RunError
        If the sites' backbones are not the same after all.
    DiskError
        If the disk is full.
    """
    columns = released_columns(study, method, sources)
    if not columns:
        if any(site.release_head for site in study.site):
            reason = why_no_union(method, study.federation) or _NOTHING_LEARNED
            _log.info("%s, seed %d: no model of released heads: %s.", method.name, seed, reason)
        return
    about = _about(run, method.name, seed, columns)
    folder = union_folder(run, method.name, seed)
    union = unite_heads(models, {column.name: (column.site, column.finding) for column in columns})
    for source in sources:
        images = _test_images(source, columns, study.findings.aliases)
        table = predictions_table(images, union.findings, predict_split(union, images))
        write_predictions(table, _predictions(folder, source.name))
    save_model(union, study.model, recipe_of(study), about, folder)


def _predictions(folder: Path, site: str) -> Path:
    # A folder of their own: a site may be called anything, `model.json` too.
    return folder / "predictions" / site / "test.parquet"


def _about(run: Path, method: str, seed: int, columns: Sequence[Column]) -> dict[str, Any]:
    """Return what ``model.json`` says beside the network, of what the sites' own say."""
    sites = list(dict.fromkeys(column.site for column in columns))
    said = {
        site: read_object(model_folder(run, method, seed, site) / "model.json", "Give the same command again.")
        for site in sites
    }
    if len({one["files"]["backbone"]["sha256"] for one in said.values()}) > 1:
        raise RunError(
            f"{method}, seed {seed}: the sites that release their heads ({', '.join(sites)}) have different backbones, "
            "so there can be no model of them. This is a fault of Polyhead, not yours; please report it. Without "
            "'release_head' the study runs."
        )
    return {
        "method": method,
        "seed": seed,
        "sites": sorted(sites),
        "rounds": said[sites[0]]["rounds"],
        "columns": {
            one.name: {"site": one.site, "finding": one.finding, "canonical": one.canonical} for one in columns
        },
        "thresholds": {one.name: said[one.site]["thresholds"][one.finding] for one in columns},
    }


def _test_images(source: SiteSource, columns: Sequence[Column], aliases: Mapping[str, str]) -> SplitData:
    """Return a site's test images with a label for every column, of all that its table annotates."""
    whole = source.whole
    wanted = {one.canonical for one in columns}
    annotated = [name for name in whole.findings if canonical_name(name, aliases) in wanted]
    spelled = _spelled(source.name, annotated, source.manifest.findings, aliases)
    labels = [
        (pl.col(spelled[one.canonical]) if one.canonical in spelled else pl.lit(None, pl.Int8)).alias(one.name)
        for one in columns
    ]
    test = source.manifest.split("test").select("image", "patient_id", "split")
    labelled = test.join(whole.frame.select("image", *labels), on="image", how="left", maintain_order="left")
    names = tuple(one.name for one in columns)
    return load_split(Manifest(whole.path, labelled, names, whole.root), source.cache, "test")


def _spelled(site: str, annotated: Sequence[str], trained: Sequence[str], aliases: Mapping[str, str]) -> dict[str, str]:
    """Return a site's spelling of each canonical name; of several, what it trains."""
    found: dict[str, list[str]] = {}
    for name in sorted(annotated, key=lambda name: name not in trained):
        found.setdefault(canonical_name(name, aliases), []).append(name)
    for canonical, names in found.items():
        if len(names) > 1 and names[0] not in trained:
            _log.warning(
                "site %s: %s and %s both mean %r, so heads of other sites are not tested on it here.",
                *(site, repr(names[0]), repr(names[1]), canonical),
            )
    return {canonical: names[0] for canonical, names in found.items() if len(names) == 1 or names[0] in trained}
