"""What a run began with is held against what it goes on with."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyhead.config import StudyConfig
from polyhead.environment import keep_environment, keep_inputs
from polyhead.errors import RunError
from polyhead.manifest import Manifest, read_manifest
from polyhead.study_file import parse_study
from polyhead.training.device import resolve_device

CPU = resolve_device("cpu")
SITES = ("a", "b", "c", "site a")
SPLITS = ("train", "val", "test")


@pytest.fixture
def manifests(tmp_path: Path) -> dict[str, Manifest]:
    for site in SITES:
        (tmp_path / site).mkdir()
        rows = [
            {"image": f"{i}.png", "patient_id": str(i), "split": split, "Edema": i % 2}
            for i, split in enumerate(SPLITS)
        ]
        pl.DataFrame(rows).write_csv(tmp_path / site / "manifest.csv")
        for row in rows:
            (tmp_path / site / row["image"]).write_bytes(b"pixels")
    return {site: read_manifest(tmp_path / site / "manifest.csv") for site in SITES}


def study_of(folder: Path, settings: str = "") -> StudyConfig:
    sites = "".join(f'[[site]]\nname = "{site}"\nmanifest = "{site}/manifest.csv"\n' for site in SITES)
    return parse_study(f'name = "x"\n{sites}{settings}', folder, "study.toml")


def some(manifests: dict[str, Manifest], *names: str) -> dict[str, Manifest]:
    return {name: manifests[name] for name in names}


def test_the_same_inputs_go_on_and_the_file_stays_the_same(tmp_path: Path, manifests: dict[str, Manifest]) -> None:
    path, study = tmp_path / "run/inputs.json", study_of(tmp_path)
    keep_inputs(path, study, manifests)
    before = path.read_bytes()
    keep_inputs(path, study, manifests)
    assert path.read_bytes() == before


def test_all_that_changed_is_named_with_what_to_do(tmp_path: Path, manifests: dict[str, Manifest]) -> None:
    path = tmp_path / "run/inputs.json"
    for name in ("old", "new"):
        (tmp_path / name).write_text(name)
    keep_inputs(path, study_of(tmp_path, '[model]\nweights = "old"\n'), some(manifests, "a", "b"))
    (tmp_path / "a/0.png").write_bytes(b"other pixels")
    with pytest.raises(RunError) as found:
        keep_inputs(path, study_of(tmp_path, '[model]\nweights = "new"\n'), some(manifests, "a", "c"))
    assert str(found.value) == (
        f"{path.parent}: site b is gone, site c is new, images of site a has changed, model.weights has changed since "
        "the run began. Put it back, or choose another --out, or begin anew with --restart, which keeps this run "
        "beside the new one."
    )


def test_of_many_changes_five_are_named(tmp_path: Path, manifests: dict[str, Manifest]) -> None:
    path, study = tmp_path / "run/inputs.json", study_of(tmp_path)
    keep_inputs(path, study, manifests)
    path.write_text(json.dumps(dict.fromkeys(json.loads(path.read_text()), "0")))
    with pytest.raises(
        RunError, match=r": (site [a-csite ]* has changed, ){4}choices [^,]* has changed, and 7 more things since"
    ):
        keep_inputs(path, study, manifests)


def test_a_site_whose_name_ends_like_another_is_named_too(tmp_path: Path, manifests: dict[str, Manifest]) -> None:
    path, study = tmp_path / "run/inputs.json", study_of(tmp_path)
    keep_inputs(path, study, some(manifests, "b"))
    with pytest.raises(RunError, match=r": site a is new, site site a is new since"):
        keep_inputs(path, study, some(manifests, "a", "b", "site a"))


def test_what_an_older_file_does_not_know_is_named(tmp_path: Path, manifests: dict[str, Manifest]) -> None:
    path, study = tmp_path / "run/inputs.json", study_of(tmp_path)
    keep_inputs(path, study, some(manifests, "a"))
    content = json.loads(path.read_text())
    path.write_text(json.dumps({"site a": content["site a"]}))
    with pytest.raises(RunError, match=r"choices behind the labels of site a is new, images of site a is new since"):
        keep_inputs(path, study, some(manifests, "a"))


DAMAGES: list[Callable[[Path], object]] = [
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes()[:-9]),
    lambda path: path.write_bytes(b"\0" * 50),
    lambda path: path.write_bytes(b'{"a": "\xff"}'),
    lambda path: path.write_bytes(b"[" * 100_000),
    lambda path: path.write_bytes(b'["a"]'),
    lambda path: path.write_bytes(b"null"),
    lambda path: (path.unlink(), path.mkdir()),
    lambda path: (path.unlink(), os.mkfifo(path)),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_inputs_are_named_with_what_to_do(
    tmp_path: Path, manifests: dict[str, Manifest], damage: Callable[[Path], object]
) -> None:
    path, study = tmp_path / "run/inputs.json", study_of(tmp_path)
    keep_inputs(path, study, manifests)
    damage(path)
    with pytest.raises(RunError, match=r"inputs\.json: .*remove it.*--restart"):
        keep_inputs(path, study, manifests)


@pytest.mark.parametrize("damage", [*DAMAGES, lambda path: path.write_bytes(b'{"resumed": 1}')])
def test_a_damaged_environment_is_named_with_what_to_do(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    path, study = tmp_path / "environment.json", study_of(tmp_path)
    keep_environment(path, study, CPU)
    damage(path)
    with pytest.raises(RunError, match=r"environment\.json: is .*Remove it"):
        keep_environment(path, study, CPU)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 2000), place=st.integers(0, 2000), bit=st.integers(0, 7))
def test_no_damage_gives_a_traceback(
    tmp_path: Path, manifests: dict[str, Manifest], cut: int, place: int, bit: int
) -> None:
    path, study = tmp_path / "run/inputs.json", study_of(tmp_path)
    path.unlink(missing_ok=True)
    keep_inputs(path, study, manifests)
    raw = bytearray(path.read_bytes()[: max(cut, 1)])
    raw[place % len(raw)] ^= 1 << bit
    path.write_bytes(bytes(raw))
    with pytest.raises(RunError, match=r"inputs\.json: is damaged|since the run began"):
        keep_inputs(path, study, manifests)


def test_other_versions_are_added_once_and_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, study = tmp_path / "environment.json", study_of(tmp_path)
    keep_environment(path, study, CPU)
    first = json.loads(path.read_text())
    path.write_text(json.dumps({**first, "commit": "another"}))
    with caplog.at_level(logging.WARNING):
        keep_environment(path, study, CPU)
        keep_environment(path, study, CPU)
    assert json.loads(path.read_text()) == {**first, "commit": "another", "resumed": [first]}
    assert caplog.text.count("other versions or another device") == 1
