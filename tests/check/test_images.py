"""Images: bad, twice, alike, and what policies did; on PNGs small enough to draw by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polyhead.check import duplicates
from polyhead.check.images import Reading
from polyhead.check.result import CheckResult
from polyhead.check.site import check_sites
from polyhead.imaging.prepare import open_cache
from polyhead.manifest import read_manifest
from polyhead.problems import Problem
from tests.check.conftest import by_kind, noise, rows_of

Site = Callable[..., Path]


def check(site: Path, **options: object) -> CheckResult:
    return check_sites([site], Reading(**{"size": 32, "bad_budget": 0.01, **options}))  # type: ignore[arg-type]


def problems(site: Path, **options: object) -> list[Problem]:
    return list(check(site, **options).all_problems())


def test_a_sound_site_has_no_problem_and_leaves_the_cache_that_training_uses(site: Site) -> None:
    result = check(site())
    assert result.all_problems() == ()
    assert result.sound
    assert (result.manifests[0].images, result.manifests[0].images_read) == (72, True)
    cache = result.manifests[0].cache
    assert cache is not None
    assert (cache.ready, cache.needed) == (True, 72 * 32 * 32)
    assert open_cache(read_manifest(site() / "manifest.csv"), site(), 32) is not None


def test_without_images_none_is_read_and_nothing_is_written(site: Site) -> None:
    folder = site(images=False)
    result = check(folder, images=False)
    assert result.all_problems() == ()
    assert not result.manifests[0].images_read
    assert result.estimate is None
    assert [path.name for path in folder.iterdir()] == ["manifest.csv"]


def test_bad_images_are_named_with_their_lines_and_left_out_of_the_counts(site: Site) -> None:
    folder = site()
    (folder / "3.png").write_bytes(b"")
    (folder / "5.png").write_bytes(b"no image")
    (folder / "7.png").unlink()
    Image.new("L", (40, 40), 9).save(folder / "9.png")
    result = check(folder)
    bad = by_kind(result.all_problems(), "bad-image")
    assert [problem.text.split(": ")[0] for problem in bad] == [
        "line 5, 3.png", "line 7, 5.png", "line 9, 7.png", "line 11, 9.png"
    ]  # fmt: skip
    assert "constant" in bad[3].text
    assert {problem.severity for problem in bad} == {"error"}
    assert result.sites[0].counts.filter(split="train")["images"].to_list() == [20]


@pytest.mark.parametrize(("budget", "severity"), [(0.014, "warning"), (0.0138, "error")])
def test_the_budget_decides_between_warning_and_error(budget: float, severity: str, site: Site) -> None:
    folder = site()
    (folder / "3.png").write_bytes(b"")
    (problem,) = problems(folder, bad_budget=budget)
    assert (problem.kind, problem.severity) == ("bad-image", severity)


def test_if_most_images_are_missing_the_folder_is_doubted_and_nothing_is_built(site: Site) -> None:
    folder = site(images=False)
    (problem,) = problems(folder)
    assert (problem.severity, problem.kind, problem.count) == ("error", "missing-images", 72)
    assert "site.toml" in problem.text
    assert len(list(folder.iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_an_error_and_the_tables_are_checked_all_the_same(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    result = check(site(), cache=tmp_path / "file")
    (problem,) = result.all_problems()
    assert (problem.severity, problem.kind) == ("error", "cache")
    assert result.sites[0].counts["images"].to_list() == [24, 24, 24]


def test_a_link_out_of_the_site_is_an_error(site: Site, tmp_path: Path) -> None:
    folder = site()
    noise(99).save(tmp_path / "outside.png")
    (folder / "0.png").unlink()
    (folder / "0.png").symlink_to(tmp_path / "outside.png")
    (problem,) = problems(folder)
    assert problem.severity == "error"
    assert "line 2" in problem.text


def test_the_same_pixels_in_two_splits_are_an_error_that_names_both_rows(site: Site) -> None:
    folder = site()
    noise(0).save(folder / "30.png", optimize=True)  # Image 0 of training, as image 30 of validation.
    (problem,) = problems(folder)
    assert (problem.severity, problem.kind, problem.count) == ("error", "same-pixels-two-splits", 2)
    assert problem.text.startswith("line 2, 0.png (train) and line 32, 30.png (val): ")


def test_the_same_pixels_twice_in_one_split_are_a_warning(site: Site) -> None:
    folder = site()
    noise(0).save(folder / "5.png")
    (problem,) = problems(folder)
    assert (problem.severity, problem.kind) == ("warning", "same-pixels")
    assert problem.text.startswith("line 2, 0.png (train) and line 7, 5.png (train): ")


def test_of_many_copies_a_row_of_each_split_is_named(site: Site) -> None:
    folder = site()
    for copy in (1, 2, 30, 60):
        noise(0).save(folder / f"{copy}.png")
    (problem,) = problems(folder)
    assert problem.count == 5
    for row in ("line 2, 0.png (train)", "line 32, 30.png (val)", "line 62, 60.png (test)", "and 1 more"):
        assert row in problem.text


def nearly(seed: int) -> Image.Image:
    """The same picture, a little brighter."""
    return Image.fromarray((np.asarray(noise(seed)).astype(int) * 9 // 10 + 20).astype(np.uint8))


def test_near_duplicates_of_two_patients_are_a_warning_in_two_splits_and_a_note_in_one(site: Site) -> None:
    folder = site()
    nearly(0).save(folder / "30.png")
    nearly(1).save(folder / "2.png")
    found = problems(folder)
    assert [(problem.severity, problem.kind) for problem in found] == [
        ("warning", "near-duplicate-two-splits"),
        ("note", "near-duplicate"),
    ]
    assert found[0].text.startswith("line 2, 0.png (train) and line 32, 30.png (val): ")
    assert found[1].text.startswith("line 3, 1.png (train) and line 4, 2.png (train): ")


def test_images_of_one_patient_may_look_alike(site: Site) -> None:
    rows = rows_of()
    rows[1] = rows[1].replace("p1", "p0")
    folder = site(rows)
    nearly(0).save(folder / "1.png")
    assert problems(folder) == []


def test_too_many_images_to_compare_are_said(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MOST_COMPARED", 71)
    (problem,) = problems(site())
    assert (problem.severity, problem.kind, problem.count) == ("note", "not-compared", 72)


def test_policies_are_counted(site: Site) -> None:
    folder = site()
    for index in (1, 2):
        Image.merge("RGB", tuple(noise(index + 100 * colour) for colour in range(3))).save(folder / f"{index}.png")
    result = check(folder)
    (problem,) = result.all_problems()
    assert (problem.severity, problem.kind, problem.count) == ("note", "policy", 2)
    assert list(result.manifests[0].policies.values()) == [2]


def test_bad_labels_do_not_keep_images_from_being_checked(site: Site) -> None:
    rows = rows_of()
    rows[4] = rows[4][:-1] + "yes"
    rows.append(",p4,train,1")
    rows[5] = "x" + rows[5]
    folder = site(rows)
    noise(0).save(folder / "30.png")
    assert [problem.kind for problem in problems(folder)] == ["blank", "label", "same-pixels-two-splits"]


def test_progress_is_told_from_start_to_end_of_each_stage(site: Site) -> None:
    told: list[tuple[str, int, int]] = []
    folder = site()
    noise(0).save(folder / "5.png")
    check(folder, progress=lambda *step: told.append(step))
    labels = list(dict.fromkeys(what for what, _, _ in told))
    stages = ["Images", "Equal images", "Hashing images", "Comparing pairs of images"]
    assert labels == [f"{stage} of site" for stage in stages]
    for label in labels:
        done = [step[1:] for step in told if step[0] == label]
        assert done[-1][0] == done[-1][1]
        assert done == sorted(done)
    # 71 images differ; blocks of 32 are compared with all that come after them.
    pairs = [done for what, done, _ in told if what.startswith("Comparing")]
    assert pairs == [71 * 35 - 39 * 19, 71 * 35 - 7 * 3, 71 * 35]
