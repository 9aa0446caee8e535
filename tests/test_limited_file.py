"""Whatever lies where a file belongs, reading ends at once: with its bytes, or an error that says what is there."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.errors import RunError, WeightsError
from polyhead.limited_file import limited_file, read_limited


def make_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("make", [os.mkfifo, make_link_to_a_device, Path.mkdir])
def test_what_is_no_file_is_refused_at_once(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "f")
    before = open_descriptors()
    with pytest.raises(RunError, match=r"f: is not a file\. Put a file in its place") as refused:
        read_limited(tmp_path / "f", RunError, 100)
    assert refused.value.__cause__ is None
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.symlink_to("nowhere"), "No such file"),
        (lambda path: path.symlink_to("f"), "symbolic links"),
        (bind, "No such device"),
    ],
    ids=["nothing", "dangling link", "circle", "socket"],
)
def test_what_cannot_be_opened_is_told_from_damage_by_its_cause(
    make: Callable[[Path], None], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket may not be long
    make(tmp_path / "f")
    with pytest.raises(RunError, match=rf"f: cannot be read \(.*{what}.*\)\. Check the path") as refused:
        read_limited(tmp_path / "f", RunError, 100)
    assert isinstance(refused.value.__cause__, OSError)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_at_any_operation_is_told_from_damage_by_its_cause(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    fault = OSError(number, os.strerror(number))

    def fail(*_: object, **__: object) -> None:
        raise fault

    for name in ("open", "fstat", "fdopen"):
        before = open_descriptors()
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(RunError, match="f: cannot be read") as refused:
                read_limited(tmp_path / "f", RunError, 3)
        assert refused.value.__cause__ is fault
        assert open_descriptors() == before
    with pytest.raises(RunError, match="f: cannot be read") as refused, limited_file(tmp_path / "f", RunError, 3):
        raise fault
    assert refused.value.__cause__ is fault


@given(size=st.integers(0, 40), most=st.integers(0, 40))
def test_a_file_is_read_if_and_only_if_it_is_small_enough(
    size: int, most: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "sized"
    content = bytes(range(size))
    path.write_bytes(content)
    if size <= most:
        assert read_limited(path, RunError, most) == content
        return
    with pytest.raises(RunError, match=f": {size} bytes; what belongs here has at most {most}") as refused:
        read_limited(path, RunError, most)
    assert refused.value.__cause__ is None


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(RunError, match="1,099,511,627,776 bytes; what belongs here has at most 1,048,576"):
        read_limited(tmp_path / "f", RunError, 2**20)


def test_a_file_that_grows_is_read_up_to_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, fdopen = tmp_path / "f", os.fdopen
    path.write_bytes(b"ab")

    def late(*arguments: object, **options: object) -> object:
        path.write_bytes(b"abcdef")
        return fdopen(*arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "fdopen", late)
    assert read_limited(path, RunError, 4) == b"abcd"


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("f")
    assert read_limited(tmp_path / "link", RunError, 3) == b"abc"


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_a_name_that_no_file_can_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no file can have this name") as refused:
        read_limited(tmp_path / name, RunError, 100)
    str(refused.value).encode()


def test_what_to_do_is_what_the_caller_says(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    for name, most in (("f", 2), (".", 2), ("none", 2), ("\0", 2)):
        with pytest.raises(RunError, match=r"[.)e] Ask Mary\.$|most 2\. Ask Mary\.$"):
            read_limited(tmp_path / name, RunError, most, "Ask Mary.")


def test_an_error_of_the_reader_is_passed_on_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    before = open_descriptors()
    for problem in (WeightsError("mine"), KeyboardInterrupt()):
        with pytest.raises(type(problem)) as passed, limited_file(tmp_path / "f", RunError, 3):
            raise problem
        assert passed.value is problem
    assert open_descriptors() == before
