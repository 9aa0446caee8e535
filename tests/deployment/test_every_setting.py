"""Whatever a study asks for: what a federation leaves at its sites is, bit for bit, what `polyhead run` leaves."""

import hashlib
import json
from pathlib import Path

import pytest
from rich.console import Console

from polyhead.check.images import Reading
from polyhead.check.study import check_settings
from polyhead.deployment.agreed import Agreed, study_at
from polyhead.deployment.coordinator import EVENTS, Segment, run_segment, store_of
from polyhead.deployment.events import read_events
from polyhead.deployment.hospital import open_hospital
from polyhead.deployment.house_file import differences
from polyhead.deployment.leaving import heads_that_leave, what_leaves
from polyhead.errors import RunError, StudyError, UpdateError, WeightsError
from polyhead.outputs import output_files
from polyhead.study import run_study
from polyhead.study_file import load_study
from polyhead.toml_file import read_toml
from tests.deployment.houses_by_hand import agreed_in, carry_home, run_all, several_steps, write_study, write_weights

COMMON = '[findings]\ncommon = ["effusion"]\n'


def study_in(folder: Path, methods: str, settings: str = "", rest: str = "", rounds: int = 3) -> Path:
    """Hospitals a and b, which have pleural effusion in common; `rest` are tables of the study."""
    file = write_study(folder, rounds, "ab", settings)
    file.write_text(file.read_text().replace('methods = ["ffl"]', f"methods = {methods}") + rest)
    return file


def hold_against_a_run_in_one_place(study: Path, agreed: Agreed, folder: Path) -> None:
    """Run a study here and there, and compare every model and prediction."""
    run_study(study, folder / "run", Console(quiet=True))
    run_all(agreed, folder / "server", carry_home(study, agreed, folder))
    for site in agreed.sites:
        home = folder / site / "run"
        for where in ((method, "seed-0", site) for method in agreed.settings["methods"]):
            for file in output_files(home.joinpath("models", *where), home.joinpath("predictions", *where)):
                assert file.read_bytes() == (folder / "run" / file.relative_to(home)).read_bytes(), file


@pytest.mark.parametrize("batch_norm", ["shared", "private"])
def test_a_head_that_all_share(batch_norm: str, tmp_path: Path) -> None:
    study = study_in(tmp_path, '["conventional", "ffl"]', f'batch_norm = "{batch_norm}"', COMMON)
    hold_against_a_run_in_one_place(study, agreed_in(study), tmp_path)


def test_methods_that_do_more_than_share(tmp_path: Path) -> None:
    settings = 'transfer = "half"\nfinetune = "head"\nfinetune_steps = 2\nvalidate_every = 1\nselect = "best"'
    study = study_in(tmp_path, '["fedbn", "fedprox", "fedbabu", "fedavgm", "fedadam"]', settings, rounds=2)
    study.write_text(several_steps(study.read_text()))
    hold_against_a_run_in_one_place(study, agreed_in(study), tmp_path)


def test_hospitals_agree_on_no_method_that_would_be_another(tmp_path: Path) -> None:
    study = study_in(tmp_path, '["local", "fedbabu", "fedbn"]')
    study.write_text(study.read_text().replace("image_size = 32", 'image_size = 32\nnorm = "group"'))
    with pytest.raises(StudyError, match=r"method 'fedbabu': .*federation\.finetune"):
        agreed_in(study)
    found = check_settings(load_study(study), study, Reading(images=False)).problems
    assert [(one.kind, one.text.split(":")[0]) for one in found if one.severity == "error"] == [
        ("methods", "method 'fedbabu'"),
        ("methods", "method 'fedbn'"),
    ]


def test_a_site_is_told_whose_head_leaves(tmp_path: Path) -> None:
    agreed = agreed_in(study_in(tmp_path, '["conventional", "ffl"]', rest=COMMON))
    assert heads_that_leave(agreed) == {"conventional": ("Pleural Effusion",)}
    conventional, ffl = what_leaves(agreed)
    assert conventional.tensors == ffl.tensors + 2


def test_a_site_without_a_common_finding_says_at_the_join_which(tmp_path: Path) -> None:
    study = study_in(tmp_path, '["conventional"]', rest=COMMON)
    agreed = agreed_in(study)
    own = study.with_name("narrow.toml")
    own.write_text(f'manifest = "{load_study(study).site[1].manifest}"\nfindings = ["Edema"]\n')
    with pytest.raises(UpdateError, match="do not annotate Pleural Effusion"):
        open_hospital(agreed, "b", own, tmp_path / "b", "conventional", 0)
    house = study_at(agreed, "b", read_toml(own, StudyError), tmp_path, str(own))
    found = check_settings(house, own, Reading(images=False), whole=False)
    assert ["Pleural Effusion" in problem.text for problem in found.problems if problem.kind == "methods"] == [True]


@pytest.mark.parametrize(
    ("methods", "settings"),
    [
        ('["local", "ffl"]', "validate_every = 1"),
        (
            '["ffl"]',
            'transfer = "half"\nvalidate_every = 2\nbatch_norm = "private"\nfinetune = "head"\nfinetune_steps = 1',
        ),
        ('["conventional"]', "validate_every = 3"),
    ],
)
def test_the_state_that_is_best_for_each_site(methods: str, settings: str, tmp_path: Path) -> None:
    study = study_in(tmp_path, methods, f'{settings}\nselect = "best"', COMMON, rounds=5)
    agreed = agreed_in(study)
    hold_against_a_run_in_one_place(study, agreed, tmp_path)
    found = [json.loads(file.read_text())["rounds"] for file in tmp_path.glob("?/run/models/*/*/*/model.json")]
    assert any(rounds < 5 for rounds in found), "every site's best is the last: choose another seed"


def test_initial_weights(tmp_path: Path) -> None:
    study = study_in(tmp_path, '["local", "conventional", "ffl"]', 'batch_norm = "private"', COMMON, rounds=2)
    write_weights(study)
    agreed = agreed_in(study)
    study.with_name("start.safetensors").rename(study.with_name("away"))
    study.write_text(study.read_text().replace("start.safetensors", "away"))
    hold_against_a_run_in_one_place(study, agreed, tmp_path)


def test_other_initial_weights_than_were_agreed_on_are_used_by_nobody(tmp_path: Path) -> None:
    study = study_in(tmp_path, '["ffl"]')
    write_weights(study)
    agreed = agreed_in(study)
    assert agreed.weights is not None
    weights = agreed.weights.file
    raw = weights.read_bytes()
    for spoil in (lambda: weights.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1])), weights.unlink):
        weights.write_bytes(raw)
        carry = carry_home(study, agreed, tmp_path)
        spoil()
        with pytest.raises(RunError, match="Ask the coordinator for the kit again"):
            open_hospital(agreed, "a", study.with_name("a-own.toml"), tmp_path / "a", "ffl", 0)
        run_segment(agreed, Segment("1", "ffl", 0, 1), tmp_path / "server", carry)
        last = read_events(store_of(agreed, tmp_path / "server", "ffl", 0).folder / EVENTS)[-1]
        assert last["event"] == "failed"
        assert "weights.safetensors" in last["reason"]


def test_initial_weights_of_another_backbone_are_agreed_on_by_nobody(tmp_path: Path) -> None:
    study = study_in(tmp_path, '["ffl"]')
    write_weights(study)
    study.write_text(study.read_text().replace("width = 0.125", "width = 0.25"))
    with pytest.raises(WeightsError, match="does not fit the backbone"):
        agreed_in(study)


def test_a_study_with_other_initial_weights_differs(tmp_path: Path) -> None:
    study = study_in(tmp_path, '["ffl"]')
    without = agreed_in(study)
    file = write_weights(study)
    agreed = agreed_in(study)
    assert agreed.sha256 != without.sha256
    assert not differences(agreed, load_study(study))
    (said,) = differences(without, load_study(study))
    assert said.startswith("model.weights: was not set, is ")
    assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(said.split()[-1])


def test_an_alias_of_another_hospitals_finding_is_no_fault_of_a_house(tmp_path: Path) -> None:
    aliases = '[findings]\naliases = {"Edema" = "Lung Water"}\n'
    study = study_in(tmp_path, '["ffl"]', rest=aliases)
    agreed = agreed_in(study)
    house = study_at(agreed, "a", {"manifest": str(load_study(study).site[0].manifest)}, tmp_path, "a.toml")
    assert check_settings(house, study, Reading(images=False), whole=False).sound
    assert not check_settings(house, study, Reading(images=False)).sound
