"""CheXpert's published layout, quirk by quirk."""

from pathlib import Path

import pytest

from polyhead.adapters.chexpert import FINDINGS, import_chexpert
from polyhead.adapters.imported import Options
from polyhead.errors import SourceError
from tests.adapters.miniatures import chexpert, edit

ABOUT = ("image", "patient_id", "split", "view", "sex", "age", "study_id")
SMALL = "CheXpert-v1.0-small"


def labels(root: Path, patient: int, options: Options) -> dict[str, int | None]:
    """Return the labels of a patient that are not what the policy gives to silence."""
    frame = import_chexpert(root, options).frame
    row = frame.filter(patient_id=f"patient{patient + 1:05d}").row(0, named=True)
    silence = {"blank": None, "negative": 0, "positive": 1}[options.not_mentioned]
    return {name: row[name] for name in FINDINGS if row[name] != silence}


def refusal(root: Path) -> str:
    with pytest.raises(SourceError) as problem:
        import_chexpert(root, Options())
    return str(problem.value)


def test_rows_are_what_the_tables_and_paths_say(tmp_path: Path) -> None:
    imported = import_chexpert(chexpert(tmp_path), Options())
    assert imported.images == tmp_path / SMALL
    assert imported.frame.columns == [*ABOUT, *FINDINGS]
    assert imported.frame.select(ABOUT).row(7) == (
        *("train/patient00008/study1/view1_frontal.jpg", "patient00008", "train", "PA"),
        *(None, "37", "patient00008/study1"),
    )
    assert imported.frame.select(ABOUT).row(-1)[:5] == (
        *("valid/patient00108/study1/view1_frontal.jpg", "patient00108", "test", "PA", "F"),
    )
    assert all((imported.images / image).is_file() for image in imported.frame["image"])
    assert import_chexpert(tmp_path / SMALL, Options()).frame.equals(imported.frame)


def test_silence_is_blank_unless_the_person_says_otherwise(tmp_path: Path) -> None:
    chexpert(tmp_path)
    given = {"Cardiomegaly": 1, "Pleural Effusion": 0}
    assert labels(tmp_path, 1, Options()) == given | {"No Finding": 0}
    assert labels(tmp_path, 1, Options(not_mentioned="negative")) == {"Cardiomegaly": 1}
    assert labels(tmp_path, 1, Options(not_mentioned="positive")) == {"Pleural Effusion": 0, "No Finding": 0}


def test_uncertain_is_blank_unless_the_person_says_otherwise(tmp_path: Path) -> None:
    chexpert(tmp_path)
    given = {"Cardiomegaly": 1, "Pleural Effusion": 0, "No Finding": 0}
    assert labels(tmp_path, 5, Options()) == given
    assert labels(tmp_path, 5, Options(uncertain="negative")) == given | {"Edema": 0}
    assert labels(tmp_path, 5, Options(uncertain="positive")) == given | {"Edema": 1}


def test_no_finding_that_hangs_on_an_uncertain_finding_follows_what_became_of_that(tmp_path: Path) -> None:
    row = "patient00006/study1/view1_frontal.jpg,Female,35,Frontal,PA,,,1.0"
    edit(chexpert(tmp_path) / SMALL / "train.csv", row, row.replace("1.0", "0.0"))
    given = {"Cardiomegaly": 0, "Pleural Effusion": 0}
    assert labels(tmp_path, 5, Options()) == given
    assert labels(tmp_path, 5, Options(uncertain="positive")) == given | {"Edema": 1, "No Finding": 0}
    assert labels(tmp_path, 5, Options(uncertain="negative")) == given | {"Edema": 0}
    silent = labels(tmp_path, 5, Options(not_mentioned="negative"))
    assert (silent["Edema"], silent["No Finding"]) == (None, None)


def test_a_device_is_no_finding_that_no_finding_denies(tmp_path: Path) -> None:
    row = "patient00001/study1/view1_frontal.jpg,Male,30,Frontal,AP,"
    line = f"{row}1.0,,0.0,,,,,,,,0.0,,,"
    edit(chexpert(tmp_path) / SMALL / "train.csv", line, f"{row},,0.0,,,,,,,,0.0,,,1.0")
    assert labels(tmp_path, 0, Options()) == {"Cardiomegaly": 0, "Pleural Effusion": 0, "Support Devices": 1}


def test_lateral_views_are_left_out_unless_all_are_asked_for(tmp_path: Path) -> None:
    frontal = import_chexpert(chexpert(tmp_path), Options())
    assert frontal.notes == ("Images left out because they are not frontal views: 27.",)
    every = import_chexpert(tmp_path, Options(views="all"))
    assert every.frame.filter(view="Lateral").height == 27
    assert every.frame.height == frontal.frame.height + 27
    assert every.notes == ()


def test_the_radiologists_images_are_the_test_set_and_no_patient_is_in_two_splits(tmp_path: Path) -> None:
    frame = import_chexpert(chexpert(tmp_path), Options()).frame
    assert frame.filter(split="test")["image"].str.starts_with("valid/").all()
    assert frame.filter(split="val")["image"].str.starts_with("train/").all()
    assert frame.group_by("patient_id").n_unique()["split"].max() == 1


@pytest.mark.parametrize("name", ["test.csv", "test_labels.csv"])
def test_where_the_official_test_set_is_there_valid_is_validation(tmp_path: Path, name: str) -> None:
    folder = chexpert(tmp_path) / SMALL
    image = folder / "test/patient64741/study1/view1_frontal.jpg"
    image.parent.mkdir(parents=True)
    (folder / "train/patient00001/study1/view1_frontal.jpg").rename(image)
    edit(folder / "train.csv", f"{SMALL}/train/patient00001/study1/view1_frontal.jpg", "x", count=1)
    text = (folder / "train.csv").read_text().splitlines()
    (folder / "train.csv").write_text("\n".join(line for line in text if not line.startswith("x,")))
    row = "test/patient64741/study1/view1_frontal.jpg," + ",".join(["1.0"] * 14)
    (folder / name).write_text(f"Path,{','.join(FINDINGS)}\n{row}\n")
    imported = import_chexpert(tmp_path, Options())
    tested = imported.frame.filter(split="test")
    assert tested.select(ABOUT).rows() == [
        (str(image.relative_to(folder)), "patient64741", "test", "Frontal", None, None, "patient64741/study1")
    ]
    assert imported.frame.filter(split="val")["image"].str.starts_with("valid/").all()
    assert imported.frame.filter(split="val").height == 12
    assert imported.choices["split"] == f"official; {name} is the test set"
    assert imported.choices["validation"] == "valid.csv"


@pytest.mark.parametrize("name", ["train.csv", "valid.csv"])
def test_a_missing_table_is_named(tmp_path: Path, name: str) -> None:
    (chexpert(tmp_path) / SMALL / name).unlink()
    assert name in refusal(tmp_path)
    assert "Stanford AIMI, CheXpert" in refusal(tmp_path)


def test_two_editions_side_by_side_are_not_guessed_between(tmp_path: Path) -> None:
    (chexpert(tmp_path) / SMALL).rename(tmp_path / "CheXpert-v1.0")
    chexpert(tmp_path)
    assert "2 files fit CheXpert-v1.0*/train.csv: CheXpert-v1.0/train.csv, CheXpert-v1.0-small" in refusal(tmp_path)


def test_columns_and_labels_that_are_not_as_published_are_named(tmp_path: Path) -> None:
    train = chexpert(tmp_path) / SMALL / "train.csv"
    edit(train, "Support Devices", "Support Device")
    assert "no column 'Support Devices'; closest: Support Device" in refusal(tmp_path)
    edit(train, "Support Device", "Support Devices,Covid")
    assert "unknown column 'Covid'" in refusal(tmp_path)
    edit(train, "Support Devices,Covid", "Support Devices")
    edit(train, "-1.0", "-2.0")
    assert "column 'Edema': '-2.0' (12 such). Allowed: 1, 0, -1 (uncertain) or blank" in refusal(tmp_path)


@pytest.mark.parametrize("path", ["train/patient1/view1_frontal.jpg", "train/../../patient1/study1/view1_frontal.jpg"])
def test_a_path_that_is_not_as_published_is_named(tmp_path: Path, path: str) -> None:
    edit(chexpert(tmp_path) / SMALL / "train.csv", f"{SMALL}/train/patient00002/study1/view1_frontal.jpg", path)
    assert f"column 'Path': '{path}' (1 such)" in refusal(tmp_path)
