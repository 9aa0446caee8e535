"""Images of a cache, from disk and from memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyhead.imaging.cache_rows import read_rows, read_stacked

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 61, 61), np.uint8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, 39), max_size=50))
def test_rows_from_disk_are_those_of_memory(tmp_path: Path, rows: list[int]) -> None:
    file = tmp_path / "pixels.npy"
    if not file.exists():
        np.save(file, IMAGES)
    wanted = np.array(rows, np.int64)
    on_disk = np.load(file, mmap_mode="r")
    np.testing.assert_array_equal(read_rows(on_disk, wanted), IMAGES[wanted])
    np.testing.assert_array_equal(read_rows(on_disk[::-1], wanted), IMAGES[::-1][wanted])
    np.testing.assert_array_equal(read_rows(IMAGES, wanted), IMAGES[wanted])


def test_what_is_read_is_a_copy(tmp_path: Path) -> None:
    np.save(tmp_path / "pixels.npy", IMAGES)
    read = read_rows(np.load(tmp_path / "pixels.npy", mmap_mode="r"), np.array([3]))
    read[:] = 0
    assert IMAGES[3].any()
    assert type(read) is np.ndarray or read.flags.owndata


@pytest.mark.parametrize("row", [40, 10**9])
def test_a_row_that_does_not_exist_is_an_error(tmp_path: Path, row: int) -> None:
    np.save(tmp_path / "pixels.npy", IMAGES)
    with pytest.raises(IndexError):
        read_rows(np.load(tmp_path / "pixels.npy", mmap_mode="r"), np.array([row]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, 39), max_size=50), ends=st.lists(st.integers(0, 40), max_size=4).map(sorted))
def test_several_caches_are_read_as_if_they_were_one(tmp_path: Path, rows: list[int], ends: list[int]) -> None:
    file = tmp_path / "pixels.npy"
    if not file.exists():
        np.save(file, IMAGES)
    on_disk = np.load(file, mmap_mode="r")
    caches = [on_disk[begin:end] for begin, end in zip([0, *ends], [*ends, 40], strict=True)]
    wanted = np.array(rows, np.int64)
    np.testing.assert_array_equal(read_stacked(caches, wanted), IMAGES[wanted])


@pytest.mark.parametrize("caches", [[IMAGES], [IMAGES, IMAGES[:2]]])
def test_a_row_beyond_all_caches_is_an_error(caches: list[Any]) -> None:
    with pytest.raises(IndexError):
        read_stacked(caches, np.array([0, sum(map(len, caches))]))
