"""Settings written by hand, by people and by attackers."""

import os
from pathlib import Path

import pytest

from polyhead.errors import SourceError
from polyhead.toml_file import read_toml


def test_a_file_is_read_with_and_without_its_mark(tmp_path: Path) -> None:
    for mark in ("", "\ufeff"):
        (tmp_path / "a.toml").write_text(mark + 'a = ["ä", 1]\n[b]\nc = 1.5', "utf-8")
        assert read_toml(tmp_path / "a.toml", SourceError) == {"a": ["ä", 1], "b": {"c": 1.5}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a =", "not valid TOML"),
        ("a = 0x" + "f" * 5000, "a number beyond 64 bits"),
        ("a." * 3000 + "b = 1", "tables more than 8 deep"),
        ("#" * (2**20 + 1), "1,048,577 bytes; .* at most 1,048,576"),
    ],
)
def test_what_no_person_writes_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.toml").write_text(content)
    with pytest.raises(SourceError, match=message):
        read_toml(tmp_path / "a.toml", SourceError)


def test_a_pipe_does_not_make_anyone_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.toml")
    with pytest.raises(SourceError, match="is not a file"):
        read_toml(tmp_path / "a.toml", SourceError)
