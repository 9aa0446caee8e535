"""What a study file leaves blank stays, for a run, what it was when the run began."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.begun import keep_settings, study_as_begun
from polyhead.config import Federation
from polyhead.errors import RunError, StudyError
from polyhead.federation.run_dir import open_run
from polyhead.study_file import parse_study
from tests.test_study_file import SETTINGS

SITE = '[[site]]\nname = "a"\nmanifest = "a/manifest.csv"\n'
ROUNDS = Federation().rounds
# Name and places always stand in the file; of aliases there is nothing but what the file says.
PLACES = {"name", "cache", "model.weights"}


def text_of(settings: dict[str, Any]) -> str:
    # Of texts, numbers, booleans and lists of them JSON is TOML.
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in {"name": "x", **settings}.items()) + SITE


@given(SETTINGS, st.data())
def test_whatever_is_left_blank_is_what_it_was(settings: dict[str, Any], data: st.DataObject) -> None:
    settings = {key: value for key, value in settings.items() if key not in PLACES}
    said = data.draw(st.sets(st.sampled_from(sorted(settings)))) if settings else set()
    with TemporaryDirectory() as folder:
        began = parse_study(text_of(settings), Path(folder), "study.toml")
        keep_settings(Path(folder) / "settings.json", began)
        text = text_of({key: settings[key] for key in settings if key in said or ".aliases." in key})
        assert study_as_begun(Path(folder), text, Path(folder)) == began


def change(run: Path, section: str, **settings: Any) -> None:
    """As another version would have written it."""
    kept = json.loads((run / "settings.json").read_text())
    kept[section] |= settings
    (run / "settings.json").write_text(json.dumps(kept))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "study.toml").write_text(text_of({}))
    with open_run(tmp_path / "run", tmp_path / "study.toml"):
        pass
    return tmp_path / "run"


def test_a_run_does_not_go_on_with_other_blanks_but_with_what_they_were(run: Path) -> None:
    change(run, "federation", rounds=7)
    file = run.parent / "study.toml"
    with (
        pytest.raises(RunError, match=f"blanks .* federation.rounds: was 7, is {ROUNDS}. Write into the study file"),
        open_run(run, file),
    ):
        pass
    file.write_text(text_of({"federation.rounds": 7}))
    with open_run(run, file) as opened:
        assert opened.known
    assert study_as_begun(run, (run / "study.toml").read_text(), run).federation.rounds == 7


def test_settings_that_this_version_does_not_have_are_left_out(run: Path) -> None:
    change(run, "federation", gone=7)
    with open_run(run, run.parent / "study.toml") as opened:
        assert opened.known


def test_a_setting_that_is_new_has_its_default(run: Path) -> None:
    kept = json.loads((run / "settings.json").read_text())
    del kept["federation"]["rounds"], kept["privacy"]
    (run / "settings.json").write_text(json.dumps(kept))
    with open_run(run, run.parent / "study.toml") as opened:
        assert opened.known


def test_neither_sites_nor_paths_are_kept(tmp_path: Path) -> None:
    study = parse_study(text_of({"cache": "secret", "model.weights": "secret"}), tmp_path, "study.toml")
    keep_settings(tmp_path / "settings.json", study)
    kept = json.loads((tmp_path / "settings.json").read_text())
    assert not {"site", "cache"} & kept.keys()
    assert "secret" not in str(kept)
    assert str(tmp_path) not in str(kept)


def test_what_is_damaged_is_told_apart(run: Path) -> None:
    change(run, "federation", rounds="many")
    text = (run / "study.toml").read_text()
    with pytest.raises(
        RunError, match=r"settings\.json: is damaged: key 'federation.rounds': found 'many'.* Put a copy"
    ):
        study_as_begun(run, text, run)
    with pytest.raises(StudyError, match=r"study\.toml: unknown key 'rnds'"):
        study_as_begun(run, f"rnds = 3\n{text}", run)
