"""ChestX-ray14's published layout, quirk by quirk."""

from pathlib import Path

import polars as pl
import pytest

from polyhead.adapters.chestxray14 import FINDINGS, import_chestxray14
from polyhead.adapters.imported import Options
from polyhead.errors import SourceError
from tests.adapters.miniatures import chestxray14, edit

TABLE = "Data_Entry_2017.csv"
ABOUT = ("image", "patient_id", "split", "view", "sex", "age")


def refusal(root: Path, options: Options | None = None) -> str:
    with pytest.raises(SourceError) as problem:
        import_chestxray14(root, options or Options())
    return str(problem.value)


def test_rows_are_what_the_table_and_the_lists_say(tmp_path: Path) -> None:
    imported = import_chestxray14(chestxray14(tmp_path), Options())
    frame = imported.frame
    assert frame.columns == [*ABOUT, *FINDINGS]
    assert frame.select(ABOUT).row(1) == ("images_002/images/00000002_000.png", "2", "train", "PA", "F", "21")
    assert frame.select(ABOUT).row(2) == ("images_002/images/00000002_001.png", "2", "train", "AP", "F", "21")
    assert frame.select(ABOUT).row(-1)[:3] == ("images_002/images/00000108_001.png", "108", "test")
    shown = [[name for name in FINDINGS if row[name]] for row in frame.head(6).iter_rows(named=True)]
    assert shown == [["No Finding"], ["Mass"], ["Mass"], ["Effusion"], ["Effusion", "Mass"], ["Effusion", "Mass"]]
    assert not frame.select(pl.col(FINDINGS).null_count().sum()).transpose().sum().item()
    assert imported.images == tmp_path


def test_ages_with_units_are_years_and_impossible_ones_blank(tmp_path: Path) -> None:
    imported = import_chestxray14(chestxray14(tmp_path), Options())
    ages = dict(imported.frame.select("patient_id", "age").iter_rows())
    assert (ages["4"], ages["5"], ages["6"]) == (None, "0", "25")
    assert imported.notes == ("Impossible ages left blank: 2.",)


@pytest.mark.parametrize("trailing_comma", [True, False])
@pytest.mark.parametrize("sex", ["Patient Gender", "Patient Sex"])
def test_both_editions_of_the_table_give_the_same(tmp_path: Path, trailing_comma: bool, sex: str) -> None:
    usual = import_chestxray14(chestxray14(tmp_path / "usual"), Options())
    other = chestxray14(tmp_path / "other", trailing_comma=trailing_comma, sex=sex)
    (other / TABLE).rename(other / "Data_Entry_2017_v2020.csv")
    assert import_chestxray14(other, Options()).frame.equals(usual.frame)


@pytest.mark.parametrize("kept", ["header", "rows"])
def test_a_comma_too_many_may_stand_in_the_header_or_on_the_rows_only(tmp_path: Path, kept: str) -> None:
    usual = import_chestxray14(chestxray14(tmp_path), Options())
    header, *rows = (tmp_path / TABLE).read_text().splitlines()
    lines = [header, *(row[:-1] for row in rows)] if kept == "header" else [header[:-1], *rows]
    (tmp_path / TABLE).write_text("\n".join(lines))
    assert import_chestxray14(tmp_path, Options()).frame.equals(usual.frame)


def test_validation_is_carved_from_training_patients_and_the_test_list_stays(tmp_path: Path) -> None:
    chestxray14(tmp_path)
    some, more = (import_chestxray14(tmp_path, Options(validation=share)).frame for share in (0.1, 0.4))
    assert some.filter(split="test").equals(more.filter(split="test"))
    assert some.filter(split="test").height == 18
    assert set(some.filter(split="val")["patient_id"]) < set(more.filter(split="val")["patient_id"])
    assert not set(more.filter(split="val")["patient_id"]) & set(more.filter(split="train")["patient_id"])


def test_carving_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    before = import_chestxray14(chestxray14(tmp_path), Options()).frame
    header, *rows = (tmp_path / TABLE).read_text().splitlines()
    (tmp_path / TABLE).write_text("\n".join([header, *reversed(rows)]))
    after = import_chestxray14(tmp_path, Options()).frame
    assert after.reverse().equals(before)
    assert not import_chestxray14(tmp_path, Options(seed=1)).frame["split"].equals(after["split"])


def test_images_may_lie_in_one_folder(tmp_path: Path) -> None:
    chestxray14(tmp_path)
    (tmp_path / "images").mkdir()
    for image in tmp_path.glob("images_*/images/*.png"):
        image.rename(tmp_path / "images" / image.name)
    frame = import_chestxray14(tmp_path, Options()).frame
    assert frame["image"][0] == "images/00000001_000.png"
    assert all((tmp_path / image).is_file() for image in frame["image"])


def test_half_a_download_is_refused_and_may_be_allowed(tmp_path: Path) -> None:
    (chestxray14(tmp_path) / "images_002").rename(tmp_path / "not unpacked")
    assert "108 of 162 images are not on disk, first images/00000002_000.png" in refusal(tmp_path)
    imported = import_chestxray14(tmp_path, Options(allow_missing=True))
    assert imported.frame.height == 54
    assert "Images left out because they are not on disk: 108 of 162." in imported.notes


def test_images_on_neither_list_are_left_out_with_their_count(tmp_path: Path) -> None:
    edit(chestxray14(tmp_path) / "test_list.txt", "00000097_000.png\n", "")
    imported = import_chestxray14(tmp_path, Options())
    assert "Images left out because they are on neither official list: 1." in imported.notes
    assert imported.frame.height == 161


def test_an_image_on_both_lists_is_refused(tmp_path: Path) -> None:
    edit(chestxray14(tmp_path) / "test_list.txt", "00000097_000.png", "00000001_000.png")
    assert "1 images are on both official lists, first 00000001_000.png" in refusal(tmp_path)


def test_an_unknown_finding_is_named_and_the_nearest_one_too(tmp_path: Path) -> None:
    edit(chestxray14(tmp_path) / TABLE, "|Effusion", "|Efusion")
    assert "column 'Finding Labels': 'Efusion' is none of the 14 findings" in refusal(tmp_path)
    assert "closest: Effusion" in refusal(tmp_path)


def test_a_blank_in_place_of_findings_is_no_negative(tmp_path: Path) -> None:
    edit(chestxray14(tmp_path) / TABLE, "00000001_000.png,No Finding", "00000001_000.png,")
    assert "line 2, column 'Finding Labels': blank" in refusal(tmp_path)


@pytest.mark.parametrize("name", [TABLE, "train_val_list.txt", "test_list.txt"])
def test_a_missing_file_is_named_with_the_page_that_has_it(tmp_path: Path, name: str) -> None:
    (chestxray14(tmp_path) / name).unlink()
    assert "It comes with the data set: NIH Clinical Center, ChestX-ray14" in refusal(tmp_path)
    assert name.removesuffix(".csv") in refusal(tmp_path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    edit(chestxray14(tmp_path) / TABLE, "Patient ID", "Patient")
    assert "no column 'Patient ID'" in refusal(tmp_path)
