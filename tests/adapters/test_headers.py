"""Columns from DICOM headers."""

from pathlib import Path

import polars as pl
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from polyhead.adapters.column_map import read_column_map
from polyhead.adapters.imported import Imported, Options
from polyhead.adapters.table import import_table
from polyhead.errors import SourceError

FROM_DICOM = 'from_dicom = ["patient_id", "view", "sex", "age", "study_id"]'


def write_header(path: Path, patient: str, view: str) -> str:
    """Write a DICOM file without pixels and return its study."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    header.StudyInstanceUID = generate_uid()
    header.PatientID, header.ViewPosition, header.PatientSex, header.PatientAge = patient, view, "F", "058Y"
    header.save_as(path, enforce_file_format=True)
    return str(header.StudyInstanceUID)


def site(root: Path, headers: list[tuple[str, str]]) -> list[str]:
    """Write a table with the splits train, val, test, test, ..., its images, and a map; return the studies."""
    studies = [write_header(root / f"{place}.dcm", *header) for place, header in enumerate(headers)]
    splits = ["train", "val", *["test"] * len(headers)]
    rows = [f"{place}.dcm,{splits[place]},{place % 2},wrong" for place in range(len(headers))]
    (root / "labels.csv").write_text("\n".join(["image,split,Edema,view", *rows]) + "\n")
    (root / "columns.toml").write_text(FROM_DICOM)
    return studies


def run(root: Path, options: Options | None = None, seen: list[tuple[int, int]] | None = None) -> Imported:
    def show(done: int, total: int) -> None:
        if seen is not None:
            seen.append((done, total))

    return import_table(root, options or Options(), read_column_map(root / "columns.toml"), show)


def test_what_the_map_asks_for_is_read_from_the_header_and_not_from_the_table(tmp_path: Path) -> None:
    studies = site(tmp_path, [("007", "PA"), ("7", "AP"), ("7.0", "LL"), (" 9 ", "PA")])
    seen: list[tuple[int, int]] = []
    imported = run(tmp_path, seen=seen)
    assert imported.frame.rows() == [
        ("0.dcm", "007", "train", "PA", "F", "58", studies[0], 0),
        ("1.dcm", "7", "val", "AP", "F", "58", studies[1], 1),
        ("3.dcm", "9", "test", "PA", "F", "58", studies[3], 1),
    ]
    assert imported.notes == ("Images left out because they are not frontal views: 1.", "Columns not used: view.")
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_header_without_patient_is_refused_with_its_line(tmp_path: Path) -> None:
    site(tmp_path, [("1", "PA"), ("", "PA"), ("3", "PA")])
    with pytest.raises(SourceError, match="line 3, column 'patient_id': nothing names the patient"):
        run(tmp_path)


def test_files_without_a_readable_header_are_a_choice(tmp_path: Path) -> None:
    site(tmp_path, [(str(place), "PA") for place in range(5)])
    (tmp_path / "3.dcm").write_bytes(b"no DICOM file at all, Erika Mustermann")
    with pytest.raises(SourceError) as problem:
        run(tmp_path)
    assert "labels.csv, line 5: " in str(problem.value)
    assert "1 of 5 images have no readable DICOM header. Mend the files" in str(problem.value)
    assert "Mustermann" not in str(problem.value)
    kept = run(tmp_path, Options(allow_missing=True))
    assert kept.frame["image"].to_list() == ["0.dcm", "1.dcm", "2.dcm", "4.dcm"]
    assert kept.frame["patient_id"].to_list() == ["0", "1", "2", "4"]
    assert "Images left out because their DICOM header cannot be read: 1." in kept.notes


def test_where_no_header_can_be_read_nothing_is_imported(tmp_path: Path) -> None:
    site(tmp_path, [("1", "PA"), ("2", "PA"), ("3", "PA")])
    for path in tmp_path.glob("*.dcm"):
        path.write_bytes(b"x")
    with pytest.raises(SourceError, match="3 of 3 images have no readable DICOM header"):
        run(tmp_path, Options(allow_missing=True))


def test_one_unreadable_header_in_a_hundred_is_left_out(tmp_path: Path) -> None:
    site(tmp_path, [(str(place), "PA") for place in range(100)])
    (tmp_path / "7.dcm").write_bytes(b"x")
    assert run(tmp_path).frame.height == 99
    assert run(tmp_path).frame.filter(pl.col("image") == "8.dcm")["patient_id"].to_list() == ["8"]
