"""A study before it runs: its sites as it narrows them, its own demands, time and disk."""

from pathlib import Path

import pytest

from polyhead.check import estimate, study
from polyhead.check.images import Reading
from polyhead.check.result import CheckResult
from polyhead.check.site import check_file
from polyhead.check.study import check_study
from polyhead.errors import StudyError
from polyhead.imaging import prepare
from polyhead.imaging.recipe import RECIPES
from polyhead.manifest import narrow, read_manifest
from polyhead.study_file import load_study
from polyhead.training.timing import model_bytes
from tests.check.conftest import HEADER, TABLES_ONLY, by_kind, rows_of, write_site

MODEL = """
[model]
backbone = "resnet10"
width = 0.125
image_size = 32
[federation]
rounds = 3
local_steps = 2
[training]
batch_size = 8
device = "cpu"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sites with one finding in common."""
    write_site(tmp_path / "a", [f"{row},{row[-1]}" for row in rows_of()], f"{HEADER},Mass")
    write_site(tmp_path / "b", header=HEADER.replace("Edema", "oedema"))
    return tmp_path


def site(name: str, manifest: str, more: str = "") -> str:
    return f'[[site]]\nname = "{name}"\nmanifest = "{manifest}/manifest.csv"\n{more}\n'


def check(
    folder: Path,
    sites: str = site("a", "a") + site("b", "b"),
    top: str = "",
    more: str = "",
    reading: Reading = TABLES_ONLY,
) -> CheckResult:
    (folder / "study.toml").write_text(f'name = "tiny"\n{top}\n{sites}{MODEL}{more}')
    return check_study(folder / "study.toml", reading)


def errors(result: CheckResult) -> list[tuple[str, str]]:
    return [(problem.kind, problem.text) for problem in result.all_problems() if problem.severity == "error"]


def test_a_sound_study_is_sound_and_its_caches_are_filled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = check(folder, top='cache = "cache"', reading=Reading())
    assert result.sound
    assert [manifest.cache is not None and manifest.cache.ready for manifest in result.manifests] == [True, True]
    monkeypatch.setattr(prepare, "build", lambda *arguments: pytest.fail("built again"))
    for name in "ab":
        prepare.prepare(read_manifest(folder / name / "manifest.csv"), folder / "cache", 32)


def test_a_manifest_that_plays_two_sites_is_checked_once_and_counted_as_narrowed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [
        site(f"part {part}", "a", f'shard = "{part}/2"\nfindings = ["Mass"]\ntrain_images = 8') for part in (1, 2)
    ]
    read: list[Path] = []
    monkeypatch.setattr(study, "check_file", lambda path, reading: read.append(path) or check_file(path, reading))
    result = check(folder, "".join(shards))
    assert read == [folder / "a/manifest.csv"]
    assert len(result.manifests) == 1
    whole = read_manifest(folder / "a/manifest.csv")
    for part, found in enumerate(result.sites, start=1):
        kept = narrow(whole, ["Mass"], f"{part}/2", 8)
        assert found.findings == ("Mass",)
        assert found.counts["images"].to_list() == [kept.split(split).height for split in ("train", "val", "test")]
        assert found.counts["images"][0] == 8
    assert sum(found.counts.filter(split="test")["images"][0] for found in result.sites) == 24


def test_recipe_and_budget_are_the_studys(folder: Path) -> None:
    (folder / "a/0.png").write_bytes(b"")
    result = check(folder, top="bad_images = 0.02", more='[pixels]\nrecipe = "paper"', reading=Reading())
    assert result.sound
    assert [problem.severity for problem in by_kind(result.all_problems(), "bad-image")] == ["warning"]
    manifest = read_manifest(folder / "a/manifest.csv")
    assert prepare.open_cache(manifest, folder / "a", 32, RECIPES["paper"]) is not None
    assert not check(folder, top="bad_images = 0.01", reading=Reading()).sound


def test_a_missing_finding_is_named_with_the_closest_and_the_others_are_counted(folder: Path) -> None:
    result = check(folder, site("a", "a", 'findings = ["Maas", "Edema"]') + site("b", "b"))
    assert errors(result) == [("missing-finding", "no finding 'Maas'; closest: Mass.")]
    assert result.sites[0].findings == ("Edema",)


def test_a_site_none_of_whose_findings_exist_is_left_out(folder: Path) -> None:
    result = check(folder, site("a", "a", 'findings = ["Maas"]') + site("b", "b"))
    assert errors(result) == [("missing-finding", "site a, left out: no finding 'Maas'; closest: Mass.")]
    assert [found.name for found in result.sites] == ["b"]
    assert len(by_kind(result.all_problems(), "not-checked")) == 1


def test_the_cache_is_the_studys_alone(folder: Path) -> None:
    check(folder, reading=Reading(cache=folder / "elsewhere"))
    assert not (folder / "elsewhere").exists()
    assert prepare.open_cache(read_manifest(folder / "a/manifest.csv"), folder / "a", 32) is not None


def test_bad_labels_do_not_keep_the_study_from_being_checked(folder: Path) -> None:
    path = folder / "a/manifest.csv"
    path.write_text(path.read_text().replace("0.png,p0,train,0,0", "0.png,p0,train,0,x"))
    result = check(folder, top='methods = ["local", "fll"]', reading=Reading())
    assert [kind for kind, _ in errors(result)] == ["methods", "label"]
    assert result.manifests[0].images_read
    assert result.sites[0].counts.filter(split="train", finding="Mass").row(0)[2:5] == (12, 11, 1)


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"top": 'methods = ["local", "fll"]'}, "methods", "'fll' is unknown; closest: ffl"),
        ({"more": '[findings.aliases]\nMaas = "Mass"'}, "findings", "no site has a finding 'Maas'; closest: Mass"),
        ({"more": '[findings.aliases]\nMass = "Edema"'}, "findings", "both mean 'Edema'"),
    ],
)
def test_what_a_study_cannot_have_is_an_error(arguments: dict[str, str], kind: str, said: str, folder: Path) -> None:
    (error,) = errors(check(folder, **arguments))
    assert error[0] == kind
    assert said in error[1]


def test_methods_of_all_findings_are_checked_with_the_settings_that_do_not_go_with_them(folder: Path) -> None:
    top = 'methods = ["surgical", "masked", "central"]'
    assert errors(check(folder, top=top)) == []
    study_file = folder / "study.toml"
    study_file.write_text(study_file.read_text().replace("rounds = 3", 'rounds = 3\naggregation = "median"'))
    ((kind, text),) = errors(check_study(study_file, TABLES_ONLY))
    assert kind == "methods"
    assert text.startswith("method 'surgical': averages each row of the head")


def test_conventional_without_a_common_finding_is_an_error(folder: Path) -> None:
    sites = site("a", "a", 'findings = ["Mass"]') + site("b", "b")
    (error,) = errors(check(folder, sites, top='methods = ["conventional", "ffl"]'))
    assert error[0] == "methods"
    assert "a finding that all sites annotate" in error[1]


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ('"cpu"', '"cuda:99"', "device"),
        ("resnet10", "resnet11", "model"),
        ("image_size", 'weights = "no"\nimage_size', "model"),
    ],
)
def test_a_device_or_model_that_is_not_there_is_an_error(
    old: str, new: str, kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.check.test_study.MODEL", MODEL.replace(old, new))
    assert [found for found, _ in errors(check(folder, reading=Reading()))] == [kind]


def test_no_site_with_two_training_images_is_an_error(folder: Path) -> None:
    result = check(folder, "".join(site(name, name, "train_images = 1") for name in "ab"))
    assert errors(result) == [("no-training", "no site has two training images: there is nothing to train on.")]
    assert len(by_kind(result.all_problems(), "no-training")) == 3
    assert result.estimate is not None
    assert result.estimate.steps == 0


def test_a_table_that_cannot_be_read_leaves_methods_unchecked_and_says_so(folder: Path) -> None:
    (folder / "b/manifest.csv").write_text("")
    result = check(folder, top='methods = ["fll"]')
    assert [kind for kind, _ in errors(result)] == ["table"]
    assert len(by_kind(result.all_problems(), "not-checked")) == 1


def test_a_file_that_is_no_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text("name = 3")
    with pytest.raises(StudyError, match="'name'"):
        check_study(tmp_path / "study.toml")


def test_steps_predictions_and_bytes_by_hand(folder: Path) -> None:
    top = 'methods = ["local", "ffl"]\nseeds = [0, 1, 2]'
    sites = site("a", "a") + site("b", "b") + site("c", "b", "train_images = 1")
    found = check(folder, sites, top).estimate
    assert found is not None
    # 2 methods x 3 seeds x 2 sites that train x 3 rounds x 2 steps; 48 images of 3 sites are predicted by 6 models.
    assert (found.steps, found.predicted_images) == (72, 6 * 3 * 48)
    assert (found.step_seconds, found.train_seconds) == (None, None)


def test_fine_tuning_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = MODEL.replace("rounds = 3", 'rounds = 3\nfinetune = "head"\nfinetune_steps = 10')
    monkeypatch.setattr("tests.check.test_study.MODEL", tuned)
    found = check(folder, top='methods = ["ffl"]', reading=Reading()).estimate
    assert found is not None
    assert found.steps == 2 * (3 * 2 + 10)
    # A step takes half a second; the images go through at a third of a step's time, 8 at a time.
    assert found.train_seconds == 16.0
    assert found.predict_seconds == pytest.approx(96 * 0.5 / 8 / 3)


def test_released_heads_are_one_model_more(folder: Path) -> None:
    before = check(folder).estimate
    text = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(text.replace('b/manifest.csv"', 'b/manifest.csv"\nrelease_head = true'))
    after = check_study(folder / "study.toml", TABLES_ONLY).estimate
    assert before is not None
    assert after is not None
    assert before.run is not None
    assert after.run is not None
    study_ = load_study(folder / "study.toml")
    runs = len(study_.methods) * len(study_.seeds)
    assert after.run.needed - before.run.needed == runs * sum(model_bytes(study_.model, 2))


def test_run_and_caches_on_one_disk_are_added_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = check(folder)
    assert result.estimate is not None
    assert result.estimate.run is not None
    needed, caches = result.estimate.run.needed, 2 * 72 * 32 * 32
    monkeypatch.setattr(estimate, "disk_of", lambda path: 1)
    monkeypatch.setattr(estimate, "free_bytes", lambda path: needed + caches)
    assert by_kind(check(folder).all_problems(), "disk") == []
    monkeypatch.setattr(estimate, "free_bytes", lambda path: needed + caches - 1)
    (problem,) = by_kind(check(folder).all_problems(), "disk")
    assert f"{needed:,} bytes, beside {caches:,} for pixel caches; {needed + caches - 1:,} are free" in problem.text
    monkeypatch.setattr(estimate, "disk_of", lambda path: hash(path))
    assert by_kind(check(folder).all_problems(), "disk") == []


def test_too_little_space_for_the_run_is_a_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from polyhead.config import Model

    backbone, head = model_bytes(Model(backbone="resnet10", width=0.125), 2)
    monkeypatch.setattr(estimate, "free_bytes", lambda folder: backbone)
    result = check(folder)
    (problem,) = by_kind(result.all_problems(), "disk")
    assert problem.severity == "warning"
    assert result.estimate is not None
    assert result.estimate.run is not None
    models, predictions = 4 * (backbone + head), 2 * 48 * (2 + 1) * 20
    # Two snapshots and the one being written, each with two sites' models and twice as much of optimizer; two updates.
    snapshots = 3 * (backbone + 2 * 3 * (backbone + head))
    assert result.estimate.run.needed == models + predictions + snapshots + 2 * backbone
    # With Adam at the server each snapshot holds the backbone twice more.
    with_adam = check(folder, top='methods = ["local", "fedadam"]').estimate
    assert with_adam is not None
    assert with_adam.run is not None
    assert with_adam.run.needed == result.estimate.run.needed + 3 * 2 * backbone
