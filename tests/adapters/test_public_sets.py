"""What holds for each of the five public data sets alike."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from polyhead.adapters.imported import Imported, Options
from polyhead.adapters.importing import PUBLIC
from polyhead.errors import SourceError
from polyhead.manifest import RESERVED_COLUMNS, SPLITS
from polyhead.manifest_rules import table_problems
from tests.adapters.miniatures import MINIATURES, OPTIONS

SETS = pytest.mark.parametrize("name", sorted(MINIATURES))


def run(name: str, root: Path, **choices: object) -> Imported:
    return PUBLIC[name](root, replace(OPTIONS.get(name, Options()), **choices))


def test_every_adapter_has_its_miniature() -> None:
    assert set(MINIATURES) == set(PUBLIC)


@SETS
def test_what_is_imported_is_a_sound_manifest_that_can_be_learned(name: str, tmp_path: Path) -> None:
    imported = run(name, MINIATURES[name](tmp_path))
    frame = imported.frame
    assert list(table_problems(frame.cast(pl.String))) == []
    findings = [column for column in frame.columns if column not in RESERVED_COLUMNS]
    assert all(frame[finding].dtype == pl.Int8 for finding in findings)
    both = [
        finding for finding in findings if all(frame.filter(split=split)[finding].n_unique() > 1 for split in SPLITS)
    ]
    assert len(both) >= 2
    assert all((imported.images / image).is_file() for image in frame["image"])
    assert frame.filter(split="train").height >= 24


@SETS
def test_every_choice_is_on_record(name: str, tmp_path: Path) -> None:
    imported = run(name, MINIATURES[name](tmp_path))
    expected = {"adapter", "labels", "uncertain", "not_mentioned", "views", "split"}
    assert expected <= set(imported.choices)
    assert imported.choices["adapter"] == name
    assert all(isinstance(choice, str) and choice for choice in imported.choices.values())
    allowing = run(name, tmp_path, allow_missing=True).choices
    assert allowing == {**imported.choices, "missing_images": "left out, however many"}


@pytest.mark.parametrize("name", ["chexpert", "mimic-cxr"])
def test_policies_are_on_record_where_they_apply(name: str, tmp_path: Path) -> None:
    choices = run(name, MINIATURES[name](tmp_path), uncertain="positive", not_mentioned="negative").choices
    assert (choices["uncertain"], choices["not_mentioned"]) == ("positive", "negative")


@SETS
def test_nothing_in_the_data_sets_folder_is_changed(name: str, tmp_path: Path) -> None:
    root = MINIATURES[name](tmp_path)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    run(name, root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@SETS
def test_an_empty_folder_and_no_folder_are_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no file .*It comes with the data set: \w"):
        run(name, tmp_path)
    with pytest.raises(SourceError, match="is not a folder"):
        run(name, tmp_path / "nowhere")


@SETS
def test_a_set_without_its_images_is_refused_whatever_is_allowed(name: str, tmp_path: Path) -> None:
    root = MINIATURES[name](tmp_path)
    for path in root.rglob("*"):
        if path.is_file() and path.suffix in (".png", ".jpg", ".dicom"):
            path.unlink()
    with pytest.raises(SourceError, match="images are not on disk, first"):
        run(name, root, allow_missing=True)
