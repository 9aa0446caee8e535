"""Updates on disk: the same values come back, nothing stays behind, and a full disk is explained."""

import errno
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyhead.errors import DiskError
from polyhead.federation.flat import flatten
from polyhead.federation.spool import clear_spool, read_piece, spool_state

CURRENT = {
    "conv": torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last),
    "half": torch.rand(5).to(torch.bfloat16),
    "count": torch.tensor(7),
    "flags": torch.tensor([True, False]),
    "nothing": torch.empty(0),
}


@given(start=st.integers(0, 48), length=st.integers(0, 48))
def test_every_piece_comes_back_in_the_order_of_current(
    tmp_path_factory: pytest.TempPathFactory, start: int, length: int
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    state = {name: torch.rand(tensor.shape).to(tensor.dtype) for name, tensor in CURRENT.items()}
    spooled = spool_state(folder, 0, state, CURRENT)
    stop = min(start + length, 48)
    values = flatten(state["conv"], like=CURRENT["conv"])
    assert torch.equal(read_piece(spooled, "conv", start, max(start, stop)), values[start : max(start, stop)])
    assert torch.equal(read_piece(spooled, "half", 1, 4), state["half"][1:4])
    for name, tensor in state.items():
        assert torch.equal(read_piece(spooled, name, 0, tensor.numel()), flatten(tensor, like=CURRENT[name]))


def test_clearing_removes_spooled_updates_and_nothing_else(tmp_path: Path) -> None:
    spool = tmp_path / "a" / "round"
    clear_spool(spool)
    assert not spool.exists()
    for number in range(3):
        spool_state(spool, number, CURRENT, CURRENT)
    assert len(list(spool.iterdir())) == 3
    (spool / "notes.txt").write_text("mine")
    clear_spool(spool)
    assert [file.name for file in spool.iterdir()] == ["notes.txt"]
    (spool / "notes.txt").unlink()
    clear_spool(spool)
    assert not spool.exists()


def test_a_link_under_the_files_name_is_not_written_through(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "000000.update").symlink_to(precious)
    with pytest.raises(DiskError, match="cannot be written"):
        spool_state(tmp_path, 0, CURRENT, CURRENT)
    assert precious.read_text() == "mine"


def test_nobody_else_can_read_a_spooled_update(tmp_path: Path) -> None:
    assert spool_state(tmp_path, 0, CURRENT, CURRENT).file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_is_explained_at_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    real = os.write
    writes = 0

    def counting(descriptor: int, data: memoryview) -> int:
        nonlocal writes
        writes += 1
        if writes == fails_at:
            raise OSError(code, os.strerror(code))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", counting)
    needed = sum(tensor.nbytes for tensor in CURRENT.values())
    for fails_at in range(1, 5):
        writes = 0
        with pytest.raises(DiskError, match=rf"{os.strerror(code)}.* {needed:,} bytes are needed, [\d,]+ are free"):
            spool_state(tmp_path / "round", fails_at, CURRENT, CURRENT)
    monkeypatch.undo()
    clear_spool(tmp_path / "round")
    assert not (tmp_path / "round").exists()


def test_short_writes_and_reads_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, readv = os.write, os.readv
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    monkeypatch.setattr(os, "readv", lambda descriptor, buffers: readv(descriptor, [buffers[0][:5]]))
    spooled = spool_state(tmp_path, 0, CURRENT, CURRENT)
    assert torch.equal(read_piece(spooled, "conv", 0, 48), flatten(CURRENT["conv"], like=CURRENT["conv"]))


@pytest.mark.parametrize("harm", ["remove", "cut"])
def test_a_file_that_was_tampered_with_is_an_error_with_its_name(tmp_path: Path, harm: str) -> None:
    spooled = spool_state(tmp_path, 0, CURRENT, CURRENT)
    if harm == "remove":
        spooled.file.unlink()
    else:
        os.truncate(spooled.file, 100)
    with pytest.raises(DiskError, match=r"000000\.update.*cannot be read again"):
        read_piece(spooled, "conv", 0, 48)


def test_a_place_that_is_no_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="cannot be written"):
        spool_state(tmp_path / "file" / "round", 0, CURRENT, CURRENT)


def test_a_link_in_the_folders_place_is_refused_and_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "000000.update").write_bytes(b"somebody else's")
    (tmp_path / "round").symlink_to(elsewhere)
    with pytest.raises(DiskError, match="round: is a link"):
        clear_spool(tmp_path / "round")
    assert (elsewhere / "000000.update").read_bytes() == b"somebody else's"
