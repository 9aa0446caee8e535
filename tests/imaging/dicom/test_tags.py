"""What a header says of patient and view, and what makes a file DICOM."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from polyhead.imaging.dicom import DicomTags, is_dicom, is_lateral, read_tags
from tests.imaging.dicom.files import NATIVE, code, dicom, grey, noise, read, written


@pytest.mark.parametrize(
    ("elements", "view"),
    [
        ({}, None),
        ({"ViewPosition": ""}, None),
        ({"ViewPosition": "PA"}, "PA"),
        ({"ViewPosition": "ap "}, "AP"),
        ({"ViewPosition": "LL", "ViewCodeSequence": code("272479007")}, "LL"),
        ({"ViewPosition": "LLD"}, "LLD"),
        ({"ViewCodeSequence": code("272479007")}, "PA"),
        ({"ViewCodeSequence": code("R-10214")}, "PA"),
        ({"ViewPosition": "", "ViewCodeSequence": code("R-10206")}, "AP"),
        ({"ViewCodeSequence": code("R-10236")}, "LL"),
        ({"ViewCodeSequence": code("399198007")}, "RL"),
        ({"ViewCodeSequence": code("R-102CD")}, "LATERAL"),
        ({"ViewCodeSequence": code("1", "left lateral")}, "LEFT LATERAL"),
        ({"ViewCodeSequence": code("399182000", "oblique")}, "OBLIQUE"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_view_is_read_and_lateral_views_are_noted(
    tmp_path: Path, elements: dict[str, object], view: str | None
) -> None:
    for syntax in NATIVE:
        result = read(tmp_path, dicom(noise(12), syntax=syntax, elements=elements))
        assert read_tags(tmp_path / "image.dcm").view == view
        assert ("lateral view" in result.notes) == (view in ("LL", "RL", "LATERAL", "LEFT LATERAL"))


@pytest.mark.parametrize("view", ["L", "LL", "LL/RL", "LATERO-LATERAL", "L LATERAL", "RIGHT LATERAL", "LAT"])
def test_every_way_of_writing_lateral_is_known(view: str) -> None:
    assert is_lateral(view)


@pytest.mark.parametrize("view", [None, "", "PA", "AP", "LLD", "LLO", "RAO", "PLATERAL", "BILATERAL"])
def test_no_other_view_is_taken_for_lateral(view: str | None) -> None:
    assert not is_lateral(view)


def test_raw_detector_values_are_noted(tmp_path: Path) -> None:
    for intent, noted in (("FOR PROCESSING", True), ("FOR PRESENTATION", False), ("", False)):
        result = read(tmp_path, dicom(noise(12), elements={"PresentationIntentType": intent}))
        assert ("raw, for processing" in result.notes) == noted


@pytest.mark.parametrize(
    ("written_age", "age"), [("045Y", "45"), ("030M", "2"), ("010D", "0"), ("", None), ("40", "40")]
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR AS")
def test_tags_are_read_without_pixels(tmp_path: Path, written_age: str, age: str | None) -> None:
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 100"
    header.PatientID, header.StudyInstanceUID, header.PatientSex = "0071 \xe9", "1.2.840.9", "F"
    header.PatientAge = written_age
    (tmp_path / "header.dcm").write_bytes(written(header))
    assert read_tags(tmp_path / "header.dcm") == DicomTags("0071 \xe9", "1.2.840.9", None, "F", age)


def test_absent_tags_are_none(tmp_path: Path) -> None:
    (tmp_path / "header.dcm").write_bytes(written(Dataset()))
    assert read_tags(tmp_path / "header.dcm") == DicomTags(None, None, None, None, None)


def test_patients_stay_apart_to_the_letter(tmp_path: Path) -> None:
    for written_id, read_id in [("007", "007"), ("7", "7"), (" 7 ", "7"), ("7.0", "7.0")]:
        (tmp_path / "header.dcm").write_bytes(dicom(noise(8), bits=8, elements={"PatientID": written_id}))
        assert read_tags(tmp_path / "header.dcm").patient_id == read_id


def test_dicom_is_known_by_its_start_alone(tmp_path: Path) -> None:
    content = dicom(noise(8), bits=8)
    assert is_dicom(content[:132])
    assert is_dicom(content[132:264])
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"DICM", bytes(200), content[:131]):
        assert not is_dicom(start)


def test_file_without_preamble_is_read_if_it_names_its_transfer_syntax(tmp_path: Path) -> None:
    stored = noise(12)
    np.testing.assert_array_equal(grey(tmp_path, dicom(stored)[132:]), stored)
