"""Whatever a file holds: an image, or one line that says why not and nothing of the patient."""

import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
)

from polyhead.errors import ImageError
from polyhead.imaging.dicom import read_dicom, read_tags
from polyhead.imaging.dicom.guard import reading
from tests.imaging.dicom.files import (
    LOSSLESS,
    LOSSY,
    NATIVE,
    PATIENT,
    STORED,
    WHOLE,
    compress,
    dicom,
    grey,
    noise,
    problem,
    refusal,
    table,
    written,
)

shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
PIXELS = b"\xe0\x7f\x10\x00OW"


# No file, no DICOM, no image


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    for path, reason in [(tmp_path / "none.dcm", "is missing"), (tmp_path, "is not a file")]:
        for reader in (read_dicom, read_tags):
            with pytest.raises(ImageError, match=reason):
                reader(path)
    assert "empty (0 bytes)" in refusal(tmp_path, b"")
    assert "no DICOM file" in refusal(tmp_path, b"\x89PNG\r\n\x1a\n" + bytes(200))


def test_old_files_without_a_transfer_syntax(tmp_path: Path) -> None:
    start = WHOLE.index(b"\x08\x00\x16\x00UI")
    assert "transfer syntax is not known" in refusal(tmp_path, WHOLE[start:])
    nameless = WHOLE.replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x11\x00UI")
    assert "without a transfer syntax" in refusal(tmp_path, nameless)


def test_what_holds_no_image_is_named(tmp_path: Path) -> None:
    header = Dataset()
    header.SOPClassUID, header.PatientID = "1.2.840.10008.5.1.4.1.1.88.11", PATIENT
    assert "no pixel data; the file is Basic Text SR Storage" in refusal(tmp_path, written(header))
    header.SOPClassUID = "1.2.3"
    assert "the file is 1.2.3." in refusal(tmp_path, written(header))


def test_floating_point_pixels(tmp_path: Path) -> None:
    content = WHOLE.replace(PIXELS, b"\xe0\x7f\x08\x00OF")
    assert "floating-point numbers (FloatPixelData)" in refusal(tmp_path, content)


def test_unknown_transfer_syntax_is_named_with_the_package(tmp_path: Path) -> None:
    video = refusal(tmp_path, dicom(STORED, syntax=MPEG4HP41, stream=bytes(4)))
    assert f"MPEG-4 AVC/H.264 High Profile / Level 4.1 ({MPEG4HP41}) is not read" in video
    private = refusal(tmp_path, WHOLE.replace(b"1.2.840.10008.1.2.1\0", b"1.2.3.4".ljust(20, b"\0")))
    assert "transfer syntax 1.2.3.4 is not read" in private
    assert "imagecodecs" in video
    assert "imagecodecs" in private


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless])
def test_missing_codec_is_named_with_transfer_syntax_and_package(
    tmp_path: Path, syntax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError

    monkeypatch.setattr(imagecodecs, "jpeg8_decode", missing)
    monkeypatch.setattr(imagecodecs, "jpeg2k_decode", missing)
    reason = refusal(tmp_path, dicom(STORED, syntax=syntax))
    assert syntax in reason
    assert "needs the package imagecodecs" in reason


def test_what_libraries_say_is_not_passed_on(tmp_path: Path) -> None:
    """pydicom's and a decoder's own words may repeat what a file holds."""
    path = tmp_path / "image.dcm"
    path.write_bytes(WHOLE)
    with pytest.raises(ImageError) as caught, reading(path):
        raise ValueError(f"{PATIENT}\nand more")
    assert str(caught.value) == f"{path}: broken DICOM (ValueError while reading it). Export or copy it again."
    assert caught.value.__suppress_context__


def test_impossible_name_and_failing_disk(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        read_dicom(tmp_path / ("x" * 300))
    (tmp_path / "image.dcm").write_bytes(WHOLE)
    with pytest.raises(ImageError, match=r"cannot be read \(no reply\)"), reading(tmp_path / "image.dcm"):
        raise OSError(5, "no reply")


# Headers


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Rows": None}, "0 values of Rows"),
        ({"Rows": 0}, "no image"),
        ({"Columns": 10}, "260 bytes|cut short|bytes of pixels"),
        ({"BitsAllocated": 32}, "BitsAllocated 32; 8 and 16"),
        ({"BitsAllocated": 12}, "BitsAllocated 12"),
        ({"BitsStored": 17}, "contradict"),
        ({"BitsStored": 14}, "contradict"),
        ({"HighBit": 16}, "contradict"),
        ({"BitsStored": None}, "0 values of BitsStored"),
        ({"SamplesPerPixel": 3}, "SamplesPerPixel 3, but MONOCHROME2 has 1"),
        ({"PhotometricInterpretation": PATIENT}, "PhotometricInterpretation that is not read"),
        ({"PhotometricInterpretation": None}, "no PhotometricInterpretation"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "Descriptor is not three numbers"),
        ({"NumberOfFrames": 7}, "7 frames; one is read"),
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "RescaleSlope 0"),
        ({"WindowCenter": 1, "WindowWidth": 9, "VOILUTFunction": PATIENT}, "VOILUTFunction that is not read"),
        ({"VOILUTSequence": table(np.arange(10), 0, 12, b"\0\0\0\0")}, "10 entries holds 4 bytes"),
        ({"VOILUTSequence": table(np.arange(10), 0, 17)}, "at most 16 bits"),
        ({"ModalityLUTSequence": table(np.arange(10), 0, 0)}, "at most 16 bits"),
        ({"ModalityLUTSequence": Sequence([Dataset()])}, "Descriptor is not three numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_impossible_header(tmp_path: Path, elements: dict[str, object], reason: str) -> None:
    found = refusal(tmp_path, dicom(STORED, elements=elements))
    assert any(part in found for part in reason.split("|")), found


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"\x28\x00\x10\x00US", b"\x28\x00\x10\x00LO", "element Rows holds no numbers (2 bytes of type LO)"),
        (b"\x28\x00\x10\x00US", b"\x28\x00\x10\x00ZZ", "element Rows"),
        (b"\x28\x00\x10\x00US\x02\x00\x0d\x00", b"\x28\x00\x10\x00DS\x02\x00no", "something that is no number"),
        (b"\x28\x00\x04\x00CS", b"\x28\x00\x04\x00US", "PhotometricInterpretation holds no text"),
        (b"MONOCHROME2 ", b"MONO\nHROME2 ", "control characters"),
    ],
)
def test_wrong_type_of_element(tmp_path: Path, old: bytes, new: bytes, reason: str) -> None:
    content = WHOLE.replace(old, new)
    assert content != WHOLE
    assert reason in refusal(tmp_path, content)


def test_numbers_as_text_are_read_where_numbers_are_due(tmp_path: Path) -> None:
    content = WHOLE.replace(b"\x28\x00\x10\x00US\x02\x00\x0d\x00", b"\x28\x00\x10\x00IS\x02\x0013")
    np.testing.assert_array_equal(grey(tmp_path, content), STORED)


@pytest.mark.parametrize("value", ["nan", "inf", "1e400", "1e-400"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_number_beyond_all_bounds(tmp_path: Path, value: str) -> None:
    content = dicom(STORED, elements={"RescaleSlope": "1.000000", "RescaleIntercept": 0})
    problem(tmp_path, content.replace(b"1.000000", value.encode().ljust(8)))


def test_patient_is_never_in_a_message(tmp_path: Path) -> None:
    content = dicom(STORED, elements={"PatientID": PATIENT, "PatientAge": "045Y"})
    for place in range(132, len(content) - 2 * STORED.size, 3):
        for reader in (read_dicom, read_tags):
            problem(tmp_path, content[:place] + b"\xff" + content[place + 1 :], reader)


# Cut short


def test_pixels_that_the_header_makes_longer_than_their_element(tmp_path: Path) -> None:
    start = WHOLE.index(PIXELS) + 8
    content = WHOLE[:start] + (100).to_bytes(4, "little") + WHOLE[start + 4 :]
    assert "100 bytes of pixels; a frame has 234" in refusal(tmp_path, content)


@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS[4:], *LOSSY], ids=lambda uid: uid.name.split(",")[0])
def test_truncated_file_is_refused_or_whole(tmp_path: Path, syntax: str) -> None:
    """No half image: only what stands after the last pixel may be missing."""
    bits = 8 if syntax == JPEGBaseline8Bit else 12
    content = dicom(noise(bits), bits=bits, syntax=syntax)
    whole = grey(tmp_path, content)
    refused = 0
    for length in {*range(0, len(content), 7), *range(len(content) - 40, len(content))}:
        try:
            np.testing.assert_array_equal(grey(tmp_path, content[:length]), whole)
            assert length > len(content) - 8
        except ImageError:
            refused += 1
    assert refused > len(content) // 7 - 2


@pytest.mark.parametrize("syntax", LOSSLESS[4:], ids=lambda uid: uid.name.split(",")[0])
def test_compressed_stream_without_its_end_is_refused(tmp_path: Path, syntax: str) -> None:
    stream = compress(STORED, syntax, 12)
    for part in (2, 10, 40, len(stream) // 2, len(stream) - 4):
        cut = stream[:part] + bytes(part % 2)
        assert refusal(tmp_path, dicom(STORED, syntax=syntax, stream=cut))


# Anything


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
@given(data=st.data())
@shared_folder
def test_mutated_plain_files_are_refused_or_sensible(tmp_path: Path, syntax: str, data: st.DataObject) -> None:
    elements = {"VOILUTSequence": table(np.arange(64), 0, 12), "PixelPaddingValue": 5, "RescaleSlope": "1.5"}
    content = bytearray(dicom(STORED, syntax=syntax, elements={**elements, "RescaleIntercept": "0"}))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(128, len(content) - 1))
        new = data.draw(st.binary(min_size=0, max_size=6))
        content[place : place + data.draw(st.integers(0, 6))] = new
    problem(tmp_path, bytes(content))


@given(content=st.binary(max_size=400))
@shared_folder
def test_random_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    problem(tmp_path, content)
    problem(tmp_path, bytes(128) + b"DICM" + content)


FUZZ = """
import random, sys
from pathlib import Path
import numpy as np
from pydicom.uid import JPEGBaseline8Bit
from tests.imaging.dicom.files import LOSSLESS, LOSSY, dicom, noise, problem

for syntax in (*LOSSLESS[4:], *LOSSY):
    bits = 8 if syntax == JPEGBaseline8Bit else 12
    whole = dicom(noise(bits), bits=bits, syntax=syntax)
    start = whole.index(bytes([0xE0, 0x7F, 0x10, 0]))
    for seed in range(150):
        chance, content = random.Random(seed), bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 5))):
            content[chance.randrange(start, len(content))] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
        problem(Path(sys.argv[1]), bytes(content))
print("survived")
"""


def test_mutated_compressed_streams_do_not_kill_or_stall_the_process(tmp_path: Path) -> None:
    """In a process of its own: a decoder that fails here would take the whole suite with it."""
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr[-2000:]
