"""A study of every method, whole: what each leaves at the sites, what it cost, and what the report says of it."""

import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from safetensors.torch import load_file

from polyhead import job as job_module
from polyhead.evaluation import MEAN
from polyhead.federation.run_dir import model_folder, predictions_folder
from polyhead.federation.simulate import Watch, simulate
from polyhead.federation.site import finetune
from polyhead.predictions import read_predictions
from polyhead.report.load import load_run
from polyhead.study import run_study
from polyhead.training.model_file import load_model
from tests.conftest import TINY_SETTINGS, write_two_sites
from tests.report.page import Page

QUIET = Console(quiet=True)
METHODS = ("local", "conventional", "ffl", "surgical", "masked", "central")
# As b spells it; the same as a's "Pleural Effusion".
EFFUSION = "effusion"
OWN = {"a": ["Cardiomegaly", "Pleural Effusion"], "b": ["Edema", EFFUSION]}
ALL = {"a": ["Cardiomegaly", "Edema", "Pleural Effusion"], "b": ["Cardiomegaly", "Edema", EFFUSION]}
TUNED = TINY_SETTINGS.replace("local_steps = 1", 'local_steps = 2\nfinetune = "head"\nfinetune_steps = 3')


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("union")
    part = write_two_sites(folder, 16, 24, 24)
    table = pl.read_csv(folder / "b/manifest.csv", infer_schema=False)
    table.rename({"Pleural Effusion": EFFUSION}).write_csv(folder / "b/manifest.csv")
    return folder, part


def study_of(sites: tuple[Path, str], name: str, methods: tuple[str, ...], settings: str, part: str = "") -> Path:
    folder, both = sites
    file = folder / f"{name}.toml"
    file.write_text(f'name = "all"\nmethods = {list(methods)}\n{part or both}{settings}')
    return file


@pytest.fixture(scope="module")
def counted(sites: tuple[Path, str]) -> tuple[Path, dict[str, int], list[str]]:
    """A run of all methods, how many optimizer steps each took in all, and what was warned of."""
    steps, warnings = Counter[str](), list[str]()

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warnings.append(record.getMessage())

    def counting(training: Any, models: Any, plan: Any, start: Any, store: Any, watch: Watch) -> Any:
        method = store.folder.parent.name
        real = watch.on_step

        def on_step() -> None:
            steps[method] += 1
            if real:
                real()

        return simulate(training, models, plan, start, store, replace(watch, on_step=on_step))

    def tuning(site: Any, model: Any, plan: Any, on_step: Any) -> float:
        steps["fine-tuning"] += plan.federation.finetune_steps
        return finetune(site, model, plan, on_step)

    handler = Listening(logging.WARNING)
    logging.getLogger("polyhead").addHandler(handler)
    out = sites[0] / "run"
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(job_module, "simulate", counting)
            patch.setattr(job_module, "finetune", tuning)
            run_study(study_of(sites, "all", METHODS, TUNED), out, QUIET)
    finally:
        logging.getLogger("polyhead").removeHandler(handler)
    return out, dict(steps), warnings


@pytest.fixture(scope="module")
def run(counted: tuple[Path, dict[str, int], list[str]]) -> Path:
    return counted[0]


def test_every_method_takes_the_same_number_of_optimizer_steps(
    counted: tuple[Path, dict[str, int], list[str]],
) -> None:
    _, steps, warnings = counted
    # 2 sites, 2 rounds of 2 steps; and every method trains on for 3 steps at each site.
    assert steps == {**dict.fromkeys(METHODS, 8), "fine-tuning": len(METHODS) * 2 * 3}
    assert warnings == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("site", ["a", "b"])
def test_predictions_are_of_what_the_site_annotates_under_its_own_names(run: Path, method: str, site: str) -> None:
    own = ["Pleural Effusion" if site == "a" else EFFUSION] if method == "conventional" else OWN[site]
    local = predictions_folder(run, "local", 0, site)
    for split in ("val", "test"):
        table = read_predictions(predictions_folder(run, method, 0, site) / f"{split}.parquet")
        assert table["finding"].unique(maintain_order=True).to_list() == own
        alone = read_predictions(local / f"{split}.parquet").filter(pl.col("finding").is_in(own))
        assert table.drop("score").equals(alone.drop("score"))
    about = json.loads((model_folder(run, method, 0, site) / "model.json").read_text())
    assert list(about["thresholds"]) == own
    assert about["findings"] == (ALL[site] if method in ("surgical", "masked", "central") else own)
    metrics = pl.read_csv(run / "metrics.csv", infer_schema=False)
    of_site = metrics.filter(pl.col("method") == method, pl.col("site") == site)
    assert set(of_site["finding"]) == {*own, MEAN}


@pytest.mark.parametrize("method", ["surgical", "masked", "central"])
def test_the_model_of_each_site_predicts_the_findings_of_all(run: Path, method: str) -> None:
    for site, findings in ALL.items():
        model = load_model(model_folder(run, method, 0, site))
        assert list(model.findings) == findings
        assert model.head.weight.shape[0] == 3


def test_every_method_is_compared_with_those_before_it_on_the_findings_of_both(run: Path) -> None:
    table = pl.read_csv(run / "comparisons.csv")
    assert table.select("method", "reference").unique().height == 6 * 5 // 2
    findings = table.filter(pl.col("finding") != MEAN).group_by("method", "reference").len().rows()
    # At both sites together; conventional knows effusion alone.
    assert {count for *pair, count in findings if "conventional" in pair} == {2}
    assert {count for *pair, count in findings if "conventional" not in pair} == {4}


def test_rounds_and_report_name_the_pool(run: Path) -> None:
    rounds = pl.read_csv(run / "rounds.csv").filter(pl.col("method") == "central")
    assert rounds["site"].to_list() == ["a+b", "a+b", "a", "b"]
    assert rounds["status"].unique().to_list() == ["alone"]
    assert rounds["bytes_up"].sum() == 0
    page = Page((run / "report.html").read_text())
    shown = {(row["Method"], row["Site"]): row["Rounds, all seeds"] for row in page.table("traffic").records()}
    assert shown["central", "a+b"] == "2"
    assert shown["surgical", "a"] == "2"
    joined = {row["Joining in"] for row in page.table("gains").records()}
    assert joined == {"conventional", "ffl", "surgical", "masked"}
    # What a hospital gains is told of a method that it could join.
    pairs = [
        (one.attributes["data-method"], one.attributes["data-reference"])
        for one in page.tables
        if "data-method" in one.attributes
    ]
    assert pairs[0][0] == "masked"
    assert ("central", "masked") in pairs
    assert "Training loss by round at a+b." in (run / "report.html").read_text()
    assert load_run(run).pools == ("a+b",)


def files_of(run: Path, method: str) -> dict[str, bytes]:
    folders = (model_folder(run, method, 0, "a"), predictions_folder(run, method, 0, "a"))
    return {path.name: path.read_bytes() for folder in folders for path in folder.iterdir()}


def test_central_on_one_site_is_local_bit_for_bit(sites: tuple[Path, str]) -> None:
    """Tuning, model selection and the site's own place in it included."""
    part = '[[site]]\nname = "a"\nmanifest = "a/manifest.csv"\n'
    settings = TUNED.replace("rounds = 2", 'rounds = 3\nvalidate_every = 1\nselect = "best"')
    study = study_of(sites, "one", ("local", "surgical", "masked", "central"), settings, part)
    run_study(study, sites[0] / "one", QUIET)
    local, central = (files_of(sites[0] / "one", method) for method in ("local", "central"))
    about, other = (json.loads(files.pop("model.json")) for files in (local, central))
    assert local == central
    assert about == {**other, "method": "local"}
    rounds = pl.read_csv(sites[0] / "one/rounds.csv").drop("seconds", "seed")
    one, two = (rounds.filter(pl.col("method") == method).drop("method") for method in ("local", "central"))
    assert one.equals(two)
    # Of one site nothing is averaged away, and no finding is another's: the heads begin otherwise, all else is equal.
    surgical, masked = (files_of(sites[0] / "one", method) for method in ("surgical", "masked"))
    assert surgical["test.parquet"] == masked["test.parquet"] != local["test.parquet"]


def test_the_pools_best_state_by_its_own_validation_becomes_every_sites_model(
    sites: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []

    def scored(model: Any, site: Any) -> float:
        seen.append((site.name, len(site.val)))
        return [0.2, 0.9, 0.5][len(seen) - 1]

    monkeypatch.setattr(job_module, "validation_auroc", scored)
    settings = TINY_SETTINGS.replace("rounds = 2", 'rounds = 3\nvalidate_every = 1\nselect = "best"')
    run_study(study_of(sites, "best", ("central",), settings), sites[0] / "best", QUIET)
    assert {name for name, _ in seen} == {"a+b"}
    lengths = [pl.read_csv(sites[0] / name / "manifest.csv").filter(pl.col("split") == "val").height for name in "ab"]
    assert {length for _, length in seen} == {sum(lengths)}
    folders = [model_folder(sites[0] / "best", "central", 0, site) for site in "ab"]
    assert [json.loads((folder / "model.json").read_text())["rounds"] for folder in folders] == [2, 2]
    for part in ("backbone", "head"):
        one, other = (load_file(folder / f"{part}.safetensors") for folder in folders)
        assert all(one[name].equal(other[name]) for name in one)


def test_a_site_that_cannot_train_gets_the_pools_model_and_has_no_part_in_it(sites: tuple[Path, str]) -> None:
    folder, both = sites
    part = f"{both}train_images = 1\n"
    run_study(study_of(sites, "idle", ("central", "local"), TINY_SETTINGS, part), folder / "idle", QUIET)
    rounds = pl.read_csv(folder / "idle/rounds.csv").filter(pl.col("method") == "central")
    assert sorted(rounds["site"].unique()) == ["a", "b"]
    assert rounds.filter(pl.col("site") == "b")["status"].to_list() == ["no training images"]
    a, b = (load_file(model_folder(folder / "idle", "central", 0, site) / "backbone.safetensors") for site in "ab")
    assert all(a[name].equal(b[name]) for name in a)


@pytest.mark.parametrize("method", ["surgical", "central"])
def test_killed_after_a_round_it_goes_on_with_the_same_bytes(
    method: str, sites: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TINY_SETTINGS.replace("rounds = 2", "rounds = 3")
    study = study_of(sites, f"killed-{method}", (method,), settings)
    run_study(study, sites[0] / f"whole-{method}", QUIET)
    real = job_module.append_rounds

    def stopping(*about: Any) -> None:
        real(*about)
        if about[-1][0].round == 2:
            raise KeyboardInterrupt

    table = job_module.RoundTable(append=stopping)
    with monkeypatch.context() as patch:
        patch.setattr("polyhead.study.Job", lambda *about: job_module.Job(*about, table))
        with pytest.raises(KeyboardInterrupt):
            run_study(study, sites[0] / f"killed-{method}", QUIET)
    run_study(study, sites[0] / f"killed-{method}", QUIET)
    for site in "ab":
        for folder in (model_folder, predictions_folder):
            whole, killed = (folder(sites[0] / f"{name}-{method}", method, 0, site) for name in ("whole", "killed"))
            assert [one.read_bytes() for one in sorted(whole.iterdir())] == [
                one.read_bytes() for one in sorted(killed.iterdir())
            ]
