"""A small run directory with made-up numbers, in the shape that a real one has."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from polyhead.findings import canonical_name
from polyhead.predictions import write_predictions

SITES = {
    "Lakeside": ("Pneumothorax", "Effusion", "Device"),
    "Northern Hospital": ("pleural_effusion", "Cardiomegaly"),
    "Rural": ("Pleural Effusion", "Viral Pneumonia", "Nodule"),
}
ONE_CLASS = "Device"  # no test patient has it
PATIENTS = {"train": 400, "val": 80, "test": 160}


@dataclass(frozen=True)
class Plan:
    """What to make up."""

    sites: dict[str, tuple[str, ...]]
    methods: Sequence[str] = ("local", "conventional", "ffl")
    seeds: Sequence[int] = (0, 1)
    rounds: int = 12
    patients: int = PATIENTS["test"]


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes up a run directory."""

    def make(sites: dict[str, tuple[str, ...]] | None = None, **changes: object) -> Path:
        folder = tmp_path / "run"
        build_run(folder, Plan(sites or SITES, **changes))  # type: ignore[arg-type]
        return folder

    return make


def build_run(folder: Path, plan: Plan) -> None:
    """Write a whole run directory."""
    folder.mkdir(parents=True)
    (folder / "study.toml").write_text(study_toml(plan))
    environment = {"polyhead": "0.1.0", "python": "3.13.1", "device": "cpu", "seeds": list(plan.seeds), "commit": None}
    (folder / "environment.json").write_text(json.dumps(environment | {"versions": {"torch": "2.13.0"}}))
    rng = np.random.default_rng(4)
    pl.DataFrame(list(site_rows(plan))).write_csv(folder / "sites.csv")
    pl.DataFrame(list(round_rows(plan, rng))).write_csv(folder / "rounds.csv")
    singly = list(metric_rows(folder, plan, rng))
    pl.DataFrame(singly + overall_rows(singly), infer_schema_length=None).write_csv(folder / "metrics.csv")
    comparisons = list(comparison_rows(plan, singly, rng))
    schema = dict.fromkeys(("method", "reference", "site", "finding", "metric"), pl.String)
    schema |= dict.fromkeys(("difference", "low", "high", "p", "p_holm"), pl.Float64)
    pl.DataFrame(comparisons, schema=schema).write_csv(folder / "comparisons.csv")


def study_toml(plan: Plan) -> str:
    """Return the study file; names of findings are quoted as JSON, which TOML reads too."""
    tables = "\n".join(
        f'[[site]]\nname = "{site}"\nmanifest = "../sites/{place}/manifest.csv"\nfindings = {json.dumps(findings)}\n'
        for place, (site, findings) in enumerate(plan.sites.items())
    )
    head = f'name = "A made-up study"\nseeds = {list(plan.seeds)}\nmethods = {json.dumps(list(plan.methods))}\n'
    return f"{head}\n{tables}\n[federation]\nrounds = {plan.rounds}\n\n[training]\nlearning_rate = 5e-4\n"


def site_rows(plan):
    for site, findings in plan.sites.items():
        for place, finding in enumerate(findings):
            for split, patients in PATIENTS.items():
                images = patients + patients // 10
                blank = images * 3 // 4 if place == 1 else 0
                positives = 0 if finding == ONE_CLASS and split == "test" else (images - blank) // (place + 3)
                yield {
                    "site": site,
                    "finding": finding,
                    "canonical": canonical_name(finding),
                    "split": split,
                    "positives": positives,
                    "negatives": images - blank - positives,
                    "blank": blank,
                    "images": images,
                    "patients": patients,
                }


def round_rows(plan, rng):
    for method in plan.methods:
        for seed in plan.seeds:
            for number in range(plan.rounds):
                for site in plan.sites:
                    lost = number == 3 and method == "ffl" and site == "Rural"
                    loss = 0.7 * 0.9**number + 0.1 + 0.02 * rng.standard_normal()
                    sent = 0 if method == "local" else 11_234_567
                    yield {
                        "method": method,
                        "seed": seed,
                        "round": number,
                        "site": site,
                        "loss": None if lost else loss,
                        "seconds": 1.5 + 0.2 * rng.random(),
                        "bytes_up": sent,
                        "bytes_down": sent,
                        "status": "no reply" if lost else "averaged" if sent else "alone",
                    }


def predicted(plan, method, findings):
    """Return the findings of a site that a method predicts: conventional knows only those of every site."""
    if method != "conventional":
        return findings
    sets = [{canonical_name(one) for one in names} for names in plan.sites.values()]
    return tuple(one for one in findings if canonical_name(one) in set.intersection(*sets))


def metric_rows(folder, plan, rng):
    for site, findings in plan.sites.items():
        truth = {name: rng.random(plan.patients) < max(0.3 - 0.05 * place, 0.08) for place, name in enumerate(findings)}
        for seed in plan.seeds:
            ease = {name: rng.uniform(0.8, 2) for name in findings}
            for method in plan.methods:
                names = predicted(plan, method, findings)
                skill = {"local": 0.0, "conventional": 0.15, "ffl": 0.25}.get(method, 0.1)
                shift = skill if site == "Lakeside" else -skill / 2
                tables = [scores(name, truth[name], ease[name] + shift, rng) for name in names]
                if not tables:
                    continue
                target = folder / "predictions" / method / f"seed-{seed}" / site / "test.parquet"
                write_predictions(pl.concat(tables), target)
                keys = {"method": method, "seed": str(seed), "site": site}
                yield from site_metrics(keys, tables, rng)


def scores(finding, truth, ease, rng):
    patients = [f"p{number}" for number in range(len(truth))]
    label = np.zeros(len(truth), int) if finding == ONE_CLASS else truth.astype(int)
    score = 1 / (1 + np.exp(-(label * ease + rng.standard_normal(len(truth)) - 1)))
    columns = {"image": [f"{one}.png" for one in patients], "patient_id": patients, "finding": finding}
    return pl.DataFrame(columns | {"label": label, "score": score})


def site_metrics(keys, tables, rng):
    values = []
    for table in tables:
        label, score = table["label"].to_numpy(), table["score"].to_numpy()
        counts = {"positives": int(label.sum()), "negatives": int((1 - label).sum()), "patients": len(label)}
        value = roc_auc_score(label, score) if 0 < label.sum() < len(label) else None
        values += [value] if value is not None else []
        row = keys | {"finding": table["finding"][0]}
        yield row | {"metric": "auroc"} | spread(value, rng) | counts
        yield row | {"metric": "threshold", "value": 0.3 + 0.1 * rng.random(), "low": None, "high": None} | counts
        yield row | {"metric": "sensitivity"} | spread(None if value is None else value - 0.06, rng) | counts
        yield row | {"metric": "specificity"} | spread(None if value is None else value - 0.09, rng) | counts
    mean = float(np.mean(values)) if values else None
    empty = {"positives": None, "negatives": None, "patients": len(tables[0])}
    yield keys | {"finding": "mean", "metric": "auroc"} | spread(mean, rng) | empty


def spread(value, rng):
    if value is None:
        return {"value": None, "low": None, "high": None}
    half = 0.02 + 0.05 * rng.random()
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half)}


def overall_rows(singly):
    table = pl.DataFrame(singly, infer_schema_length=None).filter(pl.col("metric") != "threshold")
    keys = ("method", "site", "finding", "metric")
    means = table.group_by(keys, maintain_order=True).agg(pl.exclude("seed").mean())
    whole = means.with_columns(pl.col("positives", "negatives", "patients").round().cast(pl.Int64), seed=pl.lit("all"))
    return whole.to_dicts()


def comparison_rows(plan, singly, rng):
    table = pl.DataFrame(singly, infer_schema_length=None).filter(pl.col("metric") == "auroc")
    for place, method in enumerate(plan.methods):
        for reference in plan.methods[:place]:
            for site, findings in plan.sites.items():
                common = [
                    one for one in findings if one in predicted(plan, reference, predicted(plan, method, findings))
                ]
                found = [paired(table, method, reference, site, one) for one in common]
                known = [one for one in found if one is not None]
                mean = float(np.mean(known)) if known else None
                for finding, value in [*zip(common, found, strict=True), *([("mean", mean)] if common else [])]:
                    yield {"method": method, "reference": reference, "site": site, "finding": finding} | tested(
                        value, finding, rng
                    )


def paired(table, method, reference, site, finding):
    of = table.filter((pl.col("site") == site) & (pl.col("finding") == finding))
    ours, theirs = (of.filter(pl.col("method") == name)["value"].mean() for name in (method, reference))
    return None if ours is None or theirs is None else ours - theirs


def tested(value, finding, rng):
    if value is None:
        return {"metric": "auroc", "difference": None, "low": None, "high": None, "p": None, "p_holm": None}
    half = 0.02 + 0.04 * rng.random()
    p = float(np.exp(-2 * (value / half * 1.4) ** 2))
    return {
        "metric": "auroc",
        "difference": value,
        "low": value - half,
        "high": value + half,
        "p": p,
        "p_holm": p if finding == "mean" else min(1.0, 2 * p),
    }
