"""MIMIC-CXR-JPG's published layout, quirk by quirk."""

import gzip
from pathlib import Path

import pytest

from polyhead.adapters.chexpert import FINDINGS
from polyhead.adapters.imported import Options
from polyhead.adapters.mimic_cxr import import_mimic_cxr
from polyhead.errors import SourceError
from tests.adapters.miniatures import edit, mimic_cxr

ABOUT = ("image", "patient_id", "split", "view", "study_id")
LABELS, METADATA, SPLIT = (f"mimic-cxr-2.0.0-{name}.csv.gz" for name in ("chexpert", "metadata", "split"))


def labels(root: Path, patient: int, options: Options) -> dict[str, int | None]:
    row = import_mimic_cxr(root, options).frame.filter(patient_id=str(10000032 + 7 * patient)).row(0, named=True)
    return {name: row[name] for name in ("Consolidation", "Pneumothorax", "Edema", "Fracture", "No Finding")}


def refusal(root: Path) -> str:
    with pytest.raises(SourceError) as problem:
        import_mimic_cxr(root, Options())
    return str(problem.value)


def test_images_have_their_studys_labels_and_the_official_split(tmp_path: Path) -> None:
    imported = import_mimic_cxr(mimic_cxr(tmp_path), Options())
    assert imported.frame.columns == [*ABOUT, *FINDINGS]
    assert imported.frame.select(ABOUT).row(1) == (
        "files/p10/p10000039/s50414278/00000001-00000000-4a1b2c3d-00000000-ffffffff.jpg",
        *("10000039", "train", "AP", "50414278"),
    )
    assert dict(imported.frame["split"].value_counts().iter_rows()) == {"train": 95, "val": 12, "test": 12}
    assert imported.frame.group_by("patient_id").n_unique()["split"].max() == 1
    assert all((imported.images / image).is_file() for image in imported.frame["image"])


def test_policies_settle_silent_and_uncertain_labels(tmp_path: Path) -> None:
    mimic_cxr(tmp_path)
    known = {"Consolidation": 1, "Pneumothorax": 0, "No Finding": 0}
    assert labels(tmp_path, 5, Options()) == known | {"Edema": None, "Fracture": None}
    assert labels(tmp_path, 5, Options(uncertain="positive")) == known | {"Edema": 1, "Fracture": None}
    assert labels(tmp_path, 5, Options(not_mentioned="negative")) == known | {"Edema": None, "Fracture": 0}
    assert labels(tmp_path, 0, Options())["No Finding"] is None


def test_no_finding_is_0_where_an_uncertain_finding_became_1(tmp_path: Path) -> None:
    edit(mimic_cxr(tmp_path) / LABELS, "10000067,50414322,,,1.0", "10000067,50414322,,,0.0")
    told = labels(tmp_path, 5, Options(uncertain="positive"))
    assert (told["Consolidation"], told["Edema"], told["No Finding"]) == (0, 1, 0)
    assert labels(tmp_path, 5, Options(not_mentioned="negative"))["No Finding"] is None


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    frontal = import_mimic_cxr(mimic_cxr(tmp_path), Options())
    assert frontal.notes == (
        "Images left out because they belong to a study without labels: 1.",
        "Images left out because they have no view position: 20.",
        "Images left out because they are not frontal views: 20.",
    )
    assert set(frontal.frame["view"]) == {"AP", "PA"}
    every = import_mimic_cxr(tmp_path, Options(views="all"))
    assert every.frame["view"].null_count() == 20
    assert every.frame.height == frontal.frame.height + 40
    assert every.notes == frontal.notes[:1]


def test_tables_may_be_unpacked_and_images_may_lie_beside_them(tmp_path: Path) -> None:
    packed = import_mimic_cxr(mimic_cxr(tmp_path), Options())
    for name in (LABELS, METADATA, SPLIT):
        (tmp_path / name.removesuffix(".gz")).write_bytes(gzip.decompress((tmp_path / name).read_bytes()))
        (tmp_path / name).unlink()
    for folder in (tmp_path / "files").iterdir():
        folder.rename(tmp_path / folder.name)
    (tmp_path / "files").rmdir()
    plain = import_mimic_cxr(tmp_path, Options())
    assert plain.frame["image"].to_list() == packed.frame["image"].str.replace("files/", "").to_list()
    assert plain.frame.drop("image").equals(packed.frame.drop("image"))


def test_the_order_of_the_tables_rows_changes_no_label(tmp_path: Path) -> None:
    before = import_mimic_cxr(mimic_cxr(tmp_path), Options()).frame
    for name in (LABELS, METADATA):
        header, *rows = gzip.decompress((tmp_path / name).read_bytes()).decode().splitlines()
        (tmp_path / name).write_bytes(gzip.compress("\n".join([header, *reversed(rows)]).encode()))
    assert import_mimic_cxr(tmp_path, Options()).frame.equals(before)


@pytest.mark.parametrize("name", [LABELS, METADATA, SPLIT])
def test_a_missing_table_is_named_with_the_page_that_has_it(tmp_path: Path, name: str) -> None:
    (mimic_cxr(tmp_path) / name).unlink()
    assert name.split("-")[-1] in refusal(tmp_path)
    assert "PhysioNet, MIMIC-CXR-JPG v2.1.0" in refusal(tmp_path)


def test_columns_are_named_if_they_are_missing_or_would_be_lost(tmp_path: Path) -> None:
    edit(mimic_cxr(tmp_path) / METADATA, "ViewPosition", "View")
    assert "no column 'ViewPosition'" in refusal(tmp_path)
    edit(tmp_path / METADATA, "View", "ViewPosition")
    edit(tmp_path / LABELS, "Edema", "Oedema")
    assert "no column 'Edema'; closest: Oedema" in refusal(tmp_path)


def test_labels_of_another_patients_study_are_not_taken(tmp_path: Path) -> None:
    edit(mimic_cxr(tmp_path) / LABELS, "10000039,50414278", "10000046,50414278")
    notes = import_mimic_cxr(tmp_path, Options()).notes
    assert "Images left out because they belong to a study without labels: 2." in notes


def test_a_split_of_another_name_is_refused(tmp_path: Path) -> None:
    edit(mimic_cxr(tmp_path) / SPLIT, "validate", "valid")
    assert "is in 'valid' (16 such). Allowed: train, validate, test" in refusal(tmp_path)


def test_a_study_that_stands_twice_is_refused_rather_than_joined_twice(tmp_path: Path) -> None:
    edit(mimic_cxr(tmp_path) / LABELS, "10000039,50414278", "10000032,50414267")
    assert f"{LABELS}: subject_id '10000032', study_id '50414267' stands on several lines" in refusal(tmp_path)


@pytest.mark.parametrize("name", [METADATA, SPLIT])
def test_tables_that_give_an_image_to_different_patients_are_refused(tmp_path: Path, name: str) -> None:
    edit(mimic_cxr(tmp_path) / name, "10000039", "10000046", count=1)
    assert "do not tell of the same images and patients, first 00000001-" in refusal(tmp_path)
    assert "(1 such)" in refusal(tmp_path)


@pytest.mark.parametrize("name", [METADATA, SPLIT])
def test_an_image_that_one_table_lacks_is_refused(tmp_path: Path, name: str) -> None:
    header, _, *rows = gzip.decompress((mimic_cxr(tmp_path) / name).read_bytes()).decode().splitlines()
    (tmp_path / name).write_bytes(gzip.compress("\n".join([header, *rows]).encode()))
    assert "first 00000000-" in refusal(tmp_path)
