"""PadChest's published layout, quirk by quirk."""

import gzip
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from polyhead.adapters.imported import Options
from polyhead.adapters.padchest import import_padchest
from polyhead.errors import SourceError
from tests.adapters.miniatures import OPTIONS, edit, padchest

ABOUT = ("image", "patient_id", "split", "view", "sex", "age", "study_id")
TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
FEW = OPTIONS["padchest"]


def labels(root: Path, study: int, options: Options = FEW) -> dict[str, int | None]:
    row = import_padchest(root, options).frame.filter(study_id=f"S{study}").row(0, named=True)
    return {name: value for name, value in row.items() if name not in ABOUT}


def refusal(root: Path, options: Options = FEW) -> str:
    with pytest.raises(SourceError) as problem:
        import_padchest(root, options)
    return str(problem.value)


def test_rows_are_what_the_table_says(tmp_path: Path) -> None:
    imported = import_padchest(padchest(tmp_path), FEW)
    assert imported.frame.columns == [*ABOUT, "Pleural Effusion", "cardiomegaly", "normal", "scoliosis"]
    row = imported.frame.select(ABOUT).row(2)
    assert row[:2] == ("2/216840111366964014_00-002.png", "839860488694292333")
    assert row[3:] == ("AP_horizontal", "M", "68", "S2")
    assert all((tmp_path / image).is_file() for image in imported.frame["image"])
    assert imported.frame["study_id"].n_unique() == imported.frame.height


def test_a_finding_that_is_not_listed_is_0_and_spellings_are_one(tmp_path: Path) -> None:
    padchest(tmp_path)
    names = ("Pleural Effusion", "cardiomegaly", "normal", "scoliosis")
    assert labels(tmp_path, 0) == dict(zip(names, (0, 0, 1, 0), strict=True))
    # Its list spells "pleural effusion" with a small letter.
    assert labels(tmp_path, 3) == dict(zip(names, (1, 1, 0, 0), strict=True))
    # Its list has scoliosis twice, and an empty label.
    assert labels(tmp_path, 11) == dict(zip(names, (1, 1, 0, 1), strict=True))


def test_what_has_not_changed_leaves_the_rest_open(tmp_path: Path) -> None:
    edit(padchest(tmp_path) / TABLE, "['unchanged']", "\"['unchanged', 'cardiomegaly']\"")
    assert labels(tmp_path, 22) == {"Pleural Effusion": None, "cardiomegaly": 1, "normal": None, "scoliosis": None}


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    frontal = import_padchest(padchest(tmp_path), FEW)
    assert frontal.notes == (
        "Images left out because they have no labels: 3.",
        'Images left out because they are labelled "exclude": 1.',
        'Images left out because they are labelled "unchanged" and nothing else: 1.',
        "Images left out because they are not frontal views: 29.",
    )
    every = import_padchest(tmp_path, replace(FEW, views="all"))
    assert every.frame.height == frontal.frame.height + 29
    assert every.notes == frontal.notes[:3]


def test_what_only_few_training_images_show_is_no_column(tmp_path: Path) -> None:
    shown = import_padchest(padchest(tmp_path), FEW).frame.filter(split="train")["scoliosis"].sum()
    enough, one_more = (import_padchest(tmp_path, replace(FEW, min_positives=shown + more)) for more in (0, 1))
    assert "scoliosis" in enough.frame.columns
    assert "scoliosis" not in one_more.frame.columns
    assert one_more.choices["findings"] == f"the 3 that at least {shown + 1} training images show"
    assert "no finding is shown by 1000 training images or more" in refusal(tmp_path, replace(FEW, min_positives=1000))


def test_labels_by_physicians_may_be_asked_for(tmp_path: Path) -> None:
    imported = import_padchest(padchest(tmp_path), replace(FEW, labels="physician"))
    assert imported.frame["image"].str.contains("^[12]/").all()
    assert imported.notes[0] == "Images left out because they were not labelled by a physician: 50."
    assert imported.choices["labels"] == "by physicians"


def test_every_patient_is_in_one_split_and_none_is_empty(tmp_path: Path) -> None:
    frame = import_padchest(padchest(tmp_path), replace(FEW, views="all")).frame
    assert frame.group_by("patient_id").agg(pl.len(), pl.col("split").n_unique())["split"].max() == 1
    assert set(frame["split"]) == {"train", "val", "test"}
    other = import_padchest(tmp_path, replace(FEW, views="all", seed=1)).frame
    assert not other["split"].equals(frame["split"])


def test_splits_do_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    before = import_padchest(padchest(tmp_path), FEW).frame
    edit(tmp_path / TABLE, "\nsin cambios", " sin cambios")
    header, *rows = gzip.decompress((tmp_path / TABLE).read_bytes()).decode().splitlines()
    (tmp_path / TABLE).write_bytes(gzip.compress("\n".join([header, *reversed(rows)]).encode()))
    assert import_padchest(tmp_path, FEW).frame.reverse().equals(before)


def test_images_may_all_lie_in_one_folder(tmp_path: Path) -> None:
    nested = import_padchest(padchest(tmp_path), FEW).frame
    for number in "012":
        for image in (tmp_path / number).iterdir():
            image.rename(tmp_path / image.name)
        (tmp_path / number).rmdir()
    flat = import_padchest(tmp_path, FEW).frame
    assert flat["image"].to_list() == nested["image"].str.slice(2).to_list()


def test_some_archives_only_are_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    (padchest(tmp_path) / "1").rename(tmp_path / "not unpacked")
    assert "39 of 116 images are not on disk, first 1/" in refusal(tmp_path)
    assert import_padchest(tmp_path, replace(FEW, allow_missing=True)).frame["image"].str.contains("^[02]/").all()


@pytest.mark.parametrize("broken", ["['normal'", "normal", "[__import__('os').abort()]"])
def test_lists_that_are_none_are_refused_beyond_one_in_a_hundred(tmp_path: Path, broken: str) -> None:
    edit(padchest(tmp_path) / TABLE, "['normal']", broken, count=1)
    imported = import_padchest(tmp_path, FEW)
    assert "Images left out because they have labels that are no list: 1." in imported.notes
    edit(tmp_path / TABLE, "['normal']", broken)
    assert f"are no list of labels, first {broken!r}" in refusal(tmp_path)


def test_rows_that_name_no_image_of_a_patient_are_left_out(tmp_path: Path) -> None:
    table = padchest(tmp_path) / TABLE
    edit(table, "216840111366964013_00-001.png,1,", "216840111366964013_00-001.png,nan,")
    edit(table, "216840111366964014_00-002.png", "../216840111366964014_00-002.png")
    edit(table, "S5,839860488694292336", "S5,")
    edit(table, "216840111366964019_00-007.png,1", "216840111366964022_00-010.png,1")
    edit(table, "F,,PA", "F,,EXCLUDE", count=1)
    imported = import_padchest(tmp_path, FEW)
    assert imported.notes[:2] == (
        "Images left out because they have no usable name, folder or patient: 3.",
        "Images left out because they stand on an earlier line too: 1.",
    )
    assert "Images left out because they have the projection EXCLUDE: 1." in imported.notes


@pytest.mark.parametrize(
    ("born", "taken", "age"),
    [("1941.0", "20101010", "69"), ("2011", "20101010.0", None), ("1889.0", "20101010", None), ("", "20101010", None)],
)
def test_ages_that_make_no_sense_are_blank(tmp_path: Path, born: str, taken: str, age: str | None) -> None:
    edit(padchest(tmp_path) / TABLE, "20100101,S1,839860488694292332,1941.0", f"{taken},S1,839860488694292332,{born}")
    assert import_padchest(tmp_path, FEW).frame.filter(study_id="S1")["age"].item() == age


def test_columns_about_the_patient_may_be_absent_and_others_may_not(tmp_path: Path) -> None:
    table = padchest(tmp_path) / TABLE
    edit(table, "PatientSex_DICOM", "Sex")
    assert import_padchest(tmp_path, FEW).frame["sex"].null_count() == 116
    edit(table, "Projection", "View")
    assert "no column 'Projection'" in refusal(tmp_path)


def test_a_missing_table_is_named_with_the_page_that_has_it(tmp_path: Path) -> None:
    (padchest(tmp_path) / TABLE).unlink()
    assert "no file PADCHEST_chest_x_ray_images_labels*.csv.gz" in refusal(tmp_path)
    assert "BIMCV" in refusal(tmp_path)
