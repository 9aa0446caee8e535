"""From the finished runs of `studies.py` to the one table that docs/evidence.md and its figures are made of.

    python examples/evidence/results.py [--runs runs/evidence] [--out docs/evidence.csv]

A row holds a method of a study at a site against another with the same seeds and images: against training alone
(`local`) with the same steps; where a study has `conventional`, `ffl` also against that, on the findings that all
annotate; and against what stands beside it in `STUDIES`, from which it differs in one thing. `against` is that method,
of which study if of another, and `reference` its mean AUROC over findings and seeds on the site's test images.

`difference` is the mean AUROC minus that, with its 95 % interval over patients and p; `lowest_seed` and `highest_seed`
are those of a single seed. `validation_...` is the same on the site's validation images, by which defaults are chosen.
`findings` are those that both predict and of which the images have both classes: fewer on validation, and others for
`conventional` than for `ffl`. `replicates` is how many of the bootstrap's had both classes of all of them: with few
patients fewer, and the interval is then too narrow. `sent_mb` and `seconds` are those of a seed: what the site sends,
and what the rounds of all sites take. `central` takes the steps of all sites together, and sends no updates but every
image: there `sent_mb` is blank. What is not finished is left out, and so is a site whose data are not the same in both.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import polars as pl
from studies import STUDIES, study_text

from polyhead.begun import study_as_begun
from polyhead.evaluation import MEAN
from polyhead.evaluation.collect import Model, read_run
from polyhead.evaluation.evaluate import evaluate_models
from polyhead.finished import check_predictions_of

REPLICATES = 2000
# What a study without `local` of its own is held against, if it names no other. `reset-150` differs from it in how an
# optimizer goes on, too, so its gain is not that of the averaging alone.
BASE = "size-150"


def rows(runs: Path) -> Iterator[dict[str, object]]:
    """Yield a row for each study, site and method that shares and what that is held against, of what is finished."""
    for study, about in STUDIES.items():
        for method in about["methods"]:
            for other, against in held_against(study, method):
                if finished(runs / study) and finished(runs / other):
                    for site in alike(study, other):
                        yield row(runs, study, method, other, site, against)


def held_against(study: str, method: str) -> list[tuple[str, str]]:
    """Return what a method of a study is held against: studies, and a method of each."""
    about = STUDIES[study]
    if method == "local":
        return []
    found = [(study if "local" in about["methods"] else about.get("alone", BASE), "local")]
    if method == "ffl" and "conventional" in about["methods"]:
        found.append((study, "conventional"))
    found += [(other, against or method) for other, against in about.get("beside", [])]
    return [pair for pair in found if pair != (study, method)]


def label(study: str, other: str, against: str) -> str:
    """Return how a row calls what it is held against."""
    return against if against == "local" or other == study else f"{against} of {other}"


def alike(study: str, other: str) -> list[str]:
    """Return the sites that two studies give the same images and labels: only there can their models be compared."""
    return sorted(site["name"] for site in STUDIES[study]["site"] if site in STUDIES[other]["site"])


@cache
def finished(run: Path) -> bool:
    """Tell whether a study ran to its end.

    Raises
    ------
    SystemExit
        If it is not the study that `STUDIES` has under its name: its rows would be called what they are not.
    RunError
        If its predictions were changed since.
    """
    if not (run / "report.html").exists():
        return False
    began, asked = (
        study_as_begun(run, text, run.parent) for text in ((run / "study.toml").read_text(), study_text(run.name))
    )
    if began != asked:
        raise SystemExit(f"{run}: is of another study than studies.py has under this name. Move it away, run it again.")
    check_predictions_of(run)
    return True


def row(runs: Path, study: str, method: str, other: str, site: str, against: str) -> dict[str, object]:
    """Compare a method with another of another study, or of the same, at a site."""
    ours, reference = models(runs / study, method)[site], models(runs / other, against)[site]
    test, validation = compared(ours, reference, "test"), compared(ours, reference, "val")
    rounds = pl.read_csv(runs / study / "rounds.csv").filter(method=method)
    here = rounds.filter(site=site)
    return {
        **{"study": study, "method": method, "site": site, "against": label(study, other, against), "seeds": len(ours)},
        **test,
        **{f"validation_{key}": value for key, value in validation.items()},
        "sent_mb": float(here["bytes_up"].sum()) / len(ours) / 1e6 if len(here) else None,
        "seconds": float(rounds["seconds"].sum()) / len(ours),
    }


@cache
def models(run: Path, method: str) -> dict[str, list[Model]]:
    """Return what a method predicted, by site."""
    return {found[0].site: found for found in read_run(run, [method])}


def compared(ours: list[Model], reference: list[Model], split: str) -> dict[str, float | None]:
    """Compare the means over findings, on the images of a split."""
    both = [of_split(model, "reference", split) for model in reference] + [of_split(m, "ours", split) for m in ours]
    found = evaluate_models([both], REPLICATES)
    mean = found.comparisons.filter(finding=MEAN).row(0, named=True)
    # Of the findings that both predict, as the comparison is.
    common = set(reference[0].test["finding"]) & set(ours[0].test["finding"])
    seeds = (
        found.metrics.filter(pl.col("finding").is_in(common), pl.col("seed") != "all", metric="auroc")
        .group_by("method", "seed")
        .agg(pl.col("value").mean())
        .pivot("method", index="seed", values="value")
        .select(pl.col("ours") - pl.col("reference"))
        .to_series()
    )
    held = found.metrics.filter(pl.col("finding").is_in(common), method="reference", seed="all", metric="auroc")
    return {
        **{"findings": held["value"].count(), "patients": held["patients"].max(), "reference": held["value"].mean()},
        **{key: mean[key] for key in ("difference", "low", "high", "p")},
        **{"replicates": mean["replicates_used"], "lowest_seed": seeds.min(), "highest_seed": seeds.max()},
    }


def of_split(model: Model, method: str, split: str) -> Model:
    """Return a model under another name, with one split's predictions in the place of its test images'."""
    table = {"test": model.test, "val": model.val}[split]
    if table is None:
        raise SystemExit(f"{model.name}: no predictions of validation images.")
    return replace(model, method=method, test=table, val=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--out", type=Path, default=Path("docs/evidence.csv"))
    options = parser.parse_args()
    table = pl.DataFrame(list(rows(options.runs)))
    table.with_columns(pl.selectors.float().round_sig_figs(6)).write_csv(options.out)
    print(f"{len(table)} rows: {options.out}")


if __name__ == "__main__":
    main()
