"""The five public data sets in miniature: the published layout, made-up rows, small images that can be learned from.

Every function writes one below a folder and returns what to give to the import. Labels follow the patient's number, so
that both classes of at least two findings are in every split; an image is brighter in a band for each finding it shows.
"""

import csv
import gzip
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from polyhead.adapters.chexpert import FINDINGS as CHEXPERT
from polyhead.adapters.imported import Options
from polyhead.adapters.vindr_cxr import FINDINGS as VINDR

__all__ = ["MINIATURES", "OPTIONS", "chestxray14", "chexpert", "edit", "mimic_cxr", "padchest", "vindr_cxr"]

OPTIONS: Mapping[str, Options] = {"padchest": Options(min_positives=5)}
"""What a miniature needs besides the defaults."""

_PATIENTS = 96
_TEST_PATIENTS = 12


def chestxray14(root: Path, *, trailing_comma: bool = True, sex: str = "Patient Gender") -> Path:
    """ChestX-ray14 as of 2017: a comma too many on every line, ages with units, images in two archives' folders."""
    rows, lists = [], {"train_val_list.txt": [], "test_list.txt": []}
    for patient in range(_PATIENTS + _TEST_PATIENTS):
        for visit in range(1 + patient % 2):
            marks = _marks(patient)
            name = f"{patient + 1:08d}_{visit:03d}.png"
            labels = "|".join(finding for finding, shown in zip(("Mass", "Effusion"), marks, strict=True) if shown)
            age = "414Y" if patient == 3 else "009M" if patient == 4 else f"0{20 + patient % 70}Y"
            about = [name, labels or "No Finding", visit, patient + 1, age, "MF"[patient % 2], ("PA", "AP")[visit]]
            rows.append([*about, 2682, 2749, 0.143, 0.143, *([""] if trailing_comma else [])])
            lists["test_list.txt" if patient >= _PATIENTS else "train_val_list.txt"].append(name)
            _save(root / f"images_00{1 + patient % 2}/images/{name}", _picture(marks, len(rows)))
    # The brackets of two names are split by their own comma.
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,{},View Position,OriginalImage[Width,Height],"
    )
    header += "OriginalImagePixelSpacing[x,y]" + ("," if trailing_comma else "")
    _write_table(root / "Data_Entry_2017.csv", header.format(sex).split(","), rows)
    for name, images in lists.items():
        (root / name).write_text("\n".join(images) + "\n")
    return root


def chexpert(root: Path) -> Path:
    """CheXpert, small: paths begin with the data set's own folder; silent, uncertain and lateral rows in between."""
    header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT]
    for split, patients in (("train", range(_PATIENTS)), ("valid", range(_PATIENTS, _PATIENTS + _TEST_PATIENTS))):
        rows = []
        for patient in patients:
            marks = _marks(patient)
            labels = dict.fromkeys(CHEXPERT, "" if split == "train" else "0.0")
            labels |= {"Cardiomegaly": f"{marks[0]:.1f}", "Pleural Effusion": f"{marks[1]:.1f}"}
            if split == "train" and patient % 8 == 5:
                labels["Edema"] = "-1.0"
            labels["No Finding"] = labels["No Finding"] if any(marks) or patient % 8 == 5 else "1.0"
            for view in ("frontal", *(["lateral"] if patient % 4 == 0 else [])):
                path = f"CheXpert-v1.0-small/{split}/patient{patient + 1:05d}/study1/view1_{view}.jpg"
                sex = "Unknown" if patient == 7 else ("Male", "Female")[patient % 2]
                position = ["Frontal", ("AP", "PA")[patient % 2]] if view == "frontal" else ["Lateral", ""]
                rows.append([path, sex, 30 + patient % 60, *position, *labels.values()])
                _save(root / path, _picture(marks, 1000 + 2 * patient))
        _write_table(root / f"CheXpert-v1.0-small/{split}.csv", header, rows)
    return root


def mimic_cxr(root: Path) -> Path:
    """MIMIC-CXR-JPG: three packed tables; blank and lateral views, a silent label, a study without labels."""
    labels, metadata, splits = [], [], []
    for patient in range(_PATIENTS + 2 * _TEST_PATIENTS):
        subject, study, marks = 10000032 + 7 * patient, 50414267 + 11 * patient, _marks(patient)
        split = "train" if patient < _PATIENTS else "validate" if patient < _PATIENTS + _TEST_PATIENTS else "test"
        known = {"Consolidation": f"{marks[0]:.1f}", "Pneumothorax": f"{marks[1]:.1f}"}
        known |= {"Edema": "-1.0"} if patient % 8 == 5 else {}
        if patient != 9:
            labels.append([subject, study, *(known.get(finding, "") for finding in CHEXPERT)])
        for number, view in enumerate((("PA", "AP")[patient % 2], *(["LATERAL", ""] if patient % 6 == 0 else []))):
            image = f"{patient:08x}-{number:08x}-4a1b2c3d-00000000-ffffffff"
            metadata.append([image, subject, study, "CHEST (PA AND LAT)", view, 48, 40])
            splits.append([image, study, subject, split])
            _save(
                root / f"files/p{str(subject)[:2]}/p{subject}/s{study}/{image}.jpg", _picture(marks, 2000 + len(splits))
            )
    about = [
        "dicom_id",
        "subject_id",
        "study_id",
        "PerformedProcedureStepDescription",
        "ViewPosition",
        "Rows",
        "Columns",
    ]
    tables = {
        "chexpert": (["subject_id", "study_id", *sorted(CHEXPERT)], [row[:2] + _sorted(row[2:]) for row in labels]),
        "metadata": (about, metadata),
        "split": (["dicom_id", "study_id", "subject_id", "split"], splits),
    }
    for name, (header, rows) in tables.items():
        _write_table(root / f"mimic-cxr-2.0.0-{name}.csv.gz", header, rows)
    return root


def vindr_cxr(root: Path) -> Path:
    """VinDr-CXR: three readers who differ, an image with two of them, a column that the test table spells otherwise."""
    for split, numbers in (("train", range(_PATIENTS)), ("test", range(_PATIENTS, _PATIENTS + _TEST_PATIENTS))):
        rows = []
        for number in numbers:
            marks, image = _marks(number), f"{number:032x}"
            majority = {"Aortic enlargement": marks[0], "Cardiomegaly": marks[1], "No finding": not any(marks)}
            readers = (["R8", "R9"] if number == 6 else ["R8", "R9", "R10"]) if split == "train" else [None]
            for place, reader in enumerate(readers):
                # The first reader is wrong about one finding of every fifth image, and always finds calcification.
                read = majority | {"Cardiomegaly": marks[1] ^ (reader == "R8" and number % 5 == 1)}
                read |= {"Calcification": place == 0 and split == "train"}
                about = [image, *([reader] if reader else [])]
                rows.append([*about, *(int(read.get(finding, False)) for finding in VINDR)])
            _save_dicom(root / f"{split}/{image}.dicom", _picture(marks, 3000 + number), inverted=number % 3 == 0)
        names = [name.replace("Other diseases", "Other disease") if split == "test" else name for name in VINDR]
        header = ["image_id", *(["rad_id"] if split == "train" else []), *names]
        _write_table(root / f"annotations/image_labels_{split}.csv", header, rows)
    return root


def padchest(root: Path) -> Path:
    """PadChest: a nameless first column, reports over several lines, lists as text, 16-bit images in folders."""
    names = ["ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM"]
    names += ["ViewPosition_DICOM", "Projection", "MethodLabel", "Report", "Labels"]
    rows = []
    for patient in range(_PATIENTS + 2 * _TEST_PATIENTS):
        marks = _marks(patient)
        labels = [finding for finding, shown in zip(("cardiomegaly", " Pleural Effusion"), marks, strict=True) if shown]
        text = {20: "nan", 21: "[]", 22: "['unchanged']", 23: "['exclude', 'cardiomegaly']"}.get(
            patient, repr([*labels, "scoliosis", "scoliosis", ""] if patient % 10 == 1 else labels or ["normal"])
        )
        if patient % 10 == 3:
            text = text.replace("Pleural Effusion", "pleural effusion")
        for number, view in enumerate(
            (("PA", "AP", "AP_horizontal")[patient % 3], *(["L"] if patient % 4 == 0 else []))
        ):
            image = f"{216840111366964012 + patient}_0{number}-{patient:03d}.png"
            about = [image, patient % 3, 20090000 + 10101, f"S{patient}", f"{839860488694292331 + patient}"]
            about += [f"{1940 + patient % 60}.0", "MF"[patient % 2], "", view]
            method = "Physician" if patient % 3 else "RNN_model"
            rows.append([len(rows), *about, method, f'torax, "normal"\nsin cambios {patient}.', text])
            _save(root / f"{patient % 3}/{image}", _picture(marks, 4000 + len(rows)).astype(np.uint16) * 200 + 1000)
    _write_table(root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz", ["", *names], rows)
    return root


MINIATURES: Mapping[str, Callable[[Path], Path]] = {
    "chestxray14": chestxray14,
    "chexpert": chexpert,
    "mimic-cxr": mimic_cxr,
    "padchest": padchest,
    "vindr-cxr": vindr_cxr,
}
"""By the adapter's name."""


def edit(path: Path, old: str, new: str, *, count: int = -1) -> None:
    """Replace text in a table, packed or not; the text must be there."""
    packed = path.suffix == ".gz"
    content = (gzip.decompress(path.read_bytes()) if packed else path.read_bytes()).decode()
    assert old in content, f"{path.name} has no {old!r}"
    edited = content.replace(old, new, count).encode()
    path.write_bytes(gzip.compress(edited) if packed else edited)


def _marks(patient: int) -> tuple[bool, bool]:
    return patient % 2 == 1, patient // 2 % 2 == 1


def _sorted(labels: Sequence[str]) -> list[str]:
    """Put labels in the order of MIMIC's table, which is the alphabet's."""
    by_name = dict(zip(CHEXPERT, labels, strict=True))
    return [by_name[name] for name in sorted(CHEXPERT)]


def _picture(marks: Sequence[bool], seed: int) -> NDArray[np.uint8]:
    # Each set has seeds of its own, for no image may be in two sets.
    picture = np.random.default_rng(seed).integers(0, 120, (48, 40))
    for band, shown in enumerate(marks):
        picture[20 * band + 4 : 20 * band + 14] += 120 * shown
    return picture.astype(np.uint8)


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _save(path: Path, picture: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def _save_dicom(path: Path, picture: NDArray[np.uint8], *, inverted: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    file.Modality, file.PatientSex, file.SamplesPerPixel, file.PixelRepresentation = "DX", "O", 1, 0
    file.Rows, file.Columns = picture.shape
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
    file.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    stored = picture.astype("<u2") * 16
    file.PixelData = (4095 - stored if inverted else stored).tobytes()
    file.save_as(path, enforce_file_format=True)
