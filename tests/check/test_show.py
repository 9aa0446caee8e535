"""What a person sees, in 80 columns without colour, and what a machine reads."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from polyhead.check.images import Reading
from polyhead.check.record import to_json
from polyhead.check.result import CheckResult
from polyhead.check.show import show
from polyhead.check.site import check_sites
from tests.check.conftest import HEADER, TABLES_ONLY, rows_of, write_site

Site = Callable[..., Path]


def shown(result: CheckResult, width: int = 80) -> str:
    out = io.StringIO()
    show(result, Console(file=out, width=width))
    return out.getvalue()


def words(result: CheckResult) -> str:
    return " ".join(shown(result, 200).split())


def test_a_sound_site_is_called_sound(site: Site) -> None:
    said = words(check_sites([site()], Reading(size=32)))
    assert "site: no errors, no warnings" in said
    assert "72 images, each read once; 72 patients" in said
    assert "Edema 12 / 12 12 / 12 12 / 12 - 1" in said
    assert "1,000 optimizer steps about 8.3 min" in said
    assert said.endswith("Sound: no errors, no warnings.")


def test_long_lists_are_shortened_with_their_number_and_whole_in_json(site: Site) -> None:
    rows = [row[:-1] + "x" if index < 9 else row for index, row in enumerate(rows_of())]
    result = check_sites([site(rows, images=False)], TABLES_ONLY)
    said = words(result)
    assert "error label 9 line 2, column 'Edema': 'x'" in said
    assert "line 4," in said
    assert "line 5," not in said
    assert "and 6 more; see --json" in said
    assert "Not sound: 9 errors, 1 warning. Counted are labels, images, patients and settings. Mend" in said
    record = json.loads(to_json(result))
    assert (record["errors"], len(record["manifests"][0]["problems"])) == (9, 9)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_table_is_wider_than_the_terminal_and_nothing_is_coloured(width: int, tmp_path: Path) -> None:
    folders = []
    for name in "abcd":
        header = f"{HEADER},A finding with a very long name that goes on and on,Mass"
        folders.append(write_site(tmp_path / name, [f"{row},1,0" for row in rows_of()], header, images=False))
    said = shown(check_sites(folders, TABLES_ONLY), width)
    tables = [line for line in said.splitlines() if not line.startswith(("/", "pixel", "only at", "Not", "Sound"))]
    assert max(map(len, tables)) <= max(width, 60)
    assert "\x1b" not in said
    assert "goes on and on" in " ".join(said.split()) or width == 40


def test_brackets_in_names_are_no_markup(site: Site) -> None:
    rows = [f"{row},1" for row in rows_of()]
    assert "Mass [bold]" in words(check_sites([site(rows, f"{HEADER},Mass [bold]", images=False)], TABLES_ONLY))


def test_matches_say_how_they_were_decided_and_near_misses_are_pointed_out(tmp_path: Path) -> None:
    one = write_site(
        tmp_path / "one", [f"{row},1,1,1" for row in rows_of()], f"{HEADER},Effusion,Mass,Fracture", images=False
    )
    two = write_site(
        tmp_path / "two",
        [f"{row},1,1,1" for row in rows_of()],
        f"{HEADER},pleural_effusion,Masses,Hernia",
        images=False,
    )
    said = words(check_sites([one, two], TABLES_ONLY))
    assert "Edema Edema Edema same spelling" in said
    assert "Pleural Effusion Effusion pleural_effusion built-in alias, spelling" in said
    assert "only at one: Fracture, Mass" in said
    assert "alike, but not matched: 'Mass' (one) and 'Masses' (two)" in said
    assert "only at two: Hernia, Masses" in said


def test_json_has_the_keys_that_are_documented(site: Site) -> None:
    record = json.loads(to_json(check_sites([site()], Reading(size=32))))
    assert list(record) == [
        *("format", "sound", "errors", "warnings", "study", "problems", "manifests", "sites", "matches"),
        *("near_misses", "estimate"),
    ]
    (manifest,), (one,) = record["manifests"], record["sites"]
    assert list(manifest) == ["path", "images", "patients", "images_read", "policies", "cache", "problems"]
    assert list(manifest["cache"]) == ["folder", "needed", "free", "ready"]
    assert list(one) == ["name", "manifest", "findings", "counts", "problems"]
    assert list(one["counts"][0]) == [
        *("split", "finding", "positives", "negatives", "blank", "images", "patients", "pos_weight")
    ]
    assert record["matches"] == [
        {"canonical": "Edema", "sites": {"site": {"name": "Edema", "decided_by": "as written"}}}
    ]
    assert list(record["estimate"]) == [
        *("model", "device", "step_seconds", "steps", "predicted_images", "train_seconds", "predict_seconds", "run")
    ]
    assert record["format"] == 1
