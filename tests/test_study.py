"""Whole studies at a tiny scale: what they leave on disk, and what interruption changes (nothing)."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from polyhead.check.images import Reading
from polyhead.check.study import check_study
from polyhead.config import StudyConfig
from polyhead.errors import CacheError, ManifestError, RunError, StudyError
from polyhead.federation.methods import METHODS
from polyhead.federation.sharing import NOTHING
from polyhead.manifest import read_manifest, take_shard
from polyhead.site_file import SiteFile, write_site_file
from polyhead.study import run_study
from polyhead.study_file import load_study
from tests.conftest import TINY_SETTINGS, write_two_sites

QUIET = Console(quiet=True)
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hospitals with one finding in common."""
    folder = tmp_path_factory.mktemp("sites")
    write_two_sites(folder, 24, 24, 40)
    return folder


def study_text(phantoms: Path, methods: str = '"local", "conventional", "ffl"', settings: str = TINY_SETTINGS) -> str:
    sites = "".join(f'[[site]]\nname = "{name}"\nmanifest = "{phantoms}/{name}/manifest.csv"\n' for name in "ab")
    return f'name = "tiny"\nseeds = [0, 1]\nmethods = [{methods}]\n{sites}{settings}'


def write_study(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.toml").write_text(text)
    return folder / "study.toml"


@pytest.fixture(scope="module")
def run(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    run_study(write_study(folder, study_text(phantoms)), folder / "run", QUIET)
    return folder / "run"


def weights(run: Path, method: str, site: str, part: str = "backbone") -> dict[str, torch.Tensor]:
    return load_file(run / f"models/{method}/seed-0/{site}/{part}.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def contents(run: Path) -> dict[str, bytes]:
    """Every result of a run but the seconds it took."""
    files = [path for path in run.rglob("*") if path.is_file() and not path.name.startswith(".")]
    results = {str(path.relative_to(run)): path.read_bytes() for path in files}
    rounds = pl.read_csv(run / "rounds.csv").drop("seconds").sort("method", "seed", "round", "site")
    return {name: data for name, data in results.items() if name not in ("report.html", "rounds.csv", "run.log")} | {
        "rounds": rounds.write_csv().encode()
    }


def test_a_run_leaves_what_the_contract_says(run: Path) -> None:
    for method in ("local", "conventional", "ffl"):
        for seed in (0, 1):
            for site in "ab":
                place = f"{method}/seed-{seed}/{site}"
                assert {path.name for path in (run / "models" / place).iterdir()} == {
                    "backbone.safetensors",
                    "head.safetensors",
                    "model.json",
                }
                assert {path.name for path in (run / "predictions" / place).iterdir()} == {
                    "val.parquet",
                    "test.parquet",
                }
    assert {path.name for path in run.iterdir() if not path.name.startswith(".")} == {
        *("study.toml", "settings.json", "environment.json", "inputs.json", "sites.csv", "rounds.csv"),
        *("models", "predictions"),
        *("metrics.csv", "comparisons.csv", "report.html", "run.log", "state"),
    }
    # Of the training only the hashes of what it left remain.
    assert {path.name for path in (run / "state").rglob("*") if path.is_file()} == {"done.json"}
    environment = json.loads((run / "environment.json").read_text())
    assert environment["seeds"] == [0, 1]
    assert environment["versions"]["torch"] == torch.__version__


def test_ffl_ends_with_one_backbone_and_private_heads(run: Path) -> None:
    assert same(weights(run, "ffl", "a"), weights(run, "ffl", "b"))
    assert not same(weights(run, "local", "a"), weights(run, "local", "b"))
    assert same(weights(run, "conventional", "a", "head"), weights(run, "conventional", "b", "head"))
    assert not torch.equal(weights(run, "ffl", "a", "head")["weight"][1], weights(run, "ffl", "b", "head")["weight"][1])


def test_with_sharing_switched_off_ffl_is_local_bit_for_bit(
    run: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "ffl", replace(METHODS["ffl"], sharing=lambda federation: NOTHING))
    text = study_text(phantoms, '"local", "ffl"')
    run_study(write_study(tmp_path, text), tmp_path / "run", QUIET)
    for site in "ab":
        for part in ("backbone", "head"):
            assert same(weights(tmp_path / "run", "ffl", site, part), weights(tmp_path / "run", "local", site, part))
            assert same(weights(tmp_path / "run", "ffl", site, part), weights(run, "local", site, part))
    differences = pl.read_csv(tmp_path / "run/comparisons.csv").filter(pl.col("p").is_not_null())
    assert differences.height
    assert set(differences["difference"]) == {0.0}
    assert set(differences["p"]) == {1.0}


def test_labels_that_changed_since_are_refused(run: Path, phantoms: Path, tmp_path: Path) -> None:
    copy = tmp_path / "sites"
    shutil.copytree(phantoms, copy)
    text = study_text(copy, '"local"').replace("[0, 1]", "[0]")
    run_study(write_study(tmp_path, text), tmp_path / "run", QUIET)
    manifest = copy / "a/manifest.csv"
    pl.read_csv(manifest).with_columns(1 - pl.col("Cardiomegaly")).write_csv(manifest)
    with pytest.raises(RunError, match="site a has changed since the run began"):
        run_study(tmp_path / "study.toml", tmp_path / "run", QUIET)


def test_going_on_with_other_versions_is_recorded(
    phantoms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = write_study(tmp_path, study_text(phantoms, '"local"').replace("[0, 1]", "[0]"))
    run_study(study, tmp_path / "run", QUIET)
    file = tmp_path / "run/environment.json"
    begun = json.loads(file.read_text())
    begun["versions"]["torch"] = "1.0"
    file.write_text(json.dumps(begun))
    run_study(study, tmp_path / "run", QUIET)
    run_study(study, tmp_path / "run", QUIET)
    now = json.loads(file.read_text())
    assert now["versions"]["torch"] == "1.0"
    assert [other["versions"]["torch"] for other in now["resumed"]] == [torch.__version__]
    assert "begun with other versions" in caplog.text


def test_the_choices_behind_the_labels_go_into_the_run_and_its_report(phantoms: Path, tmp_path: Path) -> None:
    copy = tmp_path / "sites"
    shutil.copytree(phantoms, copy)
    write_site_file(copy / "b", SiteFile(source={"adapter": "chexpert", "uncertain": "blank"}))
    study = write_study(tmp_path, study_text(copy, '"local"').replace("[0, 1]", "[0]"))
    page = run_study(study, tmp_path / "run", QUIET).read_text()
    assert json.loads((tmp_path / "run/sources.json").read_text()) == {
        "b": {"adapter": "chexpert", "uncertain": "blank"}
    }
    assert "chexpert" in page


def test_a_lost_prediction_is_made_again(run: Path) -> None:
    before = contents(run)
    (run / "predictions/ffl/seed-0/a/test.parquet").unlink()
    run_study(run.parent / "study.toml", run, QUIET)
    assert contents(run) == before


def test_models_list_their_findings_and_thresholds(run: Path) -> None:
    about = json.loads((run / "models/ffl/seed-0/a/model.json").read_text())
    assert about["findings"] == ["Cardiomegaly", "Pleural Effusion"]
    assert set(about["thresholds"]) == {"Cardiomegaly", "Pleural Effusion"}
    about = json.loads((run / "models/conventional/seed-0/a/model.json").read_text())
    assert about["findings"] == ["Pleural Effusion"]


def test_every_method_takes_the_same_number_of_steps_at_a_site(run: Path) -> None:
    rounds = pl.read_csv(run / "rounds.csv")
    assert rounds.group_by("method", "seed", "site").len()["len"].to_list() == [2] * 12
    sent = rounds.group_by("method").agg(pl.col("bytes_up").min()).sort("method")
    assert sent.rows()[2] == ("local", 0)
    assert 0 < dict(sent.iter_rows())["ffl"] < dict(sent.iter_rows())["conventional"]


def test_running_again_changes_nothing_and_trains_nothing(run: Path, phantoms: Path) -> None:
    before = contents(run)
    made = (run / "models/ffl/seed-1/b/model.json").stat().st_mtime_ns
    run_study(run.parent / "study.toml", run, QUIET)
    assert contents(run) == before
    assert (run / "models/ffl/seed-1/b/model.json").stat().st_mtime_ns == made


def test_the_order_of_sites_in_the_file_does_not_matter(run: Path, phantoms: Path, tmp_path: Path) -> None:
    text = study_text(phantoms)
    a, b = text.index('[[site]]\nname = "a"'), text.index('[[site]]\nname = "b"')
    end = text.index("\n[model]")
    turned = text[:a] + text[b:end] + text[a:b] + text[end:]
    run_study(write_study(tmp_path, turned), tmp_path / "run", QUIET)
    for method in ("local", "conventional", "ffl"):
        assert same(weights(run, method, "a"), weights(tmp_path / "run", method, "a"))


def test_a_run_does_not_go_on_with_other_images_or_other_choices_behind_its_labels(
    phantoms: Path, tmp_path: Path
) -> None:
    shutil.copytree(phantoms, tmp_path / "sites")
    study = write_study(tmp_path, study_text(tmp_path / "sites", '"local"').replace("[0, 1]", "[0]"))
    run_study(study, tmp_path / "run", QUIET)
    write_site_file(tmp_path / "sites/a", SiteFile(tmp_path / "sites/b"))
    with pytest.raises(RunError, match="images of site a has changed since the run began"):
        run_study(study, tmp_path / "run", QUIET)
    write_site_file(tmp_path / "sites/a", SiteFile(source={"uncertain": "positive"}))
    with pytest.raises(RunError, match="choices behind the labels of site a has changed"):
        run_study(study, tmp_path / "run", QUIET)


def test_the_budget_of_bad_images_is_that_of_the_whole_file(phantoms: Path, tmp_path: Path) -> None:
    """88 images, one of them broken; a shard of them is judged as the file is, and as `polyhead check` judges it."""
    shutil.copytree(phantoms, tmp_path / "sites")
    manifest = read_manifest(tmp_path / "sites/a/manifest.csv")
    (manifest.root / take_shard(manifest, 1, 2).split("train")["image"][0]).write_bytes(b"")
    for budget, sound in ((0.012, True), (0.011, False)):
        text = study_text(tmp_path / "sites", '"local"').replace('name = "a"', 'name = "a"\nshard = "1/2"')
        text = f"bad_images = {budget}\n" + text.replace("[0, 1]", "[0]")
        study = write_study(tmp_path / str(budget), text)
        assert check_study(study, Reading()).sound == sound
        if sound:
            run_study(study, tmp_path / str(budget) / "run", QUIET)
        else:
            with pytest.raises(CacheError, match="1 of 88 images cannot be used"):
                run_study(study, tmp_path / str(budget) / "run", QUIET)


def test_fine_tuning_parts_the_backbones_and_is_given_to_local_too(phantoms: Path, tmp_path: Path) -> None:
    settings = TINY_SETTINGS.replace("local_steps = 1", 'local_steps = 1\nfinetune = "full"\nfinetune_steps = 3')
    text = study_text(phantoms, '"local", "ffl"', settings).replace("seeds = [0, 1]", "seeds = [0]")
    run_study(write_study(tmp_path, text), tmp_path / "run", QUIET)
    assert not same(weights(tmp_path / "run", "ffl", "a"), weights(tmp_path / "run", "ffl", "b"))
    rounds = pl.read_csv(tmp_path / "run/rounds.csv")
    assert rounds.group_by("method", "site").len()["len"].to_list() == [3] * 4
    assert rounds.filter(pl.col("round") == 2)["status"].unique().to_list() == ["alone"]


def test_a_site_without_training_images_is_warned_about_and_still_tested(
    phantoms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = study_text(phantoms, '"ffl"').replace('name = "b"', 'name = "b"\ntrain_images = 1')
    run_study(write_study(tmp_path, text), tmp_path / "run", QUIET)
    assert "site b: " in caplog.text
    assert "takes no part in training" in caplog.text
    rounds = pl.read_csv(tmp_path / "run/rounds.csv")
    assert rounds.filter(site="b")["status"].unique().to_list() == ["no training images"]
    assert rounds.filter(site="a")["status"].unique().to_list() == ["averaged"]
    assert "no training images" in (tmp_path / "run/report.html").read_text()
    assert same(weights(tmp_path / "run", "ffl", "a"), weights(tmp_path / "run", "ffl", "b"))


def test_findings_that_cannot_be_learned_are_warned_about(
    phantoms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in (("one_class", 0), ("blank", None)):
        frame = pl.read_csv(phantoms / "a/manifest.csv").with_columns(pl.lit(value, pl.Int64).alias("Edema"))
        frame.write_csv(phantoms / f"a/{name}.csv")
        text = study_text(phantoms, '"local"').replace("a/manifest.csv", f"a/{name}.csv")
        run_study(write_study(tmp_path / name, text.replace("[0, 1]", "[0]")), tmp_path / name / "run", QUIET)
    assert "site a, finding 'Edema': all annotated training images are negative" in caplog.text
    assert "site a, finding 'Edema': no training image is annotated" in caplog.text
    metrics = pl.read_csv(tmp_path / "one_class/run/metrics.csv", schema_overrides={"seed": pl.String})
    edema = metrics.filter(site="a", finding="Edema", metric="auroc", seed="0").row(0, named=True)
    assert edema["value"] is None
    assert edema["positives"] == 0


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("a/manifest.csv", "c/manifest.csv", ManifestError, r"site a: .*c/manifest\.csv: cannot be read"),
        ('name = "a"', 'name = "a"\nfindings = ["Effusions"]', ManifestError, "site a: .*no finding 'Effusions'"),
        ("[model]", '[findings.aliases]\n"Edemma" = "Edema"\n[model]', StudyError, "no site has a finding 'Edemma'"),
        ('name = "b"', 'name = "b"\nfindings = ["Edema", "Edema"]', StudyError, "'Edema' stands twice"),
        ('"resnet10"', '"resnet11"', StudyError, "'model.backbone': 'resnet11' is unknown; closest: resnet101?"),
        ('"ffl"', '"fll"', StudyError, "key 'methods': 'fll' is unknown; closest: ffl"),
        ('device = "cpu"', 'device = "cuda:7"', StudyError, "this machine has no 'cuda:7'"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(
    phantoms: Path, tmp_path: Path, old: str, new: str, error: type[Exception], message: str
) -> None:
    study = write_study(tmp_path, study_text(phantoms).replace(old, new))
    with pytest.raises(error, match=message):
        run_study(study, tmp_path / "run", QUIET)
    assert not (tmp_path / "run").exists()


def test_another_study_in_the_same_directory_is_refused(run: Path, tmp_path: Path) -> None:
    other = write_study(tmp_path, (run / "study.toml").read_text().replace("tiny", "other"))
    with pytest.raises(RunError, match="belongs to another study"):
        run_study(other, run, QUIET)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", ["three_countries", "matching_labels", "small_hospital"])
def test_the_example_studies_run(name: str, real_data: Callable[[str], Path], tmp_path: Path) -> None:
    data = real_data("guangzhou").parents[1]
    text = (EXAMPLES / f"{name}.toml").read_text().replace("../../shared/data", str(data))
    for key, value in {"rounds": 2, "local_steps": 1, "width": 0.25, "replicates": 100}.items():
        text = "\n".join(f"{key} = {value}" if line.startswith(f"{key} =") else line for line in text.splitlines())
    study = write_study(tmp_path, text)
    methods = load_study(study).methods
    assert run_study(study, tmp_path / "run", QUIET).exists()
    metrics = pl.read_csv(tmp_path / "run/metrics.csv", schema_overrides={"seed": pl.String})
    assert metrics.filter(finding="mean", seed="all")["method"].unique().sort().to_list() == sorted(methods)


def test_a_study_file_that_changes_meanwhile_is_refused_and_nothing_is_trained(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run trains on would else be one thing, and what its own copy says another."""
    file = write_study(tmp_path, study_text(phantoms, '"local"'))

    def load_and_change(path: Path) -> StudyConfig:
        study = load_study(path)
        path.write_text(path.read_text().replace("rounds = 2", "rounds = 1"))
        return study

    monkeypatch.setattr("polyhead.study.load_study", load_and_change)
    with pytest.raises(StudyError, match=r"study\.toml: was changed since this command began"):
        run_study(file, tmp_path / "run", QUIET)
    assert not (tmp_path / "run/state").exists()
    monkeypatch.undo()
    run_study(file, tmp_path / "run", QUIET)
    assert set(pl.read_csv(tmp_path / "run/rounds.csv")["round"]) == {0}


def test_a_study_whose_last_training_images_cannot_be_read_is_refused(tmp_path: Path) -> None:
    write_two_sites(tmp_path, 8, 4, 8)
    table = pl.read_csv(tmp_path / "a/manifest.csv", infer_schema=False)
    train = table.filter(pl.col("split") == "train").head(2)
    pl.concat([train, table.filter(pl.col("split") != "train")]).write_csv(tmp_path / "a/manifest.csv")
    (tmp_path / "a" / train["image"][0]).write_bytes(b"")
    one = '[[site]]\nname = "a"\nmanifest = "a/manifest.csv"\n'
    file = write_study(tmp_path, f'name = "x"\nmethods = ["local"]\nbad_images = 0.2\n{one}{TINY_SETTINGS}')
    with pytest.raises(StudyError, match="no site has two readable training images"):
        run_study(file, tmp_path / "run", QUIET)
