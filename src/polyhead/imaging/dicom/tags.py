"""Whose image it is and from where it was taken, from a DICOM header."""

import re
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from polyhead.imaging.dicom.file import open_dicom
from polyhead.imaging.dicom.guard import reading
from polyhead.imaging.dicom.values import first_item, text

__all__ = ["VIEW_KEYWORDS", "DicomTags", "is_lateral", "read_tags", "view_of"]

VIEW_KEYWORDS = ("SpecificCharacterSet", "ViewPosition", "ViewCodeSequence")
"""What `view_of` needs of a header."""

_KEYWORDS = ("PatientID", "StudyInstanceUID", "PatientSex", "PatientAge", *VIEW_KEYWORDS)

# Context group 4010 (PS3.16), in SNOMED CT and in the older codes that most archives hold.
_VIEW_CODES = {
    **dict.fromkeys(("272479007", "R-40888", "R-10214"), "PA"),
    **dict.fromkeys(("399348003", "R-10206"), "AP"),
    **dict.fromkeys(("399173006", "R-10236"), "LL"),
    **dict.fromkeys(("399198007", "R-10232"), "RL"),
    **dict.fromkeys(("399067008", "R-102CD"), "LATERAL"),
}
_LATERAL = re.compile(r"L|LL|RL|LL/RL|LAT|LATERO-LATERAL|(L |R |LEFT |RIGHT )?LATERAL")
_AGE = re.compile(r"(\d{3})([DWMY])")
_IN_A_YEAR = {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}


@dataclass(frozen=True)
class DicomTags:
    """What a header says of a patient and a view; None where it says nothing.

    Attributes
    ----------
    patient_id
        As written, without the blanks around it.
    study_id
        StudyInstanceUID.
    view
        ViewPosition in capitals: ``PA``, ``AP``, ``LL`` (left lateral), ``RL``, ... If that is blank, from the
        ViewCodeSequence: these four or ``LATERAL``, else the code's meaning in capitals.
    sex
        ``M``, ``F``, ``O``.
    age
        In whole years.
    """

    patient_id: str | None
    study_id: str | None
    view: str | None
    sex: str | None
    age: str | None


def read_tags(path: Path) -> DicomTags:
    """Read a header, without pixels.

    Raises
    ------
    ImageError
        And nothing else, whatever the file holds. Like `read_dicom`, it silences warnings meanwhile.
    """
    with reading(path) as file:
        header = open_dicom(file, _KEYWORDS).header
        return DicomTags(
            text(header, "PatientID"),
            text(header, "StudyInstanceUID"),
            view_of(header),
            text(header, "PatientSex"),
            _years(text(header, "PatientAge")),
        )


def view_of(header: Dataset) -> str | None:
    """Return the view, as in `DicomTags`."""
    position = text(header, "ViewPosition")
    code = first_item(header, "ViewCodeSequence")
    if position or code is None:
        return position.upper() if position else None
    meaning = text(code, "CodeMeaning")
    return _VIEW_CODES.get(text(code, "CodeValue") or "", meaning.upper() if meaning else None)


def is_lateral(view: str | None) -> bool:
    """Tell whether it is a lateral view; a patient lying on the side (decubitus) or turned (oblique) is not."""
    return bool(view and _LATERAL.fullmatch(view))


def _years(age: str | None) -> str | None:
    parts = _AGE.fullmatch(age or "")
    return str(int(int(parts[1]) / _IN_A_YEAR[parts[2]])) if parts else age
