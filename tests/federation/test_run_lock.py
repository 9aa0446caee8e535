"""Two real processes and one directory."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.errors import RunError
from polyhead.federation import run_lock
from polyhead.federation.run_lock import locked, signed

HOLD = (
    "import sys\nfrom pathlib import Path\nfrom polyhead.federation.run_lock import locked, signed\n"
    "with locked(Path(sys.argv[1])) as lock, signed(lock):\n  print('in', flush=True)\n  sys.stdin.read()"
)


@contextmanager
def holder(run: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock until its input ends."""
    command = [sys.executable, "-c", HOLD, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "in\n"
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_and_told_who_is_there_since_when(tmp_path: Path) -> None:
    with holder(tmp_path / "run") as other:
        with (
            pytest.raises(RunError, match=rf"running in it \(process {other.pid}, since 2\d\d\d-.* UTC\)\. Wait"),
            locked(tmp_path / "run"),
        ):
            pass
        other.communicate("")
        with locked(tmp_path / "run") as lock:
            assert lock.unfinished is None


def test_a_holder_that_was_killed_gives_the_lock_back_and_is_noticed(tmp_path: Path) -> None:
    with holder(tmp_path / "run") as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
        with locked(tmp_path / "run") as lock:
            said = lock.unfinished or ""
            assert said.startswith(f"the process {other.pid} that ran here since 2")
            assert said.endswith(" UTC did not end by itself")
            with signed(lock):
                assert json.loads((tmp_path / "run/.lock").read_text())["pid"] == os.getpid()
        with locked(tmp_path / "run") as lock:
            assert lock.unfinished is None


@pytest.mark.parametrize("problem", [RunError, KeyboardInterrupt, SystemExit])
def test_an_end_by_an_error_is_an_end(tmp_path: Path, problem: type[BaseException]) -> None:
    with pytest.raises(problem), locked(tmp_path / "run") as lock, signed(lock):
        raise problem
    assert (tmp_path / "run/.lock").read_bytes() == b""


def test_the_same_process_is_kept_out_too(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RunError, match=r"another process is running in it\. Wait"), locked(tmp_path):
        pass


def test_a_longer_text_from_before_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_bytes(b"x" * 10_000)
    with locked(tmp_path) as lock, signed(lock):
        assert set(json.loads((tmp_path / ".lock").read_text())) == {"pid", "started"}


STARTED = '"2025-01-02T03:04:05+00:00"'


@pytest.mark.parametrize(
    "content",
    [
        b"\0" * 40,
        b"[" * 4096,
        b"{",
        b"[]",
        b"4711",
        b'{"pid": 4711}',
        b'{"pid": 4711, "started": 5}',
        b'{"pid": 4711, "started": "yesterday"}',
        b'{"pid": 4711, "started": "0001-01-01T00:00:00+23:59"}',
        f'{{"pid": true, "started": {STARTED}}}'.encode(),
        f'{{"pid": -1, "started": {STARTED}}}'.encode(),
        f'{{"pid": "\x1b[2J", "started": {STARTED}}}'.encode(),
        f'{{"pid": {"9" * 4000}, "started": {STARTED}}}'.encode(),
        b"\xff" * 100_000,
    ],
)
def test_a_lock_that_names_nobody_is_no_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".lock").write_bytes(content)
    with locked(tmp_path) as lock:
        assert lock.unfinished == "the process that ran here last did not end by itself"
        assert (tmp_path / ".lock").read_bytes() == content
        with pytest.raises(RunError, match=r"another process is running in it\. Wait"), locked(tmp_path):
            pass


@given(content=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: json.dumps({"pid": text}).encode()))
def test_no_content_of_a_lock_is_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    run = tmp_path_factory.mktemp("run")
    (run / ".lock").write_bytes(content)
    with locked(run) as lock:
        assert (lock.unfinished is None) == (content == b"")


def precious(path: Path) -> Path:
    path.with_name("precious").write_text("thesis")
    return path.with_name("precious")


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to(precious(path)),
        lambda path: path.hardlink_to(precious(path)),
        Path.mkdir,
        os.mkfifo,
        bind,
    ],
    ids=["link", "second name", "folder", "pipe", "socket"],
)
def test_a_lock_that_is_no_plain_file_is_refused_and_left_alone(
    tmp_path: Path, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket may not be long
    make(tmp_path / ".lock")
    began = time.monotonic()
    with pytest.raises(RunError, match=r"\.lock: is no plain file.*Remove it"), locked(tmp_path):
        pass
    assert time.monotonic() - began < 5
    if (tmp_path / "precious").exists():
        assert (tmp_path / "precious").read_text() == "thesis"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(RunError, match=r"file system has no locks .* local disk"), locked(tmp_path):
        pass


def test_a_full_disk_is_told_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with (
        pytest.raises(RunError, match=r"\.lock: cannot be written \(No space left"),
        locked(tmp_path) as lock,
        signed(lock),
    ):
        pytest.fail("ran")


def test_who_opened_the_lock_of_a_directory_that_was_moved_does_not_hold_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking another process moves the directory and begins anew there."""
    run, take, moved = tmp_path / "run", run_lock._take, []
    run.mkdir()

    def late(path: Path, file: object) -> None:
        if not moved:
            moved.append(run.rename(tmp_path / "moved"))
            (run / "new").mkdir(parents=True)
        take(path, file)  # type: ignore[arg-type]

    monkeypatch.setattr(run_lock, "_take", late)
    with locked(run) as lock:
        assert os.path.samestat(os.fstat(lock.file.fileno()), (run / ".lock").stat())
        assert (run / "new").exists()
        # The old one is nobody's.
        monkeypatch.undo()
        with locked(tmp_path / "moved"):
            pass


def test_who_comes_late_to_a_directory_that_was_moved_is_refused_by_the_holder_of_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, take = tmp_path / "run", run_lock._take
    run.mkdir()
    with monkeypatch.context() as patch:
        holders = []

        def late(path: Path, file: object) -> None:
            if not holders:
                run.rename(tmp_path / "moved")
                holders.append(holder(run))
                holders[0].__enter__()
            take(path, file)  # type: ignore[arg-type]

        patch.setattr(run_lock, "_take", late)
        with pytest.raises(RunError, match=r"running in it \(process \d+"), locked(run):
            pass
        holders[0].__exit__(None, None, None)


def test_a_directory_that_vanishes_again_and_again_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "_lies_at", lambda *_: False)
    with pytest.raises(RunError, match="again and again"), locked(tmp_path):
        pass


def test_a_directory_that_is_made_is_on_disk_with_every_name_above_it(tmp_path: Path, flushed: list[Path]) -> None:
    with locked(tmp_path / "deep/run"):
        assert flushed == [tmp_path, tmp_path / "deep"]


def test_a_directory_behind_a_link_is_made_where_the_link_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("there/run")
    with locked(tmp_path / "link"):
        assert (tmp_path / "there/run/.lock").exists()
