"""Tensors on disk, and files that are made to harm."""

import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from polyhead.atomic import write_atomically
from polyhead.errors import DiskError, RunError, WeightsError
from polyhead.training import tensor_file
from polyhead.training.tensor_file import Stored, read_tensors, write_tensors
from tests.training.hostile_files import file, hostile, tensor

MOST = 2**24
SMALL = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(5), "c": torch.zeros(0, 4)}


# Run by itself, so that what it measures is the readers' alone. Prints, a line a file: seconds, growth in KiB, outcome.
# The peak is set back before each file: that of importing PyTorch would hide theirs.
MEASURE = """
import re, sys, time
from pathlib import Path
from polyhead.errors import WeightsError
from polyhead.training.tensor_file import read_tensors
def kib(field):
    return int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1))
for path in sorted(Path(sys.argv[1]).iterdir()):
    Path("/proc/self/clear_refs").write_text("5")
    before, start = kib("VmRSS"), time.perf_counter()
    try:
        read_tensors(path, WeightsError, most_bytes=int(sys.argv[2]))
        outcome = "accepted"
    except WeightsError as problem:
        outcome = "refused" if str(path) in str(problem) and len(str(problem)) < 1000 else f"unclear: {problem}"
    except BaseException as problem:
        outcome = f"{type(problem).__name__}: {problem}"
    print(f"{time.perf_counter() - start:.3f}\\t{kib('VmHWM') - before}\\t{outcome[:300]!r}\\t{path.name}")
"""


def test_hostile_headers_are_refused_in_under_a_second_and_100_megabytes(tmp_path: Path) -> None:
    table = hostile()
    for number, content in enumerate(table.values()):
        (tmp_path / f"{number:02}").write_bytes(content)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURE, str(tmp_path), str(MOST)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(rows) == len(table) >= 50
    for (seconds, growth, outcome, _), kind in zip(rows, table, strict=True):
        assert outcome == "'refused'", f"{kind}: {outcome}"
        assert float(seconds) < 1, kind
        assert int(growth) < 100_000, kind


def read_or_refuse(path: Path) -> dict[str, torch.Tensor] | None:
    """Return the tensors, or None if they are refused by name; any other error is the test's failure."""
    try:
        return read_tensors(path, WeightsError, most_bytes=MOST)
    except WeightsError as problem:
        if str(path) not in str(problem):
            raise
        return None


def written(folder: Path) -> tuple[Path, Stored]:
    path = folder / "small.safetensors"
    return path, write_tensors(path, SMALL)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    path, stored = written(tmp_path)
    raw = path.read_bytes()
    assert stored == Stored(len(raw), hashlib.sha256(raw).hexdigest())
    check_alike(read_tensors(path, WeightsError, most_bytes=len(raw), stored=stored), SMALL)


def check_alike(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype, name
        assert found[name].shape == value.shape, name
        assert torch.equal(found[name], value), name


def every_kind() -> dict[str, torch.Tensor]:
    """Return tensors of every type and shape that is written, of odd lengths, so that offsets matter."""
    floats = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    integers = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
    tensors = {}
    for dtype in [*floats, *integers, torch.bool]:
        values = (torch.arange(3 * 5 * 2 * 2).reshape(3, 5, 2, 2) % 7 - (dtype in floats) * 3).to(dtype)
        tensors |= {
            f"{dtype} channels last": values.contiguous(memory_format=torch.channels_last),
            f"{dtype} every other": values[0, :, 0, 0],
            f"{dtype} of 0 dimensions": values[0, 0, 0, 1],
            f"{dtype} empty": values[:, :0],
        }
    return tensors


@pytest.mark.parametrize("wanted", [every_kind(), {}], ids=["every kind", "nothing"])
def test_what_is_written_is_what_the_library_reads(wanted: dict[str, torch.Tensor], tmp_path: Path) -> None:
    write_tensors(tmp_path / "f", wanted)
    check_alike(load_file(tmp_path / "f"), wanted)
    check_alike(read_tensors(tmp_path / "f", WeightsError, most_bytes=MOST), wanted)


def test_what_is_written_begins_at_multiples_of_its_size(tmp_path: Path) -> None:
    write_tensors(tmp_path / "f", every_kind())
    raw = (tmp_path / "f").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert length % 8 == 0
    header = json.loads(raw[8 : 8 + length])
    for name, value in every_kind().items():
        assert header[name]["data_offsets"][0] % value.element_size() == 0, name


@pytest.mark.parametrize("metadata", [None, {"format": "pt", "polyhead": "[" * 900_000, "": "\0"}])
def test_what_the_library_writes_is_read_and_its_metadata_ignored(
    metadata: dict[str, str] | None, tmp_path: Path
) -> None:
    wanted = {name: tensor.contiguous() for name, tensor in every_kind().items()}
    save_file(wanted, tmp_path / "f", metadata)
    check_alike(read_tensors(tmp_path / "f", WeightsError, most_bytes=MOST), wanted)


def test_a_file_cut_off_at_any_byte_is_refused(tmp_path: Path) -> None:
    path, stored = written(tmp_path)
    raw = path.read_bytes()
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(WeightsError, match=r"small\.safetensors: .*ut a whole copy"):
            read_tensors(path, WeightsError, most_bytes=MOST)
        with pytest.raises(WeightsError, match=f": {length} bytes instead of the {len(raw)} that were written"):
            read_tensors(path, WeightsError, most_bytes=MOST, stored=stored)


def test_a_bit_flipped_anywhere_is_refused_if_the_hash_is_known_and_never_ends_in_another_error(tmp_path: Path) -> None:
    path, stored = written(tmp_path)
    raw = path.read_bytes()
    for bit in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(WeightsError, match="is not what was written"):
            read_tensors(path, WeightsError, most_bytes=MOST, stored=stored)
        read_or_refuse(path)


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1) | st.integers(0, 250))
@settings(max_examples=300)
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, rest: bytes, length: int) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(struct.pack("<Q", length) + rest)
    read_or_refuse(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
shapes = st.lists(st.integers(-1, 4) | st.sampled_from([2**31, 2**32, 2**62, 2**63, 2**64]), max_size=4)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "BF16", "BOOL", "U8", "U64", "F4", "F8_E8M0", "I64"]) | json_values,
        "shape": shapes | json_values,
        "data_offsets": st.tuples(st.integers(0, 16), st.integers(0, 16)) | json_values,
    }
)


@given(st.dictionaries(st.text(max_size=4) | st.just("__metadata__"), entries | json_values, max_size=3), st.binary())
@settings(max_examples=300)
def test_any_header_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any], data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "header.safetensors"
    path.write_bytes(file(header, data))
    tensors = read_or_refuse(path)
    assert tensors is None or set(tensors) == set(header) - {"__metadata__"}


def test_a_file_larger_than_what_belongs_there_is_refused_unread(tmp_path: Path) -> None:
    path, stored = written(tmp_path)
    with pytest.raises(WeightsError, match=f"{stored.bytes:,} bytes; what belongs here has at most 100"):
        read_tensors(path, WeightsError, most_bytes=100)
    read_tensors(path, WeightsError, most_bytes=stored.bytes)
    with pytest.raises(WeightsError):
        read_tensors(path, WeightsError, most_bytes=stored.bytes - 1)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    with pytest.raises(RunError, match=r"f: is not a file"):
        read_tensors(tmp_path / "f", RunError, most_bytes=MOST)


def test_a_link_to_a_file_is_followed_by_the_system(tmp_path: Path) -> None:
    path, stored = written(tmp_path)
    (tmp_path / "link").symlink_to(path)
    check_alike(read_tensors(tmp_path / "link", WeightsError, most_bytes=MOST, stored=stored), SMALL)


def pickles() -> dict[str, bytes]:
    zipped, legacy, array = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save(SMALL, zipped)
    torch.save(SMALL, legacy, _use_new_zipfile_serialization=False)
    np.save(array, np.zeros(3))
    return {
        "PyTorch pickle": zipped.getvalue(),
        "a pickle; Polyhead never unpickles: convert": legacy.getvalue(),
        "is a pickle": pickle.dumps(SMALL),
        "NumPy array": array.getvalue(),
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    }


@pytest.mark.parametrize(("kind", "content"), pickles().items())
def test_another_kind_of_file_is_refused_by_its_name_and_unparsed(
    kind: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f.pt").write_bytes(content)
    monkeypatch.setattr(tensor_file, "safe_open", None)
    with pytest.raises(WeightsError, match=kind):
        read_tensors(tmp_path / "f.pt", WeightsError, most_bytes=MOST)


def test_a_good_file_that_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(file(json.dumps({"a": tensor()}).encode().ljust(0x280), bytes(4)))
    assert path.read_bytes().startswith(b"\x80\x02")
    assert set(read_tensors(path, WeightsError, most_bytes=MOST)) == {"a"}


def test_a_full_disk_leaves_the_old_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, stored = written(tmp_path)

    def full(descriptor: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DiskError, match=r"small\.safetensors.*bytes are needed"):
        write_tensors(path, {"a": torch.zeros(9)})
    assert torch.equal(read_tensors(path, WeightsError, most_bytes=MOST, stored=stored)["a"], SMALL["a"])
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_tensors_outlive_the_file_they_came_from(tmp_path: Path) -> None:
    path, _ = written(tmp_path)
    tensors = read_tensors(path, WeightsError, most_bytes=MOST)
    write_atomically(path, b"other")
    path.unlink()
    assert torch.equal(tensors["a"], SMALL["a"])
    tensors["a"].add_(1)


def test_tensors_that_are_nobody_elses_business_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    write_tensors(tmp_path / "f", SMALL, mode=0o600)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600
    check_alike(read_tensors(tmp_path / "f", WeightsError, most_bytes=MOST), SMALL)
