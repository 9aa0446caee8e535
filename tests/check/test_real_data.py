"""Real radiographs: what their README says, and three faults planted in a copy."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from polyhead.check.images import Reading
from polyhead.check.result import count_problems
from polyhead.check.site import check_sites
from tests.check.conftest import by_kind

pytestmark = pytest.mark.data

RealData = Callable[[str], Path]


@pytest.mark.parametrize(
    ("name", "images", "patients", "sizes", "findings"),
    [
        ("nih-a", 1000, 682, [684, 101, 215], 9),
        ("nih-b", 911, 258, [705, 41, 165], 13),
        pytest.param("guangzhou", 5824, 4096, [4758, 448, 618], 4, marks=pytest.mark.slow),
        ("hannover", 243, 71, [191, 16, 36], 7),
    ],
)
def test_check_says_what_the_readme_says(
    name: str, images: int, patients: int, sizes: list[int], findings: int, real_data: RealData, tmp_path: Path
) -> None:
    result = check_sites([real_data(name).parent], Reading(size=64, cache=tmp_path))
    assert result.sound, [problem.text for problem in result.all_problems() if problem.severity == "error"]
    (manifest,), (site,) = result.manifests, result.sites
    assert (manifest.images, manifest.patients, manifest.images_read) == (images, patients, True)
    assert len(site.findings) == findings
    assert [site.counts.filter(split=split)["images"][0] for split in ("train", "val", "test")] == sizes
    doubled = by_kind(result.all_problems(), "same-pixels")
    # ChestX-ray14 itself holds this image of one patient twice.
    expected = ["line 375, images/00002658_001.jpg (train) and line 376, images/00002658_002.jpg (train)"]
    assert [problem.text.split(":")[0] for problem in doubled] == (expected if name == "nih-a" else [])


def test_three_planted_faults_are_reported_exactly_in_one_run(real_data: RealData, tmp_path: Path) -> None:
    source = real_data("nih-a").parent
    shutil.copytree(source / "images", tmp_path / "site/images", copy_function=shutil.copyfile)
    (tmp_path / "site/images").chmod(0o755)
    with (source / "manifest.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    training = [number for number, row in enumerate(rows) if row[2] == "train"]
    elsewhere = [number for number, row in enumerate(rows) if row[2] != "train"]
    # 300 patients of training get an image of validation or test.
    patients = list(dict.fromkeys(rows[number][1] for number in training))[:300]
    for patient, number in zip(patients, elsewhere, strict=False):
        rows[number][1] = patient
    labelled = training[100:112]
    for number in labelled:
        rows[number][6] = "maybe"
    one, other = training[50], elsewhere[-1]
    (tmp_path / "site/images").joinpath(Path(rows[other][0]).name).write_bytes((source / rows[one][0]).read_bytes())
    with (tmp_path / "site/manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])

    result = check_sites([tmp_path / "site"], Reading(size=64, cache=tmp_path / "cache"))
    problems = result.all_problems()
    (torn,) = by_kind(problems, "patient-in-two-splits")
    assert (torn.count, torn.severity) == (300, "error")
    assert "300 patients are in more than one split" in torn.text
    bad = by_kind(problems, "label")
    assert [problem.text.split(".")[0] for problem in bad] == [
        f"line {number + 2}, column 'Atelectasis': 'maybe'" for number in labelled
    ]
    (twice,) = by_kind(problems, "same-pixels-two-splits")
    said = [f"line {number + 2}, {rows[number][0]} ({rows[number][2]})" for number in sorted((one, other))]
    assert twice.text.startswith(f"{said[0]} and {said[1]}: ")
    assert count_problems(problems, "error") == 300 + 12 + 2
