"""One image at two sites: what is trained on at one must not be measured on at another."""

from pathlib import Path

import pytest

from polyhead import problems
from polyhead.check.images import Reading
from polyhead.check.result import CheckResult
from polyhead.check.share import summarize
from polyhead.check.site import check_sites
from polyhead.check.study import check_study
from tests.check.conftest import by_kind, noise, rows_of, write_site

KIND = "same-pixels-two-sites"


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two sites that share no image; image 30 is of validation, 60 of test."""
    one, two = (write_site(tmp_path / name, images=False) for name in "ab")
    for index, row in enumerate(rows_of()):
        name = row.split(",")[0]
        noise(index).save(one / name)
        noise(1000 + index).save(two / name)
    return [one, two]


def check(folders: list[Path]) -> CheckResult:
    return check_sites(folders, Reading(size=32))


def check_as_study(folder: Path, *sites: str) -> CheckResult:
    parts = [
        f'[[site]]\nname = "{number}"\nmanifest = "{site}/manifest.csv"\n{more}\n'
        for number, (site, _, more) in enumerate(text.partition(" ") for text in sites)
    ]
    model = '[model]\nbackbone = "resnet10"\nwidth = 0.125\nimage_size = 32\n'
    (folder / "study.toml").write_text(f'name = "tiny"\n{"".join(parts)}{model}')
    return check_study(folder / "study.toml")


@pytest.mark.parametrize(("held", "split"), [(30, "val"), (60, "test")])
def test_trained_on_here_and_held_back_there_is_a_warning_that_names_both(
    held: int, split: str, folders: list[Path]
) -> None:
    noise(0).save(folders[1] / f"{held}.png")
    result = check(folders)
    (problem,) = result.all_problems()
    assert (problem.severity, problem.kind, problem.count) == ("warning", KIND, 1)
    start = f"line {held + 2}, {held}.png ({split}) and, at a, line 2, 0.png (train): the same pixels."
    assert problem.text.startswith(start)
    # It is told of the site that holds it back, whichever was named first.
    assert problem in result.manifests[1].problems
    assert check(folders[::-1]).all_problems() == (problem,)


def test_in_a_study_it_is_an_error(folders: list[Path], tmp_path: Path) -> None:
    noise(0).save(folders[1] / "30.png")
    (problem,) = check_as_study(tmp_path, "a", "b").all_problems()
    assert (problem.severity, problem.kind) == ("error", KIND)


def test_a_study_that_does_not_use_the_image_has_no_problem(folders: list[Path], tmp_path: Path) -> None:
    noise(0).save(folders[1] / "30.png")
    result = check_as_study(tmp_path, "a train_images = 1", "b")
    trained = result.sites[0].counts["images"][0]
    assert trained == 1
    assert by_kind(result.all_problems(), KIND) == []


def test_in_training_at_both_or_held_back_at_both_is_no_problem(folders: list[Path]) -> None:
    noise(0).save(folders[1] / "0.png")
    noise(60).save(folders[1] / "30.png")
    assert check(folders).all_problems() == ()


def test_sites_of_one_manifest_are_not_told_again(folders: list[Path], tmp_path: Path) -> None:
    noise(0).save(folders[0] / "30.png")
    result = check_as_study(tmp_path, 'a shard = "1/2"', 'a shard = "2/2"', "b")
    assert by_kind(result.all_problems(), KIND) == []
    assert len(by_kind(result.all_problems(), "same-pixels-two-splits")) == 1


def test_of_two_sites_with_one_manifest_an_image_is_told_once(folders: list[Path], tmp_path: Path) -> None:
    noise(0).save(folders[1] / "30.png")
    result = check_as_study(tmp_path, "a", "b", "b train_images = 8")
    assert len(by_kind(result.all_problems(), KIND)) == 1


def test_without_images_and_with_unreadable_ones_nothing_is_compared(folders: list[Path]) -> None:
    noise(0).save(folders[1] / "30.png")
    check(folders)
    assert check_sites(folders, Reading(size=32, images=False)).all_problems() == ()
    (folders[0] / "0.png").write_bytes(b"")
    (folders[1] / "30.png").write_bytes(b"")
    assert by_kind(check(folders).all_problems(), KIND) == []


def test_many_are_named_up_to_a_limit_and_counted(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "_NAMED", 2)
    for index in range(6):
        noise(index).save(folders[1] / f"{30 + index}.png")
    result = check(folders)
    assert [problem.count for problem in by_kind(result.all_problems(), KIND)] == [1, 1, 4]
    assert [manifest["problems"][KIND] for manifest in summarize(result)["manifests"]] == ["<5", 5]
