"""Images of a cache, from disk and from memory."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyhead.imaging.cache_rows import read_rows

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
