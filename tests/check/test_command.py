"""`polyhead check` as a person calls it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from polyhead.check import share
from polyhead.cli import main
from polyhead.imaging.prepare import open_cache
from polyhead.imaging.recipe import Recipe
from polyhead.manifest import read_manifest
from tests.check.conftest import HEADER, rows_of, write_site


def polyhead(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from polyhead.cli import main; main()", "check", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)


def test_help_ends_with_an_example() -> None:
    assert "Example: polyhead check" in re.sub(r"\s+", " ", polyhead("--help").stdout)


@pytest.mark.slow
def test_a_sound_site_gives_0_and_json_alone_on_stdout(tmp_path: Path) -> None:
    done = polyhead(write_site(tmp_path / "site"), "--json", "--size", "32", "--cache", tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["sound"] is True
    assert record["estimate"]["step_seconds"] > 0
    assert not list((tmp_path / "site").glob("pixels*"))


def test_an_error_gives_1_and_the_summary_is_written_all_the_same(tmp_path: Path) -> None:
    rows = rows_of()
    rows[0] = rows[0][:-1] + "2"
    site = write_site(tmp_path / "site", rows, images=False)
    done = polyhead(site, "--no-images", "--share", tmp_path / "share.json")
    assert done.returncode == 1
    assert "Not sound: 1 error" in done.stdout
    assert json.loads((tmp_path / "share.json").read_text())["manifests"][0]["problems"]["label"] == "<5"


@pytest.mark.slow
def test_the_cache_is_the_one_that_prepare_makes_with_the_same_options(tmp_path: Path) -> None:
    site = write_site(tmp_path / "site")
    choices = ("--recipe", "paper", "--intensity", "robust", "--equalize", "clahe")
    done = polyhead(site, "--size", "32", *choices, "--frames", "first", "--colour", "refuse")
    assert done.returncode == 0, done.stdout + done.stderr
    recipe = Recipe("stretch", "robust", "clahe", "first", "refuse")
    assert open_cache(read_manifest(site / "manifest.csv"), site, 32, recipe) is not None


@pytest.mark.slow
def test_each_choice_takes_the_place_of_the_recipes(tmp_path: Path) -> None:
    site = write_site(tmp_path / "site")
    done = polyhead(site, "--size", "32", "--recipe", "paper", "--aspect", "crop")
    assert done.returncode == 0, done.stdout + done.stderr
    assert open_cache(read_manifest(site / "manifest.csv"), site, 32, Recipe("crop", "minmax", "histogram")) is not None


def test_the_result_is_shown_even_if_the_summary_can_no_longer_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(result: object, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(share, "write_share", full)
    site = write_site(tmp_path / "site", images=False)
    monkeypatch.setattr(
        sys, "argv", ["polyhead", "check", str(site), "--no-images", "--json", "--share", str(tmp_path / "s.json")]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert json.loads(capsys.readouterr().out)["sound"] is True


def test_a_study_is_checked_without_running_it(tmp_path: Path) -> None:
    write_site(tmp_path / "site", header=HEADER, images=False)
    (tmp_path / "study.toml").write_text(
        'name = "tiny"\nmethods = ["local"]\n[[site]]\nname = "a"\nmanifest = "site/manifest.csv"\n'
        '[model]\nbackbone = "resnet10"\nwidth = 0.125\nimage_size = 32\n'
    )
    done = polyhead(tmp_path / "study.toml", "--no-images")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "400 optimizer steps" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent.toml",), "absent.toml: cannot be read"),
        (("a.toml", "site"), "one study file, or folders of sites"),
        (("a.toml", "--size", "64"), "--size is for sites; set the study's key 'model.image_size'"),
        (("a.toml", "--skip", "0"), "--skip is for sites; set the study's key 'bad_images'"),
        (("a.toml", "--cache", "cache"), "--cache is for sites; set the study's key 'cache'"),
        (
            ("a.toml", "--recipe", "standard", "--frames", "first"),
            "--recipe, --frames are for sites; set the study's keys 'pixels.recipe', 'pixels.frames'",
        ),
        (("site", "--share", "absent/share.json"), "--share absent/share.json: there is no folder absent"),
        ((), "Missing argument"),
        (("site", "--size", "3"), "greater than or equal to 32"),
    ],
)
def test_wrong_use_gives_2_and_a_message(arguments: tuple[str, ...], message: str) -> None:
    done = polyhead(*arguments)
    assert done.returncode == 2
    assert message in re.sub(r"\s+", " ", done.stderr)
    assert "Traceback" not in done.stderr


def test_a_study_has_no_summary(tmp_path: Path) -> None:
    """It may count the same patients in forty overlapping parts, and so tell the label of each."""
    (tmp_path / "study.toml").write_text('name = "s"\n[[site]]\nname = "a"\nmanifest = "manifest.csv"\n')
    done = polyhead(tmp_path / "study.toml", "--share", tmp_path / "summary.json")
    assert done.returncode == 2
    assert "--share is for sites' folders" in re.sub(r"\s+", " ", done.stderr)
    assert not (tmp_path / "summary.json").exists()
