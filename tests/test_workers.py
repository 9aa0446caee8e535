"""Several jobs at a time leave what one after the other leaves, and whatever happens, nothing is lost."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from polyhead.worker import error_of, words_of
from tests.conftest import TINY_SETTINGS, write_two_sites
from tests.test_kill import contents

SETTINGS = TINY_SETTINGS.replace("rounds = 2", "rounds = 3").replace("local_steps = 1", "local_steps = 2")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workers")
    sites = write_two_sites(folder, 16, 12, 16)
    # Both release their heads, so that a model of them, and its predictions, are part of what a job leaves.
    sites = sites.replace('manifest.csv"', 'manifest.csv"\nrelease_head = true')
    methods = '"local", "ffl", "surgical", "central"'
    (folder / "study.toml").write_text(f'name = "several"\nmethods = [{methods}]\n{sites}{SETTINGS}')
    return folder / "study.toml"


def started(study: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    code = "from polyhead import cli, environment; environment._commit = lambda: None; cli.main()"
    command = [sys.executable, "-c", code, "run", str(study), "--out", str(out), "--threads", "1", *options]
    environment = {**os.environ, "COLUMNS": "1000"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finished(study: Path, out: Path, *options: str) -> tuple[int, str]:
    process = started(study, out, *options)
    _, said = process.communicate(timeout=300)
    return process.returncode, said


@pytest.fixture(scope="module")
def one_by_one(study: Path) -> Path:
    out = study.parent / "one-by-one"
    assert finished(study, out) == (0, "")
    return out


def wait_for(file: Path, process: "subprocess.Popen[str]") -> None:
    ends = time.monotonic() + 240
    while not file.exists():
        assert time.monotonic() < ends
        assert process.poll() is None
        time.sleep(0.01)


@pytest.mark.slow
def test_jobs_at_a_time_leave_the_bytes_of_one_after_the_other(study: Path, one_by_one: Path) -> None:
    out = study.parent / "both"
    assert finished(study, out, "--jobs", "2") == (0, "")
    log = (out / "run.log").read_text()
    # Both were begun before either had ended.
    assert log.index("ffl, seed 0: 0 of 3 rounds are done") > 0
    assert log.index("local, seed 0: 0 of 3 rounds are done") > 0
    assert contents(out) == contents(one_by_one)
    # Of the same jobs that are done already nothing changes.
    assert finished(study, out, "--jobs", "2") == (0, "")
    assert contents(out) == contents(one_by_one)


@pytest.mark.slow
@pytest.mark.parametrize("then", [("--jobs", "2"), ()])
def test_killed_with_all_its_processes_or_alone_it_goes_on(
    study: Path, one_by_one: Path, then: tuple[str, ...]
) -> None:
    """Those whose parent is killed end by themselves, and what comes after them waits for that."""
    out = study.parent / f"killed-{len(then)}"
    process = started(study, out, "--jobs", "2")
    wait_for(out / "state/ffl/seed-0/round-1.json", process)
    process.kill()
    process.communicate()
    assert finished(study, out, *then)[0] == 0
    assert contents(out) == contents(one_by_one)


def has_open(process: "subprocess.Popen[str]", file: Path) -> bool:
    # A descriptor may be closed meanwhile.
    with suppress(OSError):
        return file in [one.readlink() for one in Path(f"/proc/{process.pid}/fd").iterdir()]
    return False


@pytest.mark.slow
def test_a_restart_after_a_kill_waits_for_what_is_still_at_work(study: Path, one_by_one: Path) -> None:
    """It works by the run's path, where the new run is to be."""
    out, moved = study.parent / "anew", study.parent / "anew.before-1"
    process = started(study, out, "--jobs", "2")
    wait_for(out / "state/ffl/seed-0/round-1.json", process)
    with (out / "study.toml").open("r+b") as held:
        # They hold it. Each ends with its parent, but may take its time: here this process stands for one that does.
        with pytest.raises(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(held, fcntl.LOCK_SH)
        process.kill()
        process.communicate()
        again = started(study, out, "--restart")
        ends = time.monotonic() + 240
        while not has_open(again, out / "study.toml"):
            assert time.monotonic() < ends
            assert again.poll() is None
            assert not moved.exists()
            time.sleep(0.01)
    assert "that ran here since" in again.communicate(timeout=300)[1]
    assert again.returncode == 0
    assert contents(out) == contents(one_by_one)
    assert (moved / "state/ffl/seed-0/round-1.json").exists()
    assert not (moved / "report.html").exists()


@pytest.mark.slow
def test_ctrl_c_ends_each_after_its_step_and_the_same_command_goes_on(study: Path, one_by_one: Path) -> None:
    out = study.parent / "stopped"
    process = started(study, out, "--jobs", "2")
    wait_for(out / "state/ffl/seed-0/round-1.json", process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 130
    first, last = said.splitlines()
    assert "stopping each training after its step; again to stop at once" in first
    assert last == "interrupted; the same command goes on where it stopped."
    assert (out / "run.log").read_text().endswith("ERROR stopped by a signal.\n")
    assert finished(study, out, "--jobs", "2")[0] == 0
    assert contents(out) == contents(one_by_one)


@pytest.mark.slow
def test_what_is_said_of_the_sites_is_said_once(study: Path) -> None:
    control = study.with_name("control.toml")
    control.write_text(study.read_text().replace('name = "a"', 'name = "a"\nshuffle_labels = true'))
    status, said = finished(control, study.parent / "control", "--jobs", "2")
    assert (status, said.count("shuffled")) == (0, 1)


@pytest.mark.slow
def test_a_job_that_fails_is_named_and_what_the_others_did_stays(study: Path, one_by_one: Path) -> None:
    out = study.parent / "failed"
    (out / "state/local/seed-0/done.json").mkdir(parents=True)
    (out / "study.toml").write_bytes(study.read_bytes())
    status, said = finished(study, out, "--jobs", "2")
    assert (status, said.count("\n")) == (1, 1)
    assert said.startswith(
        f"error: local, seed 0: {out}/state/local/seed-0/done.json: is a folder, where a file belongs"
    )
    whole = contents(one_by_one)
    results = {name: raw for name, raw in whole.items() if "/ffl/" in name}
    assert len(results) == 16
    assert {name: raw for name, raw in contents(out).items() if "/ffl/" in name} == results
    (out / "state/local/seed-0/done.json").rmdir()
    assert finished(study, out, "--jobs", "2")[0] == 0
    assert contents(out) == whole


@pytest.mark.parametrize("option", ["--jobs", "--threads"])
@pytest.mark.parametrize("count", ["0", "-2"])
def test_none_at_a_time_is_refused(study: Path, tmp_path: Path, option: str, count: str) -> None:
    process = started(study, tmp_path / "run", option, count)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert option in said
    assert "Invalid value" in said
    assert not (tmp_path / "run").exists()


def test_an_error_of_the_system_is_a_persons_to_mend_and_any_other_keeps_its_traceback_for_debug() -> None:
    system = words_of(PermissionError(errno.EACCES, "Permission denied", "models"))
    assert system["trace"] is None
    assert str(error_of(system)) == "[Errno 13] Permission denied: 'models'"
    try:
        raise ZeroDivisionError("x")
    except ZeroDivisionError as problem:
        fault = error_of(words_of(problem))
    assert str(fault) == "ZeroDivisionError: x"
    assert fault.__notes__[0].startswith("Traceback")


# A signal comes in the middle of what a worker tells.
TELL = """
import logging, os, signal, sys
from polyhead import worker
from polyhead.stopping import gently

class Signalled:
    def __init__(self, out):
        self.out, self.flush = out, out.flush
    def write(self, text):
        if "first" in text:
            os.kill(os.getpid(), signal.SIGTERM)
        self.out.write(text)

line = worker._Line(int(sys.argv[1]))
line._out = Signalled(line._out)
logging.getLogger().addHandler(worker._Teller(line))
with gently(logging.getLogger("polyhead").warning):
    line.tell(kind="first")
"""


def test_a_signal_that_comes_while_a_process_tells_is_told_of_too() -> None:
    """Whoever handles it runs in the thread that tells, and must not wait for what that thread holds."""
    reading, writing = os.pipe()
    command = [sys.executable, "-c", TELL, str(writing)]
    with os.fdopen(reading) as told:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(writing,))
        os.close(writing)
        try:
            assert process.wait(timeout=60) == 128 + signal.SIGTERM
        finally:
            process.kill()
            process.communicate()
        assert [json.loads(line)["kind"] for line in told] == ["log", "first"]
