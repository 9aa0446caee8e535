"""Files that are whole or not there."""

from pathlib import Path

import pytest

from polyhead.atomic import replacing, write_atomically


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "f", "old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "f") as temporary:
        temporary.write_text(f"half{1 / 0}")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "old"


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep/f", "old")
    with replacing(tmp_path / "deep/f") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "deep/f").read_text() == "old"
    assert (tmp_path / "deep/f").read_text() == "new"
