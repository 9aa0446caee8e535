"""Sites without a study: tables of every quality, several sites, views, time and disk."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from polyhead.check import estimate, images
from polyhead.check.images import Reading
from polyhead.check.record import to_json
from polyhead.check.share import summarize
from polyhead.check.show import show
from polyhead.check.site import check_sites
from tests.check.conftest import HEADER, TABLES_ONLY, by_kind, rows_of, write_site

Site = Callable[..., Path]


def test_everything_wrong_with_a_table_is_said_in_one_go(site: Site) -> None:
    rows = rows_of()
    rows[0] = "0.png,p0,train,2"
    rows[1] = "1.png,p30,train,1"
    rows[2] = "2.png,,train,1"
    rows[3] = "../3.png,p3,train,1"
    result = check_sites([site(rows, images=False)], TABLES_ONLY)
    assert [problem.kind for problem in result.all_problems()] == ["blank", "patient-in-two-splits", "path", "label"]
    assert not result.sound
    assert result.sites[0].counts.filter(split="train").row(0)[2:6] == (11, 10, 1, 22)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "table"),
        (f"{HEADER}\n0.png,p0\n", "table"),
        ("image,patient,split,Edema\n0.png,1,train,1\n", "column"),
        ("image,patient_id,split\n0.png,1,train\n", "column"),
    ],
)
def test_a_table_that_cannot_be_read_is_an_error_and_other_sites_are_checked(
    text: str, kind: str, tmp_path: Path
) -> None:
    write_site(tmp_path / "good", images=False)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/manifest.csv").write_text(text)
    result = check_sites([tmp_path / "bad", tmp_path / "good"], TABLES_ONLY)
    assert {problem.kind for problem in result.all_problems()} == {kind}
    assert not result.sound
    assert [site.name for site in result.sites] == ["good"]
    assert result.manifests[0].images is None


def test_an_absent_site_is_an_error(tmp_path: Path) -> None:
    (problem,) = check_sites([tmp_path / "absent"], TABLES_ONLY).all_problems()
    assert "absent/manifest.csv: cannot be read" in problem.text


def test_an_empty_split_is_said_once(site: Site) -> None:
    result = check_sites([site(rows_of({"train": 24, "val": 24}), images=False)], TABLES_ONLY)
    (problem,) = result.all_problems()
    assert (problem.severity, problem.kind) == ("error", "empty-split")


def test_lateral_views_are_a_note(site: Site) -> None:
    views = ["PA", "ap", "Lateral", "LL", "", "LLD"]
    rows = [f"{row},{views[index]}" if index < len(views) else f"{row}," for index, row in enumerate(rows_of())]
    result = check_sites([site(rows, f"{HEADER},view", images=False)], TABLES_ONLY)
    (problem,) = result.all_problems()
    assert (problem.severity, problem.kind, problem.count) == ("note", "lateral-view", 2)


def test_sites_are_named_after_their_folders_and_in_full_where_two_are_alike(tmp_path: Path) -> None:
    folders = [write_site(tmp_path / name, images=False) for name in ("x/a", "y/a", "b")]
    result = check_sites(folders, TABLES_ONLY)
    first, second = (str(folder / "manifest.csv") for folder in folders[:2])
    assert [site.name for site in result.sites] == [first, second, "b"]
    assert result.matches is not None
    assert list(result.matches.matches[0].spellings) == [first, second, "b"]


def test_a_site_given_twice_is_checked_once(site: Site) -> None:
    folder = site(images=False)
    assert len(check_sites([folder, folder, folder / "manifest.csv"], TABLES_ONLY).manifests) == 1


def test_two_names_for_one_finding_are_an_error(site: Site) -> None:
    rows = [f"{row},1" for row in rows_of()]
    result = check_sites([site(rows, f"{HEADER},oedema", images=False)], TABLES_ONLY)
    (problem,) = by_kind(result.all_problems(), "findings")
    assert problem.severity == "error"
    assert result.matches is None


def test_time_is_that_of_a_thousand_steps(site: Site) -> None:
    estimate = check_sites([site()], Reading(size=32)).estimate
    assert estimate is not None
    assert (estimate.step_seconds, estimate.steps, estimate.train_seconds) == (0.5, 1000, 500.0)
    assert estimate.model == "resnet18, 32 x 32 pixels, batches of 32"


def test_too_little_space_for_the_caches_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [write_site(tmp_path / name, images=False) for name in "ab"]
    reading = Reading(size=32, cache=tmp_path / "cache", images=False)
    each = 72 * 32 * 32
    monkeypatch.setattr(images, "free_bytes", lambda folder: 2 * each)
    assert check_sites(folders, reading).sound
    monkeypatch.setattr(images, "free_bytes", lambda folder: 2 * each - 1)
    (problem,) = check_sites(folders, reading).all_problems()
    assert (problem.severity, problem.kind) == ("error", "disk")
    assert f"{2 * each:,} bytes" in problem.text


def test_caches_in_two_folders_of_one_disk_are_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [write_site(tmp_path / name, images=False) for name in "ab"]
    each = 72 * 32 * 32
    monkeypatch.setattr(images, "free_bytes", lambda folder: 2 * each - 1)
    (problem,) = check_sites(folders, Reading(size=32, images=False)).all_problems()
    assert (problem.severity, problem.kind) == ("error", "disk")
    assert f"{folders[0]}, {folders[1]}: the pixel caches need {2 * each:,} bytes" in problem.text
    # Two disks with as much room each are enough.
    monkeypatch.setattr(estimate, "disk_of", lambda folder: hash(folder))
    assert check_sites(folders, Reading(size=32, images=False)).sound


def test_a_cache_that_is_there_needs_no_space(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = site()
    check_sites([folder], Reading(size=32))
    monkeypatch.setattr(images, "free_bytes", lambda folder: 0)
    assert check_sites([folder], Reading(size=32, images=False)).sound


def test_tables_are_checked_without_pytorch(site: Site) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from polyhead.check.images import Reading\n"
        "from polyhead.check.site import check_sites\n"
        "check_sites([Path(sys.argv[1])], Reading(images=False))\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code, site(images=False)], check=True, timeout=60)


SOUND = "\n".join(
    [f"{HEADER},view,Mass", *(f"{row},PA,1" for row in rows_of({"train": 3, "val": 2, "test": 2}))]
).encode()


@settings(max_examples=300)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 3), st.binary(max_size=3)), min_size=1, max_size=4
    )
)
def test_whatever_is_in_a_table_is_told_and_never_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int, bytes]]
) -> None:
    raw = SOUND
    for place, cut, inserted in changes:
        raw = raw[:place] + inserted + raw[place + cut :]
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    (folder / "manifest.csv").write_bytes(raw)
    result = check_sites([folder], TABLES_ONLY)
    assert json.loads(to_json(result))["sound"] == result.sound
    json.dumps(summarize(result))
    show(result, Console(file=io.StringIO(), width=80))
