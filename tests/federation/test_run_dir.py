"""Who may write to a run directory, whose it is, and how a new one begins in its place."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from polyhead.config import Federation
from polyhead.errors import DiskError, RunError
from polyhead.federation import run_lock
from polyhead.federation.run_dir import Opened, open_run
from polyhead.study_file import load_study

STUDY = """
name = "x"
methods = ["ffl"]
[[site]]
name = "a"
manifest = "a/manifest.csv"
"""
OPEN = (
    "import sys\nfrom pathlib import Path\nfrom polyhead.errors import PolyheadError\n"
    "from polyhead.federation.run_dir import open_run\n"
    "try:\n  with open_run(Path(sys.argv[1]), Path(sys.argv[2]), 'restart' in sys.argv) as opened:\n"
    "    print('in', opened.known, flush=True)\n    'stay' in sys.argv and sys.stdin.read()\n"
    "except PolyheadError as problem: print(problem)"
)


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def run(tmp_path: Path, study_file: Path) -> Path:
    """A run that was begun, with something in it."""
    with open_run(tmp_path / "run", study_file):
        (tmp_path / "run/rounds.csv").write_text("old")
    return tmp_path / "run"


def opened(run: Path, study_file: Path, restart: bool = False) -> Opened:
    with open_run(run, study_file, restart) as found:
        assert found.study == load_study(study_file)
        return found


def told(found: Opened) -> tuple[bool, Path | None, str | None]:
    return found.known, found.moved_to, found.unfinished


def elsewhere(run: Path, study_file: Path, *options: str, prefix: tuple[str, ...] = ()) -> str:
    """Open a run in another process; give what that says."""
    command = [*prefix, sys.executable, "-c", OPEN, str(run), str(study_file), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_study_is_copied_to_the_byte(study_file: Path, tmp_path: Path) -> None:
    assert told(opened(tmp_path / "deep/run", study_file)) == (False, None, None)
    assert (tmp_path / "deep/run/study.toml").read_bytes() == study_file.read_bytes()
    assert told(opened(tmp_path / "deep/run", study_file)) == (True, None, None)


@pytest.mark.parametrize(
    "text",
    [
        f"# a word\n{STUDY}",
        STUDY.replace('name = "x"\nmethods = ["ffl"]', 'methods = ["ffl"]\nname = "x"'),
        f"{STUDY}[federation]\nrounds = {Federation().rounds}\n",
        STUDY.replace('"a/', '"./a/'),
    ],
    ids=["a comment", "another order", "a default spelled out", "a path spelled otherwise"],
)
def test_the_same_settings_in_other_words_are_the_same_study(run: Path, study_file: Path, text: str) -> None:
    study_file.write_text(text)
    assert opened(run, study_file).known
    assert (run / "study.toml").read_text() == STUDY


def test_a_run_that_trained_is_not_gone_on_with_when_nothing_tells_what_its_blanks_stood_for(
    run: Path, study_file: Path
) -> None:
    (run / "settings.json").unlink()
    assert opened(run, study_file).known
    assert (run / "settings.json").exists()
    (run / "state/ffl/seed-0").mkdir(parents=True)
    (run / "state/ffl/seed-0/round-1.json").touch()
    assert opened(run, study_file).known
    kept = (run / "settings.json").read_bytes()
    (run / "settings.json").unlink()
    with pytest.raises(RunError, match=r"settings\.json: is missing.* Put a copy of it in its place.* --restart"):
        opened(run, study_file)
    (run / "settings.json").write_bytes(kept)
    assert opened(run, study_file).known


def test_another_study_is_refused_and_what_changed_is_named(run: Path, study_file: Path) -> None:
    study_file.write_text(STUDY + "[training]\nlearning_rate = 0.5\n")
    with pytest.raises(RunError, match=r"another study\. training\.learning_rate: was 0\.001, is 0\.5\. .*--restart"):
        opened(run, study_file)
    assert (run / "study.toml").read_text() == STUDY


def test_of_many_changes_five_are_named(run: Path, study_file: Path) -> None:
    changes = ("rotation", "shift", "scale", "contrast", "noise", "flip")
    study_file.write_text(STUDY + "[training.augment]\n" + "".join(f"{key} = 0.5\n" for key in changes))
    with pytest.raises(RunError, match=r"another study\. [^;]*(;[^;]*){4}; and 1 more\. "):
        opened(run, study_file)


def remove_and(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "damaged"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b'"x"', b'"\xf8"')), "damaged.*utf-8"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"methods", b"mathods")), "damaged.*mathods"),
        (lambda path: path.write_bytes(b"\0" * 60), "damaged"),
        (remove_and(Path.mkdir), "is not a file"),
        (remove_and(os.mkfifo), "is not a file"),
        (remove_and(lambda path: path.symlink_to("nowhere")), "cannot be read"),
    ],
)
def test_a_damaged_copy_is_named_with_what_to_do_and_a_restart_helps(
    run: Path, study_file: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(run / "study.toml")
    with pytest.raises(RunError, match=rf"run/study\.toml: (?s:.*){message}(?s:.*)another --out"):
        opened(run, study_file)
    assert told(opened(run, study_file, restart=True)) == (False, run.with_name("run.before-1"), None)


@pytest.mark.parametrize("restart", [False, True])
def test_a_folder_with_other_files_is_refused_and_nothing_is_put_there(
    study_file: Path, tmp_path: Path, restart: bool
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.docx").touch()
    (tmp_path / "run/.lock").write_text("not ours")
    with pytest.raises(RunError, match=r"no run directory, but holds 'thesis\.docx'"):
        opened(tmp_path / "run", study_file, restart)
    (tmp_path / "run/.lock").unlink()
    with pytest.raises(RunError, match=r"thesis\.docx"):
        opened(tmp_path / "run", study_file, restart)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.docx"]


def test_what_is_no_folder_is_refused(study_file: Path, tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(RunError, match="Not a directory"):
        opened(tmp_path / "run", study_file)


def test_a_second_process_is_refused_while_the_first_runs(study_file: Path, tmp_path: Path) -> None:
    with open_run(tmp_path / "run", study_file):
        for options in ((), ("restart",)):
            said = elsewhere(tmp_path / "run", study_file, *options)
            assert f"another process is running in it (process {os.getpid()}, since 2" in said
        assert (tmp_path / "run/study.toml").exists()
    assert elsewhere(tmp_path / "run", study_file) == "in True\n"


@pytest.mark.parametrize("restart", [False, True])
def test_a_process_that_was_killed_is_noticed_once(run: Path, study_file: Path, restart: bool) -> None:
    command = [sys.executable, "-c", OPEN, str(run), str(study_file), "stay"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in True\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    said = opened(run, study_file, restart).unfinished or ""
    assert said.startswith(f"the process {process.pid} that ran here since ")
    assert opened(run, study_file).unfinished is None


@pytest.mark.parametrize("restart", [False, True])
def test_while_what_a_killed_process_began_is_at_work_everybody_is_refused(
    run: Path, study_file: Path, restart: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It works by the run's path: what `restart` put there would be mixed with it."""
    monkeypatch.setattr(run_lock, "_LONGEST_WAIT", 0.0)
    (run / ".lock").write_text('{"pid": 99999999, "started": "2026-01-01T00:00:00+00:00"}')
    with (run / "study.toml").open("rb") as orphan:
        fcntl.flock(orphan, fcntl.LOCK_SH)
        # As often as it is tried: who was refused has not taken the place of the one that was killed.
        for _ in range(2):
            with pytest.raises(RunError, match=r"killed are still at work here\. End them, or wait"):
                opened(run, study_file, restart)
        assert caplog.messages == [f"{run}: waiting for the end of what a run that was killed had begun."] * 2
        assert (run / "rounds.csv").read_text() == "old"
        assert not run.with_name("run.before-1").exists()
    found = opened(run, study_file, restart)
    assert len(caplog.messages) == 2
    assert (found.unfinished or "").startswith("the process 99999999 that ran here since ")
    assert found.moved_to == (run.with_name("run.before-1") if restart else None)


def test_leftovers_of_a_killed_process_are_removed(run: Path, study_file: Path) -> None:
    leftover = run / "state/ffl/.round-1.json.99999999.0123abcd.tmp"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    opened(run, study_file)
    assert not leftover.exists()


def test_a_restart_keeps_the_old_run_beside_the_new(run: Path, study_file: Path) -> None:
    run.with_name("run.before-2").touch()
    study_file.write_text(STUDY + "[training]\nlearning_rate = 0.5\n")
    for expected in ("run.before-1", "run.before-3"):
        with open_run(run, study_file, restart=True) as found:
            assert told(found) == (False, run.with_name(expected), None)
            assert {path.name for path in run.iterdir() if path.name[0] != "."} == {"study.toml", "settings.json"}
    assert run.with_name("run.before-1").joinpath("rounds.csv").read_text() == "old"
    assert run.with_name("run.before-1").joinpath("study.toml").read_text() == STUDY
    # What was moved is a run like any other.
    study_file.write_text(STUDY)
    assert opened(run.with_name("run.before-1"), study_file).known


def test_the_old_run_is_free_while_the_new_one_runs(run: Path, study_file: Path) -> None:
    with open_run(run, study_file, restart=True) as found:
        assert found.moved_to is not None
        assert opened(found.moved_to, study_file).known


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir])
def test_a_restart_of_nothing_is_a_start(study_file: Path, tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "run")
    assert told(opened(tmp_path / "run", study_file, restart=True)) == (False, None, None)
    assert not (tmp_path / "run.before-1").exists()


def test_a_restart_through_a_link_stays_where_the_link_leads(run: Path, study_file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("run")
    assert opened(tmp_path / "link", study_file, restart=True).moved_to == tmp_path / "run.before-1"
    assert (tmp_path / "link").is_symlink()
    assert (run / "study.toml").exists()


def test_a_restart_does_not_pull_the_study_or_the_shell_along(
    run: Path, study_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunError, match="the study file lies inside the run"):
        opened(run, run / "study.toml", restart=True)
    monkeypatch.chdir(run)
    with pytest.raises(RunError, match="this command was started inside the run"):
        opened(Path(), study_file, restart=True)
    assert (run / "rounds.csv").exists()


def test_who_begins_in_the_gap_of_a_restart_is_left_alone_and_the_old_run_is_named(
    run: Path, study_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename
    others = []

    def gap(path: Path, to: Path) -> Path:
        moved = rename(path, to)
        others.append(open_run(run, study_file))
        others[-1].__enter__()
        return moved

    monkeypatch.setattr(Path, "rename", gap)
    with pytest.raises(RunError, match=r"another process is running in it .*lies in .*run\.before-1"):
        opened(run, study_file, restart=True)
    others[-1].__exit__(None, None, None)
    assert (run / "study.toml").exists()


def fail_after_the_move(patch: pytest.MonkeyPatch, run: Path, name: str, number: int) -> None:
    """Let an operation of the system fail once the run was moved away."""
    real = getattr(os, name)

    def operation(*arguments: object, **options: object) -> object:
        if run.with_name("run.before-1").exists():
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    patch.setattr(os, name, operation)


@pytest.mark.parametrize(
    ("name", "number", "kind", "message"),
    [
        ("write", errno.ENOSPC, DiskError, r"run/study\.toml: cannot be written, the disk is full: "),
        ("write", errno.EIO, RunError, r"run: no run can be begun here \(.*Input/output error"),
        ("fsync", errno.EIO, RunError, r"run: no run can be begun here \(.*Input/output error"),
        ("pwrite", errno.ENOSPC, RunError, r"\.lock: cannot be written \(No space left"),
        ("mkdir", errno.ENOSPC, RunError, r"run: cannot be written \(No space left"),
    ],
)
def test_whatever_fails_after_the_move_of_a_restart_the_old_run_is_named(
    *, run: Path, study_file: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int, kind: type, message: str
) -> None:
    with monkeypatch.context() as patch:
        fail_after_the_move(patch, run, name, number)
        with pytest.raises(kind, match=rf"{message}.* What was there before lies in {run}\.before-1\.$"):
            opened(run, study_file, restart=True)
    assert run.with_name("run.before-1").joinpath("rounds.csv").read_text() == "old"
    assert opened(run, study_file).moved_to is None


def test_a_fault_without_a_move_is_passed_on_as_it_is(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise fault

    monkeypatch.setattr(os, "write", fail)
    for number, kind in ((errno.ENOSPC, DiskError), (errno.EIO, OSError)):
        fault = OSError(number, os.strerror(number))
        with pytest.raises(kind) as passed:
            opened(tmp_path / "run", study_file, restart=True)
        assert "before" not in str(passed.value).replace("What was there before is unharmed", "")


def test_the_move_of_a_restart_is_on_disk_before_the_new_run_begins(
    run: Path, study_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    fsync, mkdir, rename = os.fsync, os.mkdir, Path.rename

    def flushed(descriptor: int) -> None:
        seen.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    def made(path: Path, *rest: int) -> None:
        seen.append("made")
        mkdir(path, *rest)

    def renamed(path: Path, to: Path) -> Path:
        seen.append("moved")
        return rename(path, to)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "mkdir", made)
    monkeypatch.setattr(Path, "rename", renamed)
    opened(run, study_file, restart=True)
    assert seen[:4] == ["moved", run.parent, "made", run.parent]


RACE = (
    "import os, sys\nfrom pathlib import Path\nfrom polyhead.errors import RunError\n"
    "from polyhead.federation.run_dir import open_run\nrun, done = Path(sys.argv[1]), 0\n"
    "for _ in range(40):\n  try:\n    with open_run(run, Path(sys.argv[2]), restart=True) as opened:\n"
    "      assert not opened.known\n      mine = os.open(run.parent / 'inside', os.O_CREAT | os.O_EXCL)\n"
    "      (run / 'mark').touch(exist_ok=False)\n      os.close(mine)\n      (run.parent / 'inside').unlink()\n"
    "      done += 1\n  except RunError: pass\nprint(done)"
)


def test_of_many_restarts_at_once_each_has_the_directory_to_itself(run: Path, study_file: Path) -> None:
    command = [sys.executable, "-c", RACE, str(run), str(study_file)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]
    said = [process.communicate(timeout=120) for process in processes]
    assert [errors for _, errors in said] == [""] * 4
    entries = sum(int(done) for done, _ in said)
    # Every run that was begun is there still: the first, and one an entry.
    kept = [*run.parent.glob("run.before-*/study.toml"), *run.glob("study.toml")]
    assert len(kept) == entries + 1
    assert entries > 0


def without_privileges() -> tuple[str, ...]:
    """Give the words before a command that let permissions bind it; skip where there are none."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root may write anywhere, and setpriv, which could change that, is absent")
    return ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


@pytest.mark.parametrize("name", [".", "state", "models", "predictions"])
def test_a_folder_that_cannot_be_written_is_found_at_the_start(run: Path, study_file: Path, name: str) -> None:
    prefix = without_privileges()
    folder = run / name
    folder.mkdir(exist_ok=True)
    folder.chmod(0o555)
    try:
        said = elsewhere(run, study_file, prefix=prefix)
    finally:
        folder.chmod(0o755)
    assert said.count("\n") == 1
    assert f"{folder}: cannot be written (Permission denied). Make it writable" in said
    assert elsewhere(run, study_file, prefix=prefix) == "in True\n"


def test_a_run_below_a_folder_that_cannot_be_written_is_refused(study_file: Path, tmp_path: Path) -> None:
    prefix = without_privileges()
    (tmp_path / "closed").mkdir(mode=0o555)
    said = elsewhere(tmp_path / "closed/run", study_file, prefix=prefix)
    assert said.count("\n") == 1
    assert "cannot be written (Permission denied" in said


def test_what_stands_where_a_folder_belongs_is_found_at_the_start(run: Path, study_file: Path) -> None:
    (run / "models").touch()
    with pytest.raises(RunError, match=r"models: cannot be written \(Not a directory\)"):
        opened(run, study_file)
