"""One model of released heads: what is in it, what it predicts, how it does on other sites' patients."""

import csv
import io
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from polyhead import study as study_module
from polyhead import union as union_module
from polyhead.check.study import check_study
from polyhead.errors import RunError, StudyError
from polyhead.evaluation import evaluate_cross_site
from polyhead.federation.methods import METHODS
from polyhead.findings import canonical_name
from polyhead.phantom import Acquisition, write_site
from polyhead.sites import open_site, read_site
from polyhead.study import run_study
from polyhead.study_file import load_study, parse_study
from polyhead.summary import print_summary
from polyhead.training.dataset import load_split
from polyhead.training.model_file import load_model
from polyhead.training.predict import predict_split
from polyhead.union import warn_about_release, why_no_union
from tests.conftest import TINY_SETTINGS, write_two_sites

QUIET = Console(quiet=True)

# What each table calls it; each site annotates one finding that it does not train, and c keeps its head.
TABLES = {
    "a": {"Pleural Effusion": "Pleural Effusion", "Cardiomegaly": "Cardiomegaly", "Edema": "oedema"},
    "b": {"Pleural Effusion": "effusion", "Edema": "Edema", "Cardiomegaly": "enlarged_heart"},
    "c": {"Cardiomegaly": "Cardiomegaly", "Nodule": "Nodule", "Edema": "EDEMA"},
}
TRAINED = {"a": ["Pleural Effusion", "Cardiomegaly"], "b": ["effusion", "Edema"], "c": ["Cardiomegaly", "Nodule"]}
COLUMNS = ["Cardiomegaly (a)", "Edema (b)", "Pleural Effusion (a)", "effusion (b)"]
# Head of, on the patients of, finding: whether that site has a head of its own for it.
MATRIX = {
    ("a", "b", "Cardiomegaly"): False,
    ("a", "b", "Pleural Effusion"): True,
    ("a", "c", "Cardiomegaly"): True,
    ("b", "a", "Edema"): False,
    ("b", "a", "Pleural Effusion"): True,
    ("b", "c", "Edema"): False,
}


def write_tables(folder: Path) -> None:
    for place, (site, names) in enumerate(TABLES.items()):
        size = {"train": 24, "val": 12, "test": 24}
        write_site(folder / site, site=site, findings=[*names], acquisition=Acquisition(), seed=place, size=32, **size)
        file = folder / site / "manifest.csv"
        pl.read_csv(file, infer_schema=False).rename(names).write_csv(file)


def study_text(releasing: str = "ab", methods: str = '"local", "ffl"', settings: str = TINY_SETTINGS) -> str:
    sites = "".join(
        f'[[site]]\nname = "{site}"\nmanifest = "{site}/manifest.csv"\nfindings = {json.dumps(findings)}\n'
        + ("release_head = true\n" if site in releasing else "")
        for site, findings in TRAINED.items()
    )
    return f'name = "union"\nseeds = [0, 1]\nmethods = [{methods}]\n{sites}{settings}'


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("union")
    write_tables(folder)
    return folder


def start(folder: Path, name: str, text: str) -> Path:
    (folder / f"{name}.toml").write_text(text)
    run_study(folder / f"{name}.toml", folder / name, QUIET)
    return folder / name


@pytest.fixture(scope="module")
def run(tables: Path) -> Path:
    return start(tables, "run", study_text())


def union_of(run: Path, seed: int) -> Path:
    return run / f"union/ffl/seed-{seed}"


def predictions(run: Path, seed: int, site: str) -> pl.DataFrame:
    return pl.read_parquet(union_of(run, seed) / f"predictions/{site}/test.parquet")


def cross_site(run: Path) -> list[dict[str, Any]]:
    return pl.read_csv(run / "cross_site.csv", schema_overrides={"seed": pl.String}).to_dicts()


@pytest.mark.parametrize("seed", [0, 1])
def test_its_rows_are_those_of_the_sites_heads_bit_for_bit(run: Path, seed: int) -> None:
    head, models = load_file(union_of(run, seed) / "head.safetensors"), run / f"models/ffl/seed-{seed}"
    said = json.loads((union_of(run, seed) / "model.json").read_text())
    assert said["findings"] == COLUMNS == list(said["columns"])
    for place, column in enumerate(said["columns"].values()):
        site = models / column["site"]
        own = json.loads((site / "model.json").read_text())
        theirs, row = load_file(site / "head.safetensors"), own["findings"].index(column["finding"])
        assert torch.equal(head["weight"][place], theirs["weight"][row])
        assert torch.equal(head["bias"][place], theirs["bias"][row])
        assert said["thresholds"][COLUMNS[place]] == own["thresholds"][column["finding"]]
        backbones = [(folder / "backbone.safetensors").read_bytes() for folder in (site, union_of(run, seed))]
        assert backbones[0] == backbones[1]
    assert (said["method"], said["seed"], said["rounds"], said["sites"]) == ("ffl", seed, 2, ["a", "b"])


@pytest.mark.parametrize("seed", [0, 1])
def test_its_columns_are_what_the_sites_own_heads_say_of_the_same_images(run: Path, seed: int) -> None:
    """But for the last bits of a logit: a matrix product of more columns may sum in another order."""
    for site in "ab":
        own = pl.read_parquet(run / f"predictions/ffl/seed-{seed}/{site}/test.parquet")
        for finding in TRAINED[site]:
            ours = predictions(run, seed, site).filter(pl.col("finding") == f"{finding} ({site})")
            theirs = own.filter(pl.col("finding") == finding)
            assert ours.select("image", "patient_id", "label").equals(theirs.select("image", "patient_id", "label"))
            assert np.allclose(ours["score"], theirs["score"], rtol=0, atol=1e-6)
            assert theirs["score"].n_unique() > 10


def test_it_is_a_model_as_any_other(run: Path) -> None:
    """Read from its folder it predicts what the run wrote: what opens a site's model opens it."""
    model = load_model(union_of(run, 0))
    assert list(model.findings) == COLUMNS
    for site in TABLES:
        scores = predict_split(model, images_of(run, site)[0])
        written = predictions(run, 0, site)["score"].to_numpy().reshape(len(COLUMNS), -1).T
        assert np.allclose(scores, written, rtol=0, atol=1e-6)


def test_of_a_site_that_did_not_agree_nothing_is_in_it(run: Path) -> None:
    for seed in (0, 1):
        theirs = load_file(run / f"models/ffl/seed-{seed}/c/head.safetensors")
        secrets = [row.numpy().tobytes() for row in (*theirs["weight"], *theirs["bias"])]
        own = (run / f"models/ffl/seed-{seed}/a/head.safetensors").read_bytes()
        assert not any(secret in own for secret in secrets)
        files = [path for path in union_of(run, seed).iterdir() if path.is_file()]
        assert len(files) == 3
        for file in files:
            raw = file.read_bytes()
            assert not any(secret in raw for secret in secrets), file
            assert b"Nodule" not in raw
            assert b'"c"' not in raw
            assert b"(c)" not in raw
        for site in TABLES:
            assert predictions(run, seed, site)["finding"].unique().sort().to_list() == COLUMNS
    assert {row["head_site"] for row in cross_site(run)} == {"a", "b"}


def test_labels_are_those_of_the_table_whether_or_not_the_site_trains_the_finding(run: Path) -> None:
    for site, names in TABLES.items():
        known = {canonical_name(spelled): spelled for spelled in names.values()}
        for column in COLUMNS:
            part = predictions(run, 0, site).filter(pl.col("finding") == column)
            spelled = known.get(canonical_name(column[: -len(" (a)")]))
            assert part.height == 24
            wanted = labels_by_hand(run, site, spelled) if spelled else dict.fromkeys(part["image"])
            assert dict(zip(part["image"], part["label"], strict=True)) == wanted


def labels_by_hand(run: Path, site: str, column: str) -> dict[str, int | None]:
    with (run.parent / site / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    return {row["image"]: int(row[column]) if row[column] else None for row in rows}


def images_of(run: Path, site: str) -> tuple[Any, tuple[str, ...]]:
    study = load_study(run.with_suffix(".toml"))
    settings = next(one for one in study.site if one.name == site)
    source = open_site(settings, read_site(settings), study, None)
    split = load_split(source.manifest, source.cache, "test")
    assert len(split) == 24
    return split, split.images


def test_every_cell_is_the_auroc_of_that_sites_own_model_on_the_other_sites_images(run: Path) -> None:
    """By scikit-learn, the labels read from the table by hand, the scores of the head's own site's model."""
    found = {(row["seed"], row["head_site"], row["data_site"], row["finding"]): row for row in cross_site(run)}
    assert set(found) == {(seed, *key) for seed in ("0", "1", "all") for key in MATRIX}
    for (head, site, finding), trained in MATRIX.items():
        spelled = next(name for name in TABLES[site].values() if canonical_name(name) == finding)
        labels = labels_by_hand(run, site, spelled)
        images, names = images_of(run, site)
        kept = [labels[name] is not None for name in names]
        truth = [labels[name] for name in names if labels[name] is not None]
        values = []
        for seed in (0, 1):
            model = load_model(run / f"models/ffl/seed-{seed}/{head}")
            column = [canonical_name(one) for one in model.findings].index(finding)
            values.append(roc_auc_score(truth, predict_split(model, images)[kept, column]))
            row = found[str(seed), head, site, finding]
            assert row["auroc"] == pytest.approx(values[-1], abs=1e-12)
            assert row["low"] <= row["auroc"] <= row["high"]
            assert (row["positives"], row["negatives"]) == (sum(truth), len(truth) - sum(truth))
            assert (row["own"] is not None) == trained
            if trained:
                assert row["own"] == pytest.approx(own_auroc(run, str(seed), site, spelled), abs=1e-12)
                assert row["difference"] == pytest.approx(row["auroc"] - row["own"], abs=1e-12)
                assert row["difference_low"] <= row["difference"] <= row["difference_high"]
        assert found["all", head, site, finding]["auroc"] == pytest.approx(np.mean(values), abs=1e-12)


def own_auroc(run: Path, seed: str, site: str, finding: str) -> float:
    metrics = pl.read_csv(run / "metrics.csv", schema_overrides={"seed": pl.String})
    wanted = {"method": "ffl", "seed": seed, "site": site, "finding": finding, "metric": "auroc"}
    row = metrics.filter(*(pl.col(name) == value for name, value in wanted.items()))
    return float(row["value"].item())


def test_the_terminal_tells_first_of_what_nobody_trained_there(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Console(file=io.StringIO(), width=200)
    print_summary(run, said)
    lines = said.file.getvalue().split("Released heads on other sites' test images")[1].splitlines()  # type: ignore[attr-defined]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert {(cell[2], cell[3], cell[1]): cell[5] != "-" for cell in cells} == MATRIX
    assert [cell[5] == "-" for cell in cells] == [True] * 3 + [False] * 3
    monkeypatch.setattr("polyhead.summary._MOST_CROSS_SITE", 4)
    said = Console(file=io.StringIO(), width=200)
    print_summary(run, said)
    assert "2 more are in cross_site.csv." in said.file.getvalue()  # type: ignore[attr-defined]


def test_evaluating_again_gives_the_same_table(run: Path) -> None:
    before = (run / "cross_site.csv").read_bytes()
    (run / "cross_site.csv").unlink()
    evaluate_cross_site(run, 100, ["local", "ffl"], {})
    assert (run / "cross_site.csv").read_bytes() == before


def test_an_alias_of_the_study_decides_what_is_matched(tables: Path) -> None:
    text = study_text(methods='"ffl"').replace("seeds = [0, 1]", "seeds = [0]")
    apart = start(tables, "apart", f'{text}[findings.aliases]\n"effusion" = "effusion"\n')
    cells = {(row["head_site"], row["data_site"], row["finding"]) for row in cross_site(apart)}
    assert cells == {key for key in MATRIX if key[2] != "Pleural Effusion"}


def test_without_consent_there_is_none(tables: Path) -> None:
    run = start(tables, "none", study_text("", '"ffl"').replace("seeds = [0, 1]", "seeds = [0]"))
    assert not (run / "union").exists()
    assert not (run / "cross_site.csv").exists()
    assert "One model for all findings" not in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("settings", "differ"),
    [
        ("", False),
        ('batch_norm = "private"', True),
        ('finetune = "full"\nfinetune_steps = 1', True),
        ('finetune = "head"\nfinetune_steps = 1', False),
        ('transfer = "half"', False),
    ],
)
def test_there_is_none_where_the_sites_backbones_differ(
    settings: str, differ: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = write_two_sites(tmp_path, 16, 8, 8).replace('manifest.csv"', 'manifest.csv"\nrelease_head = true')
    rest = TINY_SETTINGS.replace("rounds = 2", f"rounds = 1\n{settings}")
    # As if another method of the study had one backbone, so that the study is not refused.
    monkeypatch.setattr("polyhead.study.check_release", lambda study: None)
    run = start(tmp_path, "run", f'name = "u"\nmethods = ["local", "conventional", "ffl"]\n{sites}{rest}')
    backbones = {
        method: {(run / f"models/{method}/seed-0/{site}/backbone.safetensors").read_bytes() for site in "ab"}
        for method in ("local", "conventional", "ffl")
    }
    assert (len(backbones["ffl"]) == 2) == differ
    assert len(backbones["local"]) == 2
    assert {path.name for path in run.glob("union/*")} == (set() if differ else {"ffl"})
    log = (run / "run.log").read_text()
    assert "local, seed 0: no model of released heads: its sites share no backbone." in log
    assert "conventional, seed 0: no model of released heads: its sites have one head in common already." in log
    assert ("ffl, seed 0: no model of released heads" in log) == differ


def test_every_method_leaves_one_or_a_reason(tmp_path: Path) -> None:
    """Whatever a method shares: that the backbones below its released heads are one is looked at as they are united."""
    sites = write_two_sites(tmp_path, 16, 8, 8).replace('manifest.csv"', 'manifest.csv"\nrelease_head = true')
    rest = TINY_SETTINGS.replace("rounds = 2", 'rounds = 1\nfinetune = "head"\nfinetune_steps = 1')
    # With one step a round fedprox is refused.
    rest = rest.replace("local_steps = 1", "local_steps = 2")
    run = start(tmp_path, "run", f'name = "u"\nmethods = {json.dumps(list(METHODS))}\n{sites}{rest}')
    federation = load_study(tmp_path / "run.toml").federation
    united = {name for name, method in METHODS.items() if why_no_union(method, federation) is None}
    assert {"ffl", "fedprox", "fedbabu", "fedavgm", "fedadam"} <= united
    assert {path.name for path in run.glob("union/*")} == united
    assert set(pl.read_csv(run / "cross_site.csv")["method"]) == united
    log = (run / "run.log").read_text()
    assert all((f"{name}, seed 0: no model of released heads" in log) == (name not in united) for name in METHODS)


def test_a_best_state_is_of_a_round_of_its_own(tables: Path) -> None:
    settings = TINY_SETTINGS.replace("rounds = 2", 'rounds = 2\nvalidate_every = 1\nselect = "best"')
    (tables / "best.toml").write_text(study_text(settings=settings))
    reason = why_no_union(METHODS["ffl"], load_study(tables / "best.toml").federation)
    assert reason == "select = 'best' gives each site the backbone of another round"


def test_backbones_that_differ_after_all_are_never_put_under_one_head(
    tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(union_module, "why_no_union", lambda method, federation: None)
    with pytest.raises(RunError, match=r"local, seed 0: .* \(a, b\) have different backbones"):
        start(tables, "wrong", study_text(methods='"local"').replace("seeds = [0, 1]", "seeds = [0]"))
    assert not (tables / "wrong/union/local/seed-0/model.json").exists()


@pytest.mark.parametrize(
    ("methods", "settings", "reason"),
    [
        ('"local"', "", "local: its sites share no backbone"),
        ('"local", "ffl"', 'batch_norm = "private"', "ffl: BatchNorm stays at each site"),
        ('"ffl"', 'finetune = "full"', "ffl: finetune = 'full' trains"),
    ],
)
def test_a_study_that_can_put_no_heads_together_is_refused_before_anything(
    methods: str, settings: str, reason: str, tables: Path
) -> None:
    text = study_text("b", methods, TINY_SETTINGS.replace("rounds = 2", f"rounds = 2\n{settings}"))
    (tables / "idle.toml").write_text(text)
    with pytest.raises(StudyError, match=r"key 'site\.release_head': b would release a head, and no method") as refusal:
        run_study(tables / "idle.toml", tables / "idle", QUIET)
    assert reason in str(refusal.value)
    assert not (tables / "idle").exists()
    told = [one for one in check_study(tables / "idle.toml").problems if one.kind == "release"]
    assert [one.text for one in told] == [str(refusal.value)]


def test_methods_that_there_are_not_are_no_reason_against_a_release(tables: Path) -> None:
    """They are refused by name; that heads cannot be put together would be one complaint too many, without a cause."""
    (tables / "unknown.toml").write_text(study_text("b", '"fll"'))
    kinds = [one.kind for one in check_study(tables / "unknown.toml").problems if one.severity == "error"]
    assert "release" not in kinds
    assert kinds


def test_a_finding_that_nothing_was_learned_of_is_not_released(tables: Path, caplog: pytest.LogCaptureFixture) -> None:
    for site in "ab":
        shutil.copytree(tables / site, tables / f"poor-{site}", dirs_exist_ok=True)
    table = pl.read_csv(tables / "poor-b/manifest.csv", infer_schema=False)
    kept = pl.when(pl.col("split") != "train").then(pl.col("Edema"))
    table.with_columns(kept.alias("Edema")).write_csv(tables / "poor-b/manifest.csv")
    text = study_text("b", '"ffl"').replace("seeds = [0, 1]", "seeds = [0]").replace("b/manifest", "poor-b/manifest")
    run = start(tables, "poor", text)
    assert json.loads((union_of(run, 0) / "model.json").read_text())["findings"] == ["effusion (b)"]
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any(
        one.startswith("site b, finding 'Edema': not released: there are no training images with") for one in told
    )
    assert not any("'effusion': not released" in one for one in told)


def contents(run: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted((*run.glob("union/**/*"), *run.glob("state/**/done.json"), run / "cross_site.csv")):
        if path.is_file():
            yield str(path.relative_to(run)), path.read_bytes()


@pytest.mark.parametrize("damage", ["head.safetensors", "model.json", "predictions/c/test.parquet"])
def test_a_damaged_file_of_it_is_made_again(
    damage: str, run: Path, tables: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tables / "run-damaged"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(run, out)
    file = union_of(out, 1) / damage
    file.write_bytes(file.read_bytes()[:-1])
    run_study(tables / "run.toml", out, QUIET)
    assert any("ffl, seed 1 is trained again" in record.getMessage() for record in caplog.records)
    assert dict(contents(out)) == dict(contents(run))


def test_cut_off_while_it_is_written_it_is_whole_in_the_end(
    run: Path, tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes as undisturbed; meanwhile nothing takes the half of it for a whole."""

    def cut(*_: Any) -> None:
        raise KeyboardInterrupt

    out = tables / "run-cut"
    for name in ("write_predictions", "save_model"):
        with monkeypatch.context() as patch:
            patch.setattr(union_module, name, cut)
            with pytest.raises(KeyboardInterrupt):
                run_study(tables / "run.toml", out, QUIET)
        assert not (out / "state/ffl/seed-0/done.json").exists()
    run_study(tables / "run.toml", out, QUIET)
    assert dict(contents(out)) == dict(contents(run))
    assert len(dict(contents(run))) == 2 * (3 + 3) + 4 + 1


def test_labels_of_a_finding_that_no_site_trains_may_not_change_either(run: Path, tables: Path) -> None:
    out, file = tables / "run-relabelled", tables / "c/manifest.csv"
    shutil.copytree(run, out)
    before = file.read_text()
    table = pl.read_csv(file, infer_schema=False)
    try:
        table.with_columns(pl.lit("1").alias("EDEMA")).write_csv(file)
        with pytest.raises(RunError, match="whole table of site c has changed since the run began"):
            run_study(tables / "run.toml", out, QUIET)
    finally:
        file.write_text(before)


def test_a_table_that_changes_while_a_run_trains_changes_nothing(
    run: Path, tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tables / "c/manifest.csv"
    before = file.read_text()

    def train(*arguments: Any, really: Any = study_module._train) -> None:
        file.write_text(pl.read_csv(file, infer_schema=False).with_columns(pl.lit("1").alias("EDEMA")).write_csv())
        really(*arguments)

    monkeypatch.setattr(study_module, "_train", train)
    try:
        run_study(tables / "run.toml", tables / "run-meanwhile", QUIET)
    finally:
        file.write_text(before)
    assert dict(contents(tables / "run-meanwhile")) == dict(contents(run))


def test_a_head_that_is_tuned_without_noise_is_not_released_without_a_word(
    tables: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = TINY_SETTINGS.replace("rounds = 2", 'rounds = 2\nfinetune = "head"')
    noisy = settings.replace("[federation]", 'norm = "group"\n[privacy]\nnoise = 1.0\n[federation]')
    for text, told in ((settings, False), (noisy, True)):
        caplog.clear()
        warn_about_release(parse_study(study_text("a", '"ffl"', text), tables, "study.toml"), [])
        assert ("epsilon does not cover the heads" in caplog.text) == told


def test_two_columns_of_a_table_that_mean_the_same_are_no_label(tables: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(tables / "c", tables / "double-c")
    table = pl.read_csv(tables / "double-c/manifest.csv", infer_schema=False)
    # Of what no released head predicts, two names are nobody's concern.
    more = {"oedema": "EDEMA", "Infiltration": "Nodule", "infiltrates": "Nodule"}
    copies = [pl.col(column).alias(name) for name, column in more.items()]
    table.with_columns(copies).write_csv(tables / "double-c/manifest.csv")
    text = study_text("b", '"ffl"').replace("seeds = [0, 1]", "seeds = [0]").replace("c/manifest", "double-c/manifest")
    cells = {(row["data_site"], row["finding"]) for row in cross_site(start(tables, "double", text))}
    assert cells == {("a", "Edema"), ("a", "Pleural Effusion")}
    told = [record.getMessage() for record in caplog.records if "both mean" in record.getMessage()]
    assert len(told) == 1
    assert "'EDEMA' and 'oedema' both mean 'Edema'" in told[0]
