"""DICOM: from a file to a grey image, and to what its header says of the patient. The only importer of pydicom."""

from polyhead.imaging.dicom.file import is_dicom
from polyhead.imaging.dicom.read import read_dicom
from polyhead.imaging.dicom.tags import DicomTags, is_lateral, read_tags

__all__ = ["DicomTags", "is_dicom", "is_lateral", "read_dicom", "read_tags"]
