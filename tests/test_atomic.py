"""Files that are whole or not there, with a fault at every operation in turn."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from polyhead.atomic import append_durably, make_folders, remove_leftovers, replacing, write_atomically
from polyhead.errors import DiskError

NOBODY = 99_999_999  # above any process number that a system gives
OPERATIONS = ("open", "write", "fsync", "replace", "mkdir")


class Fault:
    """Counts the operations of the system, names them, and raises at the `at`-th; 0 is never."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, code: int = errno.ENOSPC) -> None:
        self.at, self.code, self.seen = at, code, list[str]()
        for name in OPERATIONS:
            patch.setattr(os, name, self._counting(name, getattr(os, name)))

    def _counting(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        def operation(*arguments: object, **options: object) -> object:
            self.seen.append(name)
            if len(self.seen) == self.at:
                raise OSError(self.code, os.strerror(self.code))
            return real(*arguments, **options)

        return operation


def faulty(act: Callable[[], object], at: int, code: int = errno.ENOSPC) -> list[str] | DiskError:
    """Run `act` with a full disk at its `at`-th operation; the operations if it came through, else the error."""
    with pytest.MonkeyPatch.context() as patch:
        fault = Fault(patch, at, code)
        try:
            act()
        except DiskError as problem:
            return problem
        return fault.seen


def replace_in_one(path: Path) -> None:
    write_atomically(path, "new " * 5)


def replace_by_another(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text("new " * 5)


@pytest.mark.parametrize("write", [replace_in_one, replace_by_another])
@pytest.mark.parametrize("name", ["f", "deep/er/f"])
def test_a_disk_full_at_any_operation_leaves_the_old_file_or_the_new_one(
    write: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    is_new = name != "f"
    steps = faulty(lambda: write(tmp_path / "count" / name), 0)
    assert isinstance(steps, list)
    failures = 0
    for at in range(1, len(steps) + 2):
        folder = tmp_path / str(at)
        folder.mkdir()
        path = folder / name
        if not is_new:
            path.write_text("old")
        outcome = faulty(lambda path=path: write(path), at)
        assert not [file for file in folder.rglob("*") if file.is_file() and file != path], f"a temporary file at {at}"
        failures += isinstance(outcome, DiskError)
        if isinstance(outcome, DiskError):
            assert str(path) in str(outcome)
            assert "bytes are free" in str(outcome)
            assert path.read_text() in ("old", "new " * 5) if path.exists() else is_new
        else:
            assert path.read_text() == "new " * 5
    # "count" was a folder to be made, too.
    assert failures >= len(steps) - 3 > 0


def test_the_bytes_that_are_needed_and_free_are_named(tmp_path: Path) -> None:
    outcome = faulty(lambda: write_atomically(tmp_path / "f", b"x" * 12345), 2)
    free = os.statvfs(tmp_path)
    assert str(outcome).startswith(f"{tmp_path / 'f'}: cannot be written, the disk is full: 12,345 bytes are needed, ")
    named = int(str(outcome).split("needed, ")[1].split(" bytes")[0].replace(",", ""))
    assert named == pytest.approx(free.f_bavail * free.f_frsize, rel=0.5)
    quota = faulty(lambda: write_atomically(tmp_path / "f", "x"), 2, errno.EDQUOT)
    assert "the disk quota is used up" in str(quota)


def test_a_device_that_is_full_is_told_from_a_fault_made_up(tmp_path: Path) -> None:
    # A device of the system that is always full: no operation is replaced here.
    with pytest.raises(DiskError, match="/dev/full: cannot be written, the disk is full: 3 bytes"):
        append_durably(Path("/dev/full"), "abc")


def test_any_other_fault_is_passed_on_as_it_is(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Fault(patch, 2, errno.EIO)
        with pytest.raises(OSError, match="Input/output error"):
            write_atomically(tmp_path / "f", "x")
    assert list(tmp_path.iterdir()) == []


def test_the_order_is_write_flush_rename_and_flush_of_the_folder(tmp_path: Path) -> None:
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write", "fsync", "replace"):
            real = getattr(os, name)

            def operation(first: object, *rest: object, name: str = name, real: Callable[..., object] = real) -> object:
                kind = ""
                if name == "fsync":
                    kind = " folder" if stat.S_ISDIR(os.fstat(first).st_mode) else " file"  # type: ignore[arg-type]
                seen.append(name + kind)
                return real(first, *rest)

            patch.setattr(os, name, operation)
        write_atomically(tmp_path / "f", "x")
        assert seen == ["write", "fsync file", "replace", "fsync folder"]
        seen.clear()
        write_atomically(tmp_path / "a/b/f", "x")
        assert seen == ["fsync folder", "fsync folder", "write", "fsync file", "replace", "fsync folder"]
        seen.clear()
        replace_by_another(tmp_path / "f")
        assert seen == ["fsync file", "replace", "fsync folder"]
        seen.clear()
        append_durably(tmp_path / "log", "x")
        append_durably(tmp_path / "log", "x")
        assert seen == ["write", "fsync file", "fsync folder", "write", "fsync file"]


def test_a_system_that_writes_a_byte_at_a_time_writes_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:1]))
    write_atomically(tmp_path / "f", "größer")
    append_durably(tmp_path / "f", " als ß")
    assert (tmp_path / "f").read_text(encoding="utf-8") == "größer als ß"


@pytest.mark.parametrize("old", ["", "one\n", None])
def test_a_failed_append_leaves_the_file_as_it_was(old: str | None, tmp_path: Path) -> None:
    path = tmp_path / "log"
    for at in range(1, 10):
        path.unlink(missing_ok=True)
        if old is not None:
            path.write_text(old)
        outcome = faulty(lambda: append_durably(path, "two\n"), at)
        if isinstance(outcome, list):
            break
        assert "4 bytes are needed" in str(outcome)
        assert (path.read_text() if path.exists() else None) == old
    assert at > 3
    assert path.read_text() == (old or "") + "two\n"


def test_half_an_append_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    append_durably(tmp_path / "log", "one\n")
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:1]))
    outcome = faulty(lambda: append_durably(tmp_path / "log", "two\n"), 4)
    assert isinstance(outcome, DiskError)
    assert (tmp_path / "log").read_text() == "one\n"


def test_a_folder_that_cannot_be_flushed_is_no_fault_but_a_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def refuse(descriptor: int, of_folders: bool) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == of_folders:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", lambda descriptor: refuse(descriptor, True))
    write_atomically(tmp_path / "f", "x")
    monkeypatch.setattr(os, "fsync", lambda descriptor: refuse(descriptor, False))
    for write in (replace_in_one, replace_by_another):
        with pytest.raises(OSError, match="Invalid argument"):
            write(tmp_path / "f")
    assert (tmp_path / "f").read_text() == "x"


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


def killed_while_writing(path: Path) -> Path:
    """Return what is left: a kill leaves what an unlink would have removed."""
    with pytest.MonkeyPatch.context() as patch, suppress(KeyError), replacing(path) as temporary:
        patch.setattr(os, "unlink", lambda path: None)
        temporary.write_text("half")
        raise KeyError
    return temporary


def test_what_a_killed_process_left_is_removed_anywhere_below(tmp_path: Path) -> None:
    left = [killed_while_writing(tmp_path / name) for name in ("f", "a b\n.c", "deep/er/model.json")]
    (tmp_path / "target").mkdir()
    (tmp_path / f"target/.f.{NOBODY}.0123abcd.tmp").symlink_to(tmp_path / "keep")
    (tmp_path / f".f.{NOBODY}.0123abcd.tmp").mkdir()
    (tmp_path / "keep").write_text("x")
    (tmp_path / "deep/elsewhere").symlink_to(tmp_path / "target")
    assert all(path.exists() for path in left)
    assert remove_leftovers(tmp_path) == 3
    assert not any(path.exists() for path in left)
    assert (tmp_path / f"target/.f.{NOBODY}.0123abcd.tmp").is_symlink()
    assert (tmp_path / f".f.{NOBODY}.0123abcd.tmp").is_dir()
    assert (tmp_path / "keep").exists()
    assert remove_leftovers(tmp_path) == 0


def test_the_file_of_a_process_that_still_writes_stays_until_it_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom polyhead.atomic import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "  temporary.write_text('half')\n  print(temporary, flush=True)\n  sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "f")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        temporary = Path(process.stdout.readline().rstrip("\n"))
        assert remove_leftovers(tmp_path) == 0
        assert temporary.read_text() == "half"
        process.kill()
        process.wait()
    assert remove_leftovers(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_a_process_of_another_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process: int, signal: int) -> None:
        assert (process, signal) == (4711, 0)
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "kill", refuse)
    (tmp_path / ".f.4711.0123abcd.tmp").touch()
    assert remove_leftovers(tmp_path) == 0


def test_a_number_that_came_round_again_and_is_ours_now_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / f".f.{os.getpid()}.0123abcd.tmp").touch()
    assert remove_leftovers(tmp_path) == 1


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_who_may_read_a_file_is_settled_before_its_first_byte(
    mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, write = [], os.write

    def watched(descriptor: int, content: bytes) -> int:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", watched)
    before = os.umask(0o027)
    try:
        (tmp_path / "f").touch(0o666)
        write_atomically(tmp_path / "f", "x", mode=mode)
        write_atomically(tmp_path / "usual", "x")
    finally:
        os.umask(before)
    assert seen == [mode & ~0o027, 0o640]
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == mode & ~0o027


def test_folders_that_are_made_are_on_disk_with_every_name_above_them(tmp_path: Path, flushed: list[Path]) -> None:
    make_folders(tmp_path / "a/b")
    assert flushed == [tmp_path, tmp_path / "a"]
    make_folders(tmp_path / "a/b")
    assert len(flushed) == 2


processes = st.sampled_from([str(NOBODY), "9" * 30, "1", "0", "01", "٣", "1٣", "-1", ""])
codes = st.sampled_from(["0123abcd", "00000000", "0123ABCD", "0123abc", "0123abcde", "0123abcg"])
ends = st.sampled_from([".tmp", ".TMP", "", ".tmp~", ".tmp\n"])
near = st.builds(
    "{}{}.{}.{}{}".format,
    st.sampled_from([".", "", "_"]),
    st.sampled_from(["f", "", ".", "a\nb"]),
    processes,
    codes,
    ends,
)
names = near | st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=40)


@given(st.sets(names.filter(lambda name: name not in (".", "..")), max_size=5))
@example({f".f.{NOBODY}٣.0123abcd.tmp", f".f.{NOBODY}3.0123abcd.tmp"})
@example({".f.1.0123abcd.tmp"})
@settings(max_examples=300)
def test_only_names_that_we_give_are_removed(tmp_path_factory: pytest.TempPathFactory, found: set[str]) -> None:
    folder = tmp_path_factory.mktemp("names")
    for name in found:
        (folder / name).write_text("")
    ours = {name for name in found if is_ours(name)}
    assert remove_leftovers(folder) == len(ours)
    assert {path.name for path in folder.iterdir()} == found - ours


def is_ours(name: str) -> bool:
    """The rule once more, without a regular expression."""
    start, _, rest = name.rpartition(".")
    before, _, code = start.rpartition(".")
    stem, _, process = before.rpartition(".")
    numbered = process.isascii() and process.isdigit() and not process.startswith("0")
    coded = len(code) == 8 and set(code) <= set("0123456789abcdef")
    return rest == "tmp" and coded and numbered and int(process) >= NOBODY and stem.startswith(".") and len(stem) > 1
