"""A run directory, read for the report: its tables checked, and put into the study's order.

The order of rows in the files never matters: methods and sites follow the study file, findings the site's own list, or
the alphabet where the study names none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from polyhead.begun import study_as_begun
from polyhead.config import StudyConfig
from polyhead.errors import RunError
from polyhead.evaluation import ALL_SEEDS as OVERALL
from polyhead.evaluation import MEAN
from polyhead.report.run_files import AT_HOME, COLUMNS, command, read_object, read_table, read_text

__all__ = ["MEAN", "OVERALL", "Comparison", "Estimate", "RunTables", "load_run"]


_PRIVACY, _CROSS_SITE = "privacy.csv", "cross_site.csv"
_COUNTS = {
    **dict.fromkeys(COLUMNS["sites.csv"][0].split(), pl.String),
    **dict.fromkeys(COLUMNS["sites.csv"][1].split(), pl.Float64),
}


@dataclass(frozen=True)
class Estimate:
    """A row of ``metrics.csv``; what is not available is None."""

    value: float | None
    low: float | None
    high: float | None
    positives: float | None
    negatives: float | None
    patients: float | None


@dataclass(frozen=True)
class Comparison:
    """A row of ``comparisons.csv``; what is not available is None."""

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class RunTables:
    """A run, as the report sees it.

    Attributes
    ----------
    folder, study, toml, environment
        Where it lies, its settings, the study file's text and the contents of ``environment.json``.
    sources
        For each site the choices behind its labels, ``{site: {choice: value}}``; without the sites that record none.
    methods, seeds, sites
        In the study's order; only what was evaluated.
    findings
        For each site its findings, in its own spelling.
    counts, rounds
        ``sites.csv`` and ``rounds.csv``; of hospitals in houses of their own there are no counts.
    privacy, cross_site
        ``privacy.csv``: what each method costs each site's patients; empty if the study has no noise.
        ``cross_site.csv``: released heads on other sites' test images; empty if there are none.
    metrics
        By (method, seed, site, finding, metric).
    comparisons
        Differences in AUROC by (method, reference, site, finding).
    replicates
        Bootstrap replicates behind the intervals.
    at_home
        Whether each hospital evaluated in its own house, and sent what it releases: there are no predictions here.
    silent
        Then: the hospitals of which there are no results, each with the reason.
    """

    folder: Path
    study: StudyConfig
    toml: str
    environment: dict[str, Any]
    sources: dict[str, dict[str, Any]]
    methods: tuple[str, ...]
    seeds: tuple[str, ...]
    sites: tuple[str, ...]
    findings: dict[str, tuple[str, ...]]
    counts: pl.DataFrame
    rounds: pl.DataFrame
    privacy: pl.DataFrame
    cross_site: pl.DataFrame
    metrics: dict[tuple[str, str, str, str, str], Estimate]
    comparisons: dict[tuple[str, str, str, str], Comparison]
    replicates: int
    at_home: bool
    silent: dict[str, str]

    def metric(self, method: str, seed: str, site: str, finding: str, metric: str) -> Estimate | None:
        """Return one number with its interval, or None if the method does not predict that finding there."""
        return self.metrics.get((method, seed, site, finding, metric))

    @property
    def pools(self) -> tuple[str, ...]:
        """The names under which images of all sites were trained on in one place: in the rounds, but no site's."""
        sites = {site.name for site in self.study.site}
        return tuple(sorted(set(self.rounds["site"]) - sites))

    def averaged(self, method: str, site: str) -> int:
        """Count the findings that a method's mean at a site goes over; two means over other findings do not compare."""
        found = (self.metric(method, OVERALL, site, finding, "auroc") for finding in self.findings[site])
        return sum(one is not None and one.value is not None for one in found)


def load_run(folder: Path) -> RunTables:
    """Read what the report shows.

    Raises
    ------
    RunError
        A file is missing or cannot be read: its name, what is wrong, and the command that makes it.
    """
    toml = read_text(folder, "study.toml")
    study = study_as_begun(folder, toml, folder)
    at_home, silent = _read_silent(folder)
    counts = pl.DataFrame(schema=_COUNTS) if at_home else read_table(folder, "sites.csv")
    rounds = read_table(folder, "rounds.csv")
    metrics = _with_overall(folder, read_table(folder, "metrics.csv"))
    # Where nothing is released, there is still the training to be told of.
    methods = _ordered(metrics["method"], study.methods) or tuple(study.methods)
    names = [site.name for site in study.site]
    sites = _ordered([*metrics["site"], *silent], names)
    return RunTables(
        folder=folder,
        study=study,
        toml=toml,
        environment=read_object(folder, "environment.json"),
        sources=_read_sources(folder),
        methods=methods,
        seeds=_seeds(metrics, study),
        sites=sites,
        findings={site: _findings(study, site, counts, metrics) for site in sites},
        counts=counts,
        rounds=rounds,
        privacy=read_table(folder, _PRIVACY) if (folder / _PRIVACY).exists() else pl.DataFrame(),
        cross_site=read_table(folder, _CROSS_SITE) if (folder / _CROSS_SITE).exists() else pl.DataFrame(),
        metrics=_estimates(metrics),
        comparisons=_comparisons(folder, several=len(methods) > 1),
        replicates=_replicates(metrics, study),
        at_home=at_home,
        silent=silent,
    )


def _seeds(metrics: pl.DataFrame, study: StudyConfig) -> tuple[str, ...]:
    known = [str(seed) for seed in study.seeds]
    return _ordered(metrics.filter(pl.col("seed") != OVERALL)["seed"], known) or tuple(known)


def _read_silent(folder: Path) -> tuple[bool, dict[str, str]]:
    """Read which hospitals of a deployed study sent no results; of a run in one place there is no such file."""
    if not (folder / AT_HOME).exists():
        return False, {}
    found = read_object(folder, AT_HOME).get("silent")
    if not isinstance(found, dict):
        raise RunError(f"{folder / AT_HOME}: no object 'silent'.")
    return True, {str(site): str(reason) for site, reason in found.items()}


def _replicates(metrics: pl.DataFrame, study: StudyConfig) -> int:
    """Return how many replicates were drawn, which `polyhead evaluate` may have chosen otherwise than the study."""
    if "replicates_used" not in metrics.columns:
        return study.evaluation.replicates
    used = metrics["replicates_used"].cast(pl.Int64, strict=False).max()
    return used if isinstance(used, int) else study.evaluation.replicates


def _estimates(metrics: pl.DataFrame) -> dict[tuple[str, str, str, str, str], Estimate]:
    keys = metrics.select("method", "seed", "site", "finding", "metric").rows()
    return {key: Estimate(*row) for key, row in zip(keys, _numbers(metrics, Estimate).rows(), strict=True)}


def _comparisons(folder: Path, several: bool) -> dict[tuple[str, str, str, str], Comparison]:
    """Read the comparisons of AUROC; a study of one method need not have the file."""
    if not several and not (folder / "comparisons.csv").exists():
        return {}
    table = read_table(folder, "comparisons.csv").filter(pl.col("metric") == "auroc")
    keys = table.select("method", "reference", "site", "finding").rows()
    return {key: Comparison(*row) for key, row in zip(keys, _numbers(table, Comparison).rows(), strict=True)}


def _numbers(table: pl.DataFrame, row: type[Estimate] | type[Comparison]) -> pl.DataFrame:
    return table.select(*row.__dataclass_fields__)


def _with_overall(folder: Path, metrics: pl.DataFrame) -> pl.DataFrame:
    """Let a single seed stand for all of them if the table has no rows of its own for that."""
    if metrics.is_empty() or (metrics["seed"] == OVERALL).any():
        return metrics
    if metrics["seed"].n_unique() != 1:
        raise RunError(
            f"{folder / 'metrics.csv'}: no rows with seed 'all'. Make them: {command('metrics.csv', folder)}"
        )
    return pl.concat([metrics, metrics.with_columns(pl.lit(OVERALL).alias("seed"))])


def _findings(study: StudyConfig, site: str, counts: pl.DataFrame, metrics: pl.DataFrame) -> tuple[str, ...]:
    named = next((one.findings for one in study.site if one.name == site), None)
    seen = [table.filter(pl.col("site") == site)["finding"] for table in (counts, metrics)]
    return _ordered((name for names in seen for name in names if name != MEAN), named or [])


def _ordered(found: Iterable[str], first: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct values of `found`: those of `first` in its order, then the others by name."""
    values = set(found)
    return (*(name for name in first if name in values), *sorted(values - set(first)))


def _read_sources(folder: Path) -> dict[str, dict[str, Any]]:
    if not (folder / "sources.json").exists():
        return {}
    sources = read_object(folder, "sources.json")
    for site, choices in sources.items():
        if not isinstance(choices, dict):
            raise RunError(f"{folder / 'sources.json'}, key {site!r}: found {choices!r}; an object is needed.")
    return sources
