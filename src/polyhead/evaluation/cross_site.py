"""Heads on the test images of sites that had no part in them: ``cross_site.csv``.

Sites that release their heads leave one model for all findings, and its predictions for every site's test images, in
``RUN/union/METHOD/seed-N/predictions/SITE/test.parquet``; a finding there is called as by
`polyhead.findings.name_at_site`. One row for each method, seed, head and finding, and other site whose table annotates
the finding by canonical name, whether or not it trained it:

* ``auroc``, ``low``, ``high``: of the head of ``head_site`` on the test images of ``data_site``, with the 95 % interval
  over patients; blank where these images are of one class. ``positives``, ``negatives`` and ``patients`` are counted
  among the annotated.
* ``own``: the AUROC of the head of ``data_site`` itself on the same images, where it has one for the finding, if only
  one that could learn nothing for want of training images with it, or without;
  ``difference`` is ``auroc`` less ``own``, with its interval, both on the same replicates.
* ``finding`` is the canonical name. ``seed`` "all" is the mean over the seeds, replicate by replicate.
* ``replicates_used``: in how many replicates there were both classes.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from polyhead.errors import PredictionsError, RunError
from polyhead.evaluation.bootstrap import estimate
from polyhead.evaluation.collect import Model, check_models
from polyhead.evaluation.compare import check_same_test_set
from polyhead.evaluation.evaluate import measure_site
from polyhead.evaluation.measure import Results
from polyhead.evaluation.result_tables import Row, make_table, write_table
from polyhead.findings import canonical_name, finding_and_site
from polyhead.predictions import read_predictions

__all__ = ["CROSS_SITE", "evaluate_cross_site"]

_TEXT, _NUMBER, _COUNT = pl.String(), pl.Float64(), pl.Int64()

CROSS_SITE: dict[str, pl.DataType] = {
    **dict.fromkeys(("method", "seed", "head_site", "data_site", "finding"), _TEXT),
    **dict.fromkeys(("auroc", "low", "high"), _NUMBER),
    **dict.fromkeys(("positives", "negatives", "patients"), _COUNT),
    **dict.fromkeys(("own", "difference", "difference_low", "difference_high"), _NUMBER),
    "replicates_used": _COUNT,
}

# Before the canonical name: a site's own head, among the heads of others. No name of a finding begins so.
_OWN = "\0"


def evaluate_cross_site(
    run: Path, replicates: int, methods: Sequence[str], aliases: Mapping[str, str]
) -> pl.DataFrame | None:
    """Evaluate released heads on other sites' test images, and write ``RUN/cross_site.csv``.

    Parameters
    ----------
    run
        The run directory, evaluated already.
    replicates
        Of the bootstrap, at least 1.
    methods
        In the order in which they are told.
    aliases
        The study's own synonyms of findings; see `polyhead.findings.canonical_name`.

    Returns
    -------
    polars.DataFrame
        With the columns of `CROSS_SITE`; a number that is not defined is null. None, and no file, if no heads were
        released.

    Raises
    ------
    RunError
        If predictions of a seed are missing.
    PredictionsError
        If predictions cannot be trusted, or were not made for the same images as the site's own.
    """
    folders = {method: _seed_folders(run, method) for method in methods}
    places = sorted({place for seeds in folders.values() for folder in seeds.values() for place in _sites(folder)})
    if not places:
        return None
    rows: list[Row] = []
    for site in places:
        models = [
            _read_model(run, method, seed, folder, site, aliases)
            for method, seeds in folders.items()
            for seed, folder in seeds.items()
        ]
        models = [model for model in models if model.test.height]
        if models:
            check_models(models)
            for method, seeds_of in measure_site(models, replicates).items():
                for seed_or_all, results in seeds_of.items():
                    rows += _rows(method, seed_or_all, site, results, aliases)
    table = make_table(rows, CROSS_SITE)
    write_table(table, run / "cross_site.csv")
    return table


def _seed_folders(run: Path, method: str) -> dict[int, Path]:
    """Return where a method's models of released heads lie, by seed; empty if it has none."""
    root = run / "union" / method
    found = {
        int(path.name.removeprefix("seed-")): path
        for path in root.glob("seed-*")
        if re.fullmatch(r"seed-\d+", path.name)
    }
    wanted = {path.name for path in (run / "predictions" / method).glob("seed-*")}
    if found and (missing := sorted(wanted - {path.name for path in found.values()})):
        raise _unfinished(root / missing[0])
    return dict(sorted(found.items()))


def _unfinished(place: Path) -> RunError:
    return RunError(f"{place}: is not there. Finish the run: the same `polyhead run` goes on with it.")


def _sites(folder: Path) -> list[str]:
    return [path.parent.name for path in folder.glob("predictions/*/test.parquet")]


def _read_model(run: Path, method: str, seed: int, folder: Path, site: str, aliases: Mapping[str, str]) -> Model:
    """Read what other sites' heads predict of a site's annotated test images, and what its own does of the same."""
    file = folder / "predictions" / site / "test.parquet"
    own_file = run / "predictions" / method / f"seed-{seed}" / site / "test.parquet"
    if not file.exists():
        raise _unfinished(file)
    table = read_predictions(file).filter(pl.col("label").is_not_null())
    canonical = {
        name: canonical_name(finding, aliases)
        for name in table["finding"].unique().sort()
        for finding, head_site in [_known(name, file)]
        if head_site != site
    }
    others = table.filter(pl.col("finding").is_in(list(canonical)))
    own = read_predictions(own_file)
    spelled = own["finding"].unique()
    own = own.with_columns(pl.col("finding").replace({name: canonical_name(name, aliases) for name in spelled}))
    own = own.filter(pl.col("finding").is_in(list(canonical.values())), pl.col("label").is_not_null())
    for name, meant in canonical.items():
        if meant in own["finding"]:
            theirs = others.filter(pl.col("finding") == name).with_columns(finding=pl.lit(meant))
            check_same_test_set(theirs, own.filter(pl.col("finding") == meant), (f"{file}, {name!r}", str(own_file)))
    both = pl.concat([others, own.with_columns(finding=pl.lit(_OWN) + pl.col("finding"))])
    return Model(method, seed, site, both, None, str(file))


def _known(name: str, file: Path) -> tuple[str, str]:
    known = finding_and_site(name)
    if known is None:
        raise PredictionsError(
            f"{file}: {name!r} names no site. Allowed: a finding and its site, as 'Edema (harbour)'."
        )
    return known


def _rows(method: str, seed: str, site: str, results: Results, aliases: Mapping[str, str]) -> list[Row]:
    rows: list[Row] = []
    for name, metrics in results.items():
        if name.startswith(_OWN):
            continue
        finding, head_site = finding_and_site(name) or (name, "")
        canonical = canonical_name(finding, aliases)
        auroc, own = metrics["auroc"], results.get(_OWN + canonical)
        own_draws = own["auroc"].draws if own else np.full_like(auroc.draws, np.nan)
        found, difference = estimate(auroc.draws), estimate(auroc.draws - own_draws)
        rows.append(
            (
                *(method, seed, head_site, site, canonical, found.value, found.low, found.high),
                *(auroc.positives, auroc.negatives, len(auroc.patients)),
                *(float(own_draws[0]), difference.value, difference.low, difference.high, found.used),
            )
        )
    return sorted(rows, key=lambda row: (str(row[4]), str(row[2])))
