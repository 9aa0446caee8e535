"""What a federation leaves at its sites is what `polyhead run` leaves; of it only what each allows is sent."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from polyhead.deployment.agreed import Agreed
from polyhead.deployment.coordinator import EVENTS, Segment, run_segment
from polyhead.deployment.events import read_events
from polyhead.deployment.gathering import gather
from polyhead.deployment.results import begin_run, evaluation_events, run_evaluation, unreleased
from polyhead.errors import RunError
from polyhead.manifest import read_manifest
from polyhead.outputs import output_files
from polyhead.predictions import read_predictions
from polyhead.study import run_study
from polyhead.study_file import load_study
from tests.deployment.houses_by_hand import agreed_in, carry_home, run_all, write_study

SETTINGS = 'finetune = "head"\nfinetune_steps = 2'
LEAST, TEST = 2, 18  # a handful of patients with each finding
RELEASE = f"[release]\nleast = {LEAST}\n"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Local and ffl, two seeds; hospital c has but one image to train on."""
    file = write_study(tmp_path_factory.mktemp("study"), 2, settings=SETTINGS, test=TEST)
    text = file.read_text().replace('methods = ["ffl"]', 'methods = ["local", "ffl"]\nseeds = [0, 1]')
    file.write_text(text.replace('manifest = "c/manifest.csv"\n', 'manifest = "c/manifest.csv"\ntrain_images = 1\n'))
    return file


@pytest.fixture(scope="module")
def in_one_place(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run") / "run"
    run_study(study, run, Console(quiet=True))
    return run


@pytest.fixture(scope="module")
def at_home(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Houses a, b, c and the server, of which c lets nothing out."""
    folder, agreed = tmp_path_factory.mktemp("houses"), agreed_in(study)
    releases = {"a": RELEASE, "b": RELEASE, "c": '[release]\nmetrics = "nothing"\n'}
    run_all(agreed, folder / "server", carry_home(study, agreed, folder, release=releases))
    gather(agreed, folder / "server", folder / "out")
    return folder


@pytest.fixture
def agreed(study: Path) -> Agreed:
    return agreed_in(study)


def released_by(folder: Path, site: str) -> dict[str, Any]:
    events = read_events(evaluation_events(folder / "server"))
    return next(event for event in events if event["event"] == "released" and event["site"] == site)


def test_models_and_predictions_are_those_of_a_run_in_one_place(at_home: Path, in_one_place: Path) -> None:
    for site in "abc":
        home = at_home / site / "run"
        for method in ("local", "ffl"):
            for seed in ("seed-0", "seed-1"):
                where = method, seed, site
                files = output_files(home.joinpath("models", *where), home.joinpath("predictions", *where))
                for file in files:
                    assert file.read_bytes() == (in_one_place / file.relative_to(home)).read_bytes(), file


def test_a_site_measures_what_a_run_in_one_place_measures(at_home: Path, in_one_place: Path) -> None:
    for name in ("metrics.csv", "comparisons.csv"):
        whole = pl.read_csv(in_one_place / name)
        for site in "abc":
            assert pl.read_csv(at_home / site / "run" / name).equals(whole.filter(pl.col("site") == site))


def test_the_rounds_are_told_as_by_a_run_in_one_place(at_home: Path, in_one_place: Path) -> None:
    keys = ["method", "seed", "round", "site", "status"]
    ours, theirs = (pl.read_csv(folder / "rounds.csv").select(keys) for folder in (at_home / "out", in_one_place))
    assert ours.sort(keys).equals(theirs.sort(keys))
    assert ours.filter(pl.col("status") == "no training images")["site"].to_list() == ["c"] * 4


def test_what_is_released_is_what_was_measured_rounded(at_home: Path) -> None:
    for site in "ab":
        metrics = pl.read_csv(at_home / site / "run" / "metrics.csv").filter(pl.col("metric") == "auroc")
        found = {(row["method"], row["seed"], row["finding"]): row for row in metrics.to_dicts()}
        rows = released_by(at_home, site)["metrics"]
        assert {row["finding"] for row in rows} > {"mean"}
        for row in rows:
            measured = found[row["method"], row["seed"], row["finding"]]
            assert all(row[name] == pytest.approx(measured[name], abs=5.1e-5) for name in ("value", "low", "high"))
            for count in ("positives", "negatives", "patients"):
                if row["finding"] != "mean" or count == "patients":
                    assert row[count] % LEAST == 0
                    assert abs(row[count] - measured[count]) <= LEAST / 2


def test_who_releases_nothing_releases_nothing_and_the_report_says_so(at_home: Path) -> None:
    event = released_by(at_home, "c")
    assert (event["metrics"], event["comparisons"]) == ([], [])
    assert "c" not in pl.read_csv(at_home / "out" / "metrics.csv")["site"]
    assert "<b>c</b> has released nothing." in (at_home / "out" / "report.html").read_text()


def test_the_report_has_no_section_of_what_stays_at_home(at_home: Path) -> None:
    page = (at_home / "out" / "report.html").read_text()
    assert all(f'id="{section}"' in page for section in ("at-home", "gain", "auroc", "roc", "training", "settings"))
    assert not [section for section in ("data", "operating") if f"#{section}" in page or f'id="{section}"' in page]
    assert "Predictions stay at the hospitals" in page
    assert "stays at the hospital" in page


def test_a_run_directory_of_another_study_is_refused(agreed: Agreed, at_home: Path) -> None:
    begin_run(agreed, at_home / "out")
    with pytest.raises(RunError, match="another study"):
        begin_run(replace(agreed, sha256="0" * 64), at_home / "out")


def test_the_coordinator_has_no_predictions_models_or_patients(at_home: Path, study: Path) -> None:
    files = {file.name for file in (at_home / "out").rglob("*") if file.is_file()}
    tables = {"metrics.csv", "comparisons.csv", "rounds.csv"}
    assert files == {"study.toml", "environment.json", "at_home.json", "report.html", *tables}
    events = [file.read_text() for file in (at_home / "server").rglob(EVENTS)]
    text = "".join([(at_home / "out" / name).read_text() for name in files] + events)
    for site in load_study(study).site:
        frame = read_manifest(site.manifest).frame
        words = {*frame["patient_id"], *frame["image"], str(site.manifest.parent)}
        assert not [word for word in words if word in text]


def test_a_site_that_was_away_at_the_end_is_asked_again(
    study: Path, agreed: Agreed, at_home: Path, tmp_path: Path
) -> None:
    server = tmp_path / "server"
    here, without_b = (carry_home(study, agreed, tmp_path, away) for away in ((), ("b",)))
    run_segment(agreed, Segment("1", "ffl", 0, 2), server, here)
    model = tmp_path / "b/run/models/ffl/seed-0/b/model.json"
    model.unlink()
    run_segment(agreed, Segment("2", "ffl", 0, 2), server, without_b)
    assert not model.exists()
    run_segment(agreed, Segment("3", "ffl", 0, 2), server, here)
    assert model.read_bytes() == (at_home / model.relative_to(tmp_path)).read_bytes()
    kinds = [event["event"] for event in read_events(server / "ffl/seed-0" / EVENTS) if event.get("site") == "b"]
    assert kinds == ["finished", "unfinished", "finished"]


def test_a_site_whose_files_are_whole_does_nothing_again(study: Path, agreed: Agreed, tmp_path: Path) -> None:
    for name in ("1", "2"):
        run_segment(agreed, Segment(name, "ffl", 0, 2), tmp_path / "server", carry_home(study, agreed, tmp_path))
        model = tmp_path / "a/run/models/ffl/seed-0/a/model.json"
        if name == "1":
            written = model.stat().st_mtime_ns
    assert model.stat().st_mtime_ns == written


def test_a_site_with_changed_predictions_releases_nothing_until_it_made_them_again(
    study: Path, agreed: Agreed, at_home: Path, tmp_path: Path
) -> None:
    server, carry = tmp_path / "server", carry_home(study, agreed, tmp_path)
    run_all(agreed, server, carry)
    evaluation_events(server).unlink()
    file = tmp_path / "a/run/predictions/ffl/seed-1/a/test.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"x")
    run_evaluation(agreed, "again", server, carry)
    assert unreleased(agreed, server) == {
        "a": "its models or predictions are missing or were changed. It is asked for them again."
    }
    run_all(agreed, server, carry)
    assert file.read_bytes() == whole
    assert not unreleased(agreed, server)


def test_a_run_directory_of_another_agreement_is_not_touched(study: Path, agreed: Agreed, tmp_path: Path) -> None:
    mark = tmp_path / "a/run/agreement.sha256"
    mark.parent.mkdir(parents=True)
    mark.write_text("0" * 64 + "\n")
    run_segment(agreed, Segment("1", "ffl", 0, 2), tmp_path / "server", carry_home(study, agreed, tmp_path))
    events = read_events(tmp_path / "server/ffl/seed-0" / EVENTS)
    reasons = {event["site"]: event["reason"] for event in events if event["event"] == "unfinished"}
    assert reasons.keys() == {"a"}
    assert "another agreement" in reasons["a"]
    assert sorted(path.name for path in mark.parent.iterdir()) == [mark.name]


def test_with_nobody_to_train_on_the_segment_fails_for_good(study: Path, tmp_path: Path) -> None:
    alone = study.with_name("alone.toml")
    text = study.read_text()
    alone.write_text(
        text.replace('a/manifest.csv"\n', 'a/manifest.csv"\ntrain_images = 1\n').replace(
            'b/manifest.csv"\n', 'b/manifest.csv"\ntrain_images = 1\n'
        )
    )
    agreed = agreed_in(study)
    run_segment(agreed, Segment("1", "ffl", 0, 2), tmp_path / "server", carry_home(alone, agreed, tmp_path))
    last = read_events(tmp_path / "server/ffl/seed-0" / EVENTS)[-1]
    assert (last["event"], last["again"]) == ("failed", False)
    assert "nothing to train on" in last["reason"]


def test_a_report_is_made_where_nobody_releases_anything(study: Path, agreed: Agreed, tmp_path: Path) -> None:
    nothing = dict.fromkeys("abc", '[release]\nmetrics = "nothing"\n')
    run_all(agreed, tmp_path / "server", carry_home(study, agreed, tmp_path, release=nothing))
    page = gather(agreed, tmp_path / "server", tmp_path / "out").read_text()
    assert all(f"<b>{site}</b> has released nothing." in page for site in "abc")
    assert json.loads((tmp_path / "out/environment.json").read_text())["agreement"] == agreed.sha256


def test_rare_findings_stay_at_home_and_no_mean_that_leaves_knows_of_them(
    study: Path, agreed: Agreed, at_home: Path, tmp_path: Path
) -> None:
    test = read_predictions(at_home / "a/run/predictions/ffl/seed-0/a/test.parquet").drop_nulls("label")
    patients = test.group_by("finding", "patient_id").agg(pl.col("label").max())
    fewest = patients.group_by("finding").agg(pl.col("label").value_counts().struct.field("count").min().alias("n"))
    fewest = fewest.sort("n")
    rare, common = fewest["finding"].to_list()
    assert fewest["n"][0] < fewest["n"][1], "both findings are as rare: choose another seed"
    release = {"a": f"[release]\nleast = {fewest['n'][1]}\n"}
    for part in ("models", "predictions", "state"):
        (tmp_path / "a/run").mkdir(parents=True, exist_ok=True)
        (tmp_path / "a/run" / part).symlink_to(at_home / "a/run" / part)
    run_evaluation(agreed, "1", tmp_path / "server", carry_home(study, agreed, tmp_path, ("b", "c"), release))
    event = released_by(tmp_path, "a")
    assert rare not in json.dumps(event)
    values = {(r["method"], r["seed"], r["finding"]): r["value"] for r in event["metrics"]}
    assert {finding for _, _, finding in values} == {common, "mean"}
    assert all(value == values[method, seed, common] for (method, seed, _), value in values.items())
    assert {row["finding"] for row in event["comparisons"]} == {common, "mean"}
