"""Every file that comes with pydicom is read to a sensible image, or refused for the right reason; none is unknown.

Two tables: what is read, by shape and type; and what is refused, by a fragment of the reason.
"""

import warnings
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pydicom
import pytest

from polyhead.errors import ImageError
from polyhead.imaging.dicom import read_dicom, read_tags

DATA = Path(pydicom.__file__).parent / "data"

READ: Mapping[tuple[int, int, str], str] = {
    (32, 32, "uint8"): """
        charset_files/chrArab.dcm charset_files/chrFren.dcm charset_files/chrFrenMulti.dcm charset_files/chrGerm.dcm
        charset_files/chrGreek.dcm charset_files/chrH31.dcm charset_files/chrH32.dcm charset_files/chrHbrw.dcm
        charset_files/chrI2.dcm charset_files/chrRuss.dcm charset_files/chrX1.dcm charset_files/chrX2.dcm""",
    (512, 512, "uint16"): "693_J2KI.dcm J2K_pixelrep_mismatch.dcm",
    (128, 128, "uint16"): "CT_small.dcm",
    (60, 80, "uint8"): "ExplVR_BigEnd.dcm",
    (400, 400, "uint8"): "GDCMJ2K_TextGBR.dcm",
    (1024, 256, "uint16"): "JPEG-lossy.dcm JPEG2000.dcm JPGExtended.dcm",
    (45, 10, "uint8"): "JPEGLSNearLossless_08.dcm",
    (50, 10, "uint16"): "JPEGLSNearLossless_16.dcm",
    (64, 64, "uint16"): """
        MR_small.dcm MR_small_RLE.dcm MR_small_bigendian.dcm MR_small_expb.dcm MR_small_implicit.dcm
        MR_small_jp2klossless.dcm MR_small_jpeg_ls_lossless.dcm MR_small_padded.dcm""",
    (256, 256, "uint8"): """
        SC_jpeg_no_color_transform.dcm SC_jpeg_no_color_transform_2.dcm SC_rgb_jpeg.dcm SC_rgb_jpeg_app14_dcmd.dcm
        SC_rgb_jpeg_dcmd.dcm""",
    (100, 100, "uint8"): """
        SC_rgb_dcmtk_+eb+cr.dcm SC_rgb_dcmtk_+eb+cy+n1.dcm SC_rgb_dcmtk_+eb+cy+n2.dcm SC_rgb_dcmtk_+eb+cy+np.dcm
        SC_rgb_dcmtk_+eb+cy+s2.dcm SC_rgb_dcmtk_+eb+cy+s4.dcm SC_rgb_gdcm_KY.dcm SC_rgb_jls_lossy_line.dcm
        SC_rgb_jls_lossy_sample.dcm SC_rgb_jpeg_dcmtk.dcm SC_rgb_jpeg_gdcm.dcm SC_rgb_jpeg_lossy_gdcm.dcm SC_rgb_rle.dcm
        SC_rgb_rle_2frame.dcm SC_ybr_full_422_uncompressed.dcm""",
    (100, 100, "uint16"): "SC_rgb_rle_16bit.dcm SC_rgb_rle_16bit_2frame.dcm",
    (3, 3, "uint8"): "SC_rgb_small_odd.dcm SC_rgb_small_odd_big_endian.dcm SC_rgb_small_odd_jpeg.dcm",
    (16, 16, "uint16"): """
        dicomdirtests/77654033/CR1/6154 dicomdirtests/77654033/CR2/6247 dicomdirtests/77654033/CR3/6278
        dicomdirtests/77654033/CT2/17106 dicomdirtests/77654033/CT2/17136 dicomdirtests/77654033/CT2/17166
        dicomdirtests/77654033/CT2/17196 dicomdirtests/98892001/CT2N/6293 dicomdirtests/98892001/CT2N/6924
        dicomdirtests/98892001/CT5N/2062 dicomdirtests/98892001/CT5N/2392 dicomdirtests/98892001/CT5N/2693
        dicomdirtests/98892001/CT5N/3023 dicomdirtests/98892001/CT5N/3353 dicomdirtests/98892003/MR1/15820
        dicomdirtests/98892003/MR1/4919 dicomdirtests/98892003/MR1/5641 dicomdirtests/98892003/MR2/15970
        dicomdirtests/98892003/MR2/4950 dicomdirtests/98892003/MR2/4981 dicomdirtests/98892003/MR2/5011
        dicomdirtests/98892003/MR2/6273 dicomdirtests/98892003/MR2/6605 dicomdirtests/98892003/MR2/6935
        dicomdirtests/98892003/MR700/4467 dicomdirtests/98892003/MR700/4528 dicomdirtests/98892003/MR700/4558
        dicomdirtests/98892003/MR700/4588 dicomdirtests/98892003/MR700/4618 dicomdirtests/98892003/MR700/4648
        dicomdirtests/98892003/MR700/4678""",
    (480, 640, "uint8"): "examples_jpeg2k.dcm",
    (300, 484, "uint16"): "examples_overlay.dcm",
    (350, 800, "uint16"): "examples_palette.dcm",
    (240, 320, "uint8"): "examples_rgb_color.dcm examples_ybr_color.dcm",
    (512, 512, "uint8"): "image_dfl.dcm",
}

REFUSED: Mapping[str, str] = {
    "no DICOM file": """
        charset_files/FileInfo.txt hashes.json palettes/README.md README.txt crayons.icc dicomdirtests/README.txt
        dicomdirtests/TINY_ALPHA/README no_meta.dcm rtplan.dump rtstruct.dump test1.json test_PN.json zipMR.gz
        urls.json""",
    "no pixel data; the file is Computed Radiography Image Storage": """
        charset_files/chrJapMulti.dcm charset_files/chrJapMultiExplicitIR6.dcm charset_files/chrKoreanMulti.dcm""",
    "no pixel data; the file is MR Image Storage": """
        charset_files/chrSQEncoding.dcm charset_files/chrSQEncoding1.dcm priv_SQ.dcm""",
    "no pixel data; the file is Color Palette Storage": """
        palettes/fall.dcm palettes/hotiron.dcm palettes/hotmetalblue.dcm palettes/pet.dcm palettes/pet20step.dcm
        palettes/spring.dcm palettes/summer.dcm palettes/winter.dcm""",
    "its transfer syntax is not known": "ExplVR_BigEndNoMeta.dcm ExplVR_LitEndNoMeta.dcm rtstruct.dcm",
    "the compressed pixels 3722445056 x 1024": "JPEG2000-embedded-sequence-delimiter.dcm",
    "cut short: fewer than 8,192 bytes": "MR_truncated.dcm",
    "BitsAllocated 32; 8 and 16 are read": """
        SC_rgb_rle_32bit.dcm SC_rgb_rle_32bit_2frame.dcm rtdose.dcm rtdose_1frame.dcm rtdose_expb.dcm
        rtdose_expb_1frame.dcm rtdose_rle.dcm rtdose_rle_1frame.dcm""",
    "no pixel data; the file is CT Image Storage": """
        UN_sequence.dcm dicomdirtests/TINY_ALPHA/PT000000/ST000000/SE000000/IM*""",
    "element NumberOfFrames holds something that is no number": "badVR.dcm",
    "no pixel data; the file is Media Storage Directory Storage": """
        dicomdirtests/DICOMDIR dicomdirtests/DICOMDIR-bigEnd dicomdirtests/DICOMDIR-empty.dcm
        dicomdirtests/DICOMDIR-implicit dicomdirtests/DICOMDIR-nooffset dicomdirtests/DICOMDIR-nopatient
        dicomdirtests/DICOMDIR-reordered dicomdirtests/TINY_ALPHA/DICOMDIR""",
    "no pixel data; the file is of no kind known": "empty_charset_LEI.dcm",
    "BitsAllocated 1; 8 and 16 are read": "liver_1frame.dcm liver_expb_1frame.dcm",
    "without a transfer syntax": "meta_missing_tsyntax.dcm",
    "no PhotometricInterpretation": "nested_priv_SQ.dcm",
    "no pixel data; the file is RT Image Storage": "no_meta_group_length.dcm",
    "no pixel data; the file is Basic Text SR Storage": "reportsi.dcm reportsi_with_empty_number_tags.dcm",
    "no pixel data; the file is RT Plan Storage": "rtplan.dcm rtplan_truncated.dcm",
    "no pixel data; the file is Comprehensive SR Storage": "test-SR.dcm",
    "no pixel data; the file is 12-lead ECG Waveform Storage": "waveform_ecg.dcm",
}

# Slices of air and of bone, whose windows leave them no contrast.
CONSTANT = ("dicomdirtests/77654033/CT2/17166", "dicomdirtests/77654033/CT2/17196")
SEVERAL = ("SC_rgb_rle_16bit_2frame.dcm", "SC_rgb_rle_2frame.dcm", "examples_ybr_color.dcm")
# The same slice in eight encodings, and the same pixels in two.
SAME = (
    READ[64, 64, "uint16"],
    "SC_rgb_jpeg.dcm SC_rgb_jpeg_dcmd.dcm",
    "SC_rgb_small_odd.dcm SC_rgb_small_odd_big_endian.dcm",
)


def path_of(name: str) -> Path:
    return DATA / name if (DATA / name).exists() else DATA / "test_files" / name


def files() -> Iterator[str]:
    """Names of what is on disk, without the package's own modules."""
    for path in sorted(DATA.rglob("*")):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            yield str(path.relative_to(DATA)).removeprefix("test_files/")


def reasons(name: str) -> list[str]:
    return [reason for reason, names in REFUSED.items() if any(fnmatchcase(name, known) for known in names.split())]


def test_every_file_is_in_one_of_the_tables() -> None:
    read = [name for names in READ.values() for name in names.split()]
    assert len(read) == len(set(read))
    found = list(files())
    assert [name for name in found if (name in read) + len(reasons(name)) != 1] == []
    assert set(read) <= set(found)
    assert len(read) > 80


@pytest.mark.parametrize(("form", "name"), [(form, name) for form, names in READ.items() for name in names.split()])
def test_file_is_read_to_a_sensible_image(form: tuple[int, int, str], name: str) -> None:
    image = read_dicom(path_of(name), frames="first")
    assert (*image.grey.shape, str(image.grey.dtype)) == form
    assert (image.grey.min() < image.grey.max()) == (name not in CONSTANT)
    assert ("first of several frames" in image.notes) == (name in SEVERAL)
    read_tags(path_of(name))


@pytest.mark.parametrize("name", [name for name in files() if reasons(name)])
def test_file_is_refused_for_its_reason(name: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_dicom(path_of(name), frames="first")
    assert str(caught.value).startswith(f"{path_of(name)}: ")
    assert reasons(name)[0] in str(caught.value)


@pytest.mark.parametrize("names", SAME)
def test_the_same_pixels_look_the_same_in_every_encoding(names: str) -> None:
    first, *others = [read_dicom(path_of(name)).grey for name in names.split()]
    for other in others:
        np.testing.assert_array_equal(other, first)


def is_plain_grey(name: str) -> bool:
    header = pydicom.dcmread(path_of(name), stop_before_pixels=True)
    compressed = header.file_meta.TransferSyntaxUID.is_compressed
    return not compressed and header.PhotometricInterpretation[:4] == "MONO" and "PixelPaddingValue" not in header


with warnings.catch_warnings(action="ignore"):  # pydicom's, on its own files.
    COMPARED = [name for names in READ.values() for name in names.split() if is_plain_grey(name)]


def test_enough_files_are_compared_with_pydicoms_own_reading() -> None:
    assert len(COMPARED) > 35


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_order_of_grey_values_is_that_of_pydicoms_own_reading(name: str) -> None:
    header = pydicom.dcmread(path_of(name))
    theirs = pydicom.pixels.apply_modality_lut(header.pixel_array, header).astype(float).ravel()
    ours = read_dicom(path_of(name)).grey.ravel().astype(int)
    if header.PhotometricInterpretation == "MONOCHROME1":
        theirs = -theirs
    assert (np.diff(ours[np.argsort(theirs, kind="stable")]) >= 0).all()
