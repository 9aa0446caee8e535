"""Where predictions lie, and which of them belong together: one site's tables, of every method and seed."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby, product
from pathlib import Path

import polars as pl

from polyhead.errors import PredictionsError, RunError
from polyhead.evaluation.compare import check_same_test_set
from polyhead.evaluation.measure import MEAN
from polyhead.predictions import read_predictions

__all__ = ["NO_SITE", "Model", "check_complete", "check_models", "read_files", "read_run"]

NO_SITE = "-"

_BASELINES = {"local": 0, "conventional": 1}


@dataclass(frozen=True)
class Model:
    """What one trained model predicted: a method, a seed, at a site.

    Attributes
    ----------
    method, seed, site
        Which model; ``site`` is `NO_SITE` for predictions that come without.
    test, val
        Tables with the columns of `polyhead.predictions.COLUMNS`; ``val`` is None where there are no validation data.
    name
        What messages call it: the file or folder.
    """

    method: str
    seed: int
    site: str
    test: pl.DataFrame
    val: pl.DataFrame | None
    name: str


def read_run(run: Path, methods: Sequence[str] | None = None) -> Iterator[list[Model]]:
    """Read ``RUN/predictions/METHOD/seed-N/SITE/{val,test}.parquet``, one site at a time.

    Parameters
    ----------
    run
        The run directory.
    methods
        Those to read, by default all. In whatever order they are named, local and conventional come first, since they
        are what others are compared with.

    Yields
    ------
    list of Model
        Of one site, in order of method, then seed; sites in alphabetical order.

    Raises
    ------
    RunError
        If there are no predictions, or none of a method that was asked for.
    PredictionsError
        As `polyhead.predictions.read_predictions`.
    """
    root = run / "predictions"
    folders = [path for path in sorted(root.glob("*/*/*")) if path.is_dir() and not _hidden(path.relative_to(root))]
    found = _baselines_first(sorted({_method(folder) for folder in folders}))
    wanted = found if methods is None else _baselines_first(methods)
    for method in wanted or ["any method"]:
        if method not in found:
            raise RunError(f"{root}: no predictions of {method}; found: {', '.join(found) or 'none'}. Finish the run.")
    for site in sorted({folder.name for folder in folders if _method(folder) in wanted}):
        models = [_read_model(folder) for folder in folders if folder.name == site and _method(folder) in wanted]
        yield sorted(models, key=lambda model: (wanted.index(model.method), model.seed))


def _baselines_first(methods: Sequence[str]) -> list[str]:
    return sorted(methods, key=lambda method: _BASELINES.get(method, 2))


def check_complete(run: Path, methods: Sequence[str], seeds: Sequence[int], sites: Sequence[str]) -> None:
    """Refuse a run that lacks predictions of a method, seed and site of its study.

    Raises
    ------
    RunError
        Naming the first that is missing.
    """
    for method, seed, site in product(methods, seeds, sites):
        folder = run / "predictions" / method / f"seed-{seed}" / site
        if not (folder / "test.parquet").exists():
            raise RunError(f"{folder}: no predictions. Finish the run: the same `polyhead run` goes on with it.")


def read_files(paths: Sequence[Path]) -> list[Model]:
    """Read files of predictions on one test set; each is a method, named by the file without its ending.

    Raises
    ------
    PredictionsError
        If there are none, or two with the same name.
    """
    names = Counter(path.stem for path in paths)
    twice = [name for name, count in names.items() if count > 1]
    if twice or not paths:
        found = f"{names[twice[0]]} files are called {twice[0]!r}" if twice else "no file was given"
        raise PredictionsError(f"Predictions: {found}. Give each method a file of its own name.")
    return [Model(path.stem, 0, NO_SITE, read_predictions(path), None, str(path)) for path in paths]


def check_models(models: Sequence[Model]) -> None:
    """Refuse models of a site that may not be compared or averaged.

    Raises
    ------
    RunError
        If two methods were not trained with the same seeds.
    PredictionsError
        If the test sets differ, the seeds of a method predict different findings, an image belongs to two patients,
        or a finding is called `MEAN`.
    """
    for model in models:
        _check_names(model)
    methods = [list(group) for _, group in groupby(models, key=lambda model: model.method)]
    for first, *others in methods:
        for other in others:
            check_same_test_set(first.test, other.test, (first.name, other.name))
            _check_same_findings(first, other)
    for reference, method in combinations(methods, 2):
        check_same_test_set(reference[0].test, method[0].test, (reference[0].name, method[0].name))
        _check_same_seeds(reference, method)


def _check_same_findings(first: Model, other: Model) -> None:
    odd = sorted(set(first.test["finding"].unique()) ^ set(other.test["finding"].unique()))
    if odd:
        raise PredictionsError(
            f"{first.name} and {other.name}: only one of them predicts {odd[0]!r}. "
            "The seeds of a method are averaged, so they must predict the same findings."
        )


def _check_same_seeds(reference: Sequence[Model], method: Sequence[Model]) -> None:
    seeds, others = ([model.seed for model in models] for models in (reference, method))
    if seeds != others:
        raise RunError(
            f"site {method[0].site}: {reference[0].method} has the seeds {seeds}, but {method[0].method} has {others}. "
            "Methods are compared over the same seeds: finish the run first."
        )


def _method(folder: Path) -> str:
    return folder.parent.parent.name


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _read_model(folder: Path) -> Model:
    seed = re.fullmatch(r"seed-(\d+)", folder.parent.name)
    if seed is None:
        raise RunError(f"{folder.parent}: not a seed's folder. Allowed: seed-0, seed-1, ...; rename or remove it.")
    test, val = (read_predictions(folder / f"{split}.parquet") for split in ("test", "val"))
    return Model(_method(folder), int(seed[1]), folder.name, test, val, str(folder))


def _check_names(model: Model) -> None:
    for table in (model.test, model.val):
        if table is None:
            continue
        if MEAN in table["finding"]:
            raise PredictionsError(
                f"{model.name}: a finding is called {MEAN!r}, which is the average's name. Rename it."
            )
        patients = table.lazy().group_by("image").agg(pl.col("patient_id").unique().sort())
        shared = patients.filter(pl.col("patient_id").list.len() > 1).sort("image").head(1).collect()
        for image, names in shared.rows():
            raise PredictionsError(
                f"{model.name}: image {image!r} belongs to the patients {', '.join(map(repr, names))}. "
                "Allowed: one patient for each image."
            )
