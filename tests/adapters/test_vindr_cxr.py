"""VinDr-CXR's published layout, quirk by quirk."""

from pathlib import Path

import pytest

from polyhead.adapters.imported import Options
from polyhead.adapters.vindr_cxr import FINDINGS, import_vindr_cxr
from polyhead.errors import SourceError
from tests.adapters.miniatures import edit, vindr_cxr

TRAIN, TEST = (f"annotations/image_labels_{split}.csv" for split in ("train", "test"))


def labels(root: Path, number: int, options: Options | None = None) -> dict[str, int | None]:
    frame = import_vindr_cxr(root, options or Options()).frame
    row = frame.filter(patient_id=f"{number:032x}").row(0, named=True)
    return {name: row[name] for name in FINDINGS if row[name] != 0}


def refusal(root: Path) -> str:
    with pytest.raises(SourceError) as problem:
        import_vindr_cxr(root, Options())
    return str(problem.value)


def test_each_finding_has_the_majority_of_its_readers(tmp_path: Path) -> None:
    imported = import_vindr_cxr(vindr_cxr(tmp_path), Options())
    assert imported.frame.columns == ["image", "patient_id", "split", "view", *FINDINGS]
    assert imported.frame.select("image", "patient_id", "split", "view").row(1) == (
        *(f"train/{1:032x}.dicom", f"{1:032x}", "train", "PA"),
    )
    # R8 alone sees cardiomegaly in image 1, none in image 11, and calcification everywhere.
    assert labels(tmp_path, 1) == {"Aortic enlargement": 1}
    assert labels(tmp_path, 11) == {"Aortic enlargement": 1, "Cardiomegaly": 1}
    assert labels(tmp_path, 0) == {"No finding": 1}


def test_a_tie_of_two_readers_is_uncertain_and_counted(tmp_path: Path) -> None:
    imported = import_vindr_cxr(vindr_cxr(tmp_path), Options())
    assert "Training labels that count as uncertain because an image's readers are tied: 2." in imported.notes
    given = {"Calcification": None, "Cardiomegaly": None}
    assert labels(tmp_path, 6) == given
    assert labels(tmp_path, 6, Options(uncertain="positive")) == dict.fromkeys(given, 1)
    assert labels(tmp_path, 6, Options(uncertain="negative")) == {}


def test_one_reader_is_a_majority_of_one(tmp_path: Path) -> None:
    text = (vindr_cxr(tmp_path) / TRAIN).read_text().splitlines()
    kept = [line for line in text if not line.startswith(f"{6:032x},R8")]
    (tmp_path / TRAIN).write_text("\n".join(kept))
    assert labels(tmp_path, 6) == {"Cardiomegaly": 1}


def test_the_consensus_is_the_test_set_and_its_spelling_is_reconciled(tmp_path: Path) -> None:
    vindr_cxr(tmp_path)
    edit(tmp_path / TEST, f"{96:032x}," + "0," * 26 + "0", f"{96:032x}," + "0," * 26 + "1")
    tested = import_vindr_cxr(tmp_path, Options()).frame.filter(split="test")
    assert tested["image"].str.starts_with("test/").all()
    assert tested.height == 12
    assert tested["Other diseases"].to_list() == [1, *[0] * 11]


def test_there_are_no_patients_and_the_person_is_told(tmp_path: Path) -> None:
    imported = import_vindr_cxr(vindr_cxr(tmp_path), Options())
    assert imported.notes[0] == "The data set has no patient ids; each image stands for a patient of its own."
    assert imported.choices["patients"] == "none given; each image stands for a patient"
    assert imported.frame["patient_id"].is_unique().all()


def test_converted_images_are_taken_where_there_is_no_original(tmp_path: Path) -> None:
    vindr_cxr(tmp_path)
    first, second, third, fourth = (tmp_path / f"train/{number:032x}.dicom" for number in range(4))
    first.rename(first.with_suffix(".png"))
    second.with_suffix(".PNG").touch()
    third.rename(third.with_suffix(".jpg"))
    third.with_suffix(".txt").touch()
    fourth.rename(fourth.with_suffix(".JPEG"))
    images = import_vindr_cxr(tmp_path, Options()).frame["image"].to_list()
    assert [Path(image).suffix for image in images[:4]] == [".png", ".dicom", ".jpg", ".JPEG"]


def test_an_image_of_the_test_set_in_the_training_folder_is_missing(tmp_path: Path) -> None:
    image = vindr_cxr(tmp_path) / f"test/{96:032x}.dicom"
    image.rename(tmp_path / "train" / image.name)
    imported = import_vindr_cxr(tmp_path, Options())
    assert "Images left out because they are not on disk: 1 of 108." in imported.notes
    assert imported.frame.filter(split="test").height == 11


def test_tables_may_lie_beside_the_images(tmp_path: Path) -> None:
    before = import_vindr_cxr(vindr_cxr(tmp_path), Options()).frame
    for name in (TRAIN, TEST):
        (tmp_path / name).rename(tmp_path / Path(name).name)
    assert import_vindr_cxr(tmp_path, Options()).frame.equals(before)


@pytest.mark.parametrize("name", [TRAIN, TEST])
def test_a_missing_table_is_named_with_the_page_that_has_it(tmp_path: Path, name: str) -> None:
    (vindr_cxr(tmp_path) / name).unlink()
    assert f"no file {name} or {Path(name).name}" in refusal(tmp_path)
    assert "PhysioNet, VinDr-CXR v1.0.0" in refusal(tmp_path)


def test_columns_and_labels_that_are_not_as_published_are_named(tmp_path: Path) -> None:
    edit(vindr_cxr(tmp_path) / TEST, "Other disease", "Others")
    assert "unknown column 'Others'" in refusal(tmp_path)
    edit(tmp_path / TEST, "Others", "rad_id")
    assert "no column 'Other diseases'" in refusal(tmp_path)
    edit(tmp_path / TEST, "rad_id", "Other disease")
    edit(tmp_path / TRAIN, f"{2:032x},R8,0", f"{2:032x},R8,3")
    assert "line 8, column 'Aortic enlargement': '3'" in refusal(tmp_path)


def test_a_reader_who_reads_an_image_twice_is_refused(tmp_path: Path) -> None:
    edit(vindr_cxr(tmp_path) / TRAIN, f"{1:032x},R9", f"{1:032x},R8")
    assert f"image_id '{1:032x}', rad_id 'R8' stands on several lines" in refusal(tmp_path)


@pytest.mark.parametrize("label", ["-1", "-1.0", ""])
@pytest.mark.parametrize(("name", "start", "line"), [(TRAIN, f"{2:032x},R8,", 8), (TEST, f"{97:032x},", 3)])
def test_a_reader_says_present_or_absent_and_nothing_else(
    tmp_path: Path, label: str, name: str, start: str, line: int
) -> None:
    edit(vindr_cxr(tmp_path) / name, f"{start}{int(name == TEST)}", start + label)
    message = refusal(tmp_path)
    assert f"{Path(name).name}, line {line}, column 'Aortic enlargement': {label or None!r} (1 such)" in message
    assert "Allowed: 1 or 0." in message
