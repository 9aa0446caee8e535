"""Runs that are stopped, fail or are begun anew: what is said, the exit code, and what is kept."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.federation.test_run_dir import without_privileges
from tests.test_kill import contents
from tests.whole_runs import Runs, runs

__all__ = ["runs"]

GOES_ON = "interrupted; the same command goes on where it stopped.\n"


def started(*arguments: object, prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start a command as a person does; but for the commit, which the driver leaves out, too."""
    code = "from polyhead import cli, environment; environment._commit = lambda: None; cli.main()"
    command = [*prefix, sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "1000"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_ctrl_c_in_a_round_ends_after_the_step_and_the_same_command_goes_on(runs: Runs) -> None:
    study, out, other = runs.study.with_name("long.toml"), runs.folder / "long", runs.folder / "long-undisturbed"
    study.write_text(runs.study.read_text().replace("local_steps = 2", "local_steps = 30"))
    process = started("run", study, "--out", out)
    ends = time.monotonic() + 60
    while not (out / "state/ffl/seed-0/round-1.json").exists():
        assert time.monotonic() < ends
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    # It did not go on to the end of the round, which has 60 steps.
    assert not (out / "state/ffl/seed-0/round-2.json").exists()
    assert said.endswith(GOES_ON)
    assert re.fullmatch(r"WARNING +stopping after this step; again to stop at once +\n", said.removesuffix(GOES_ON))
    assert (out / "run.log").read_text().endswith("ERROR stopped by a signal.\n")
    done = runs.ask("run", study, "--out", out)
    assert "ffl, seed 0: going on after 1 of 3 rounds." in done["stdout"]
    assert (done["status"], done["stderr"]) == (0, "")
    assert runs.ask("run", study, "--out", other)["status"] == 0
    assert contents(out) == contents(other)


@pytest.mark.slow
def test_ctrl_c_at_any_file_stops_in_a_few_words_and_costs_nothing(runs: Runs) -> None:
    out = runs.folder / "stopped"
    for match in ("study.toml", "inputs.json", "sites.csv", "rounds.csv", "shared-1", "b/.private-3"):
        done = runs.at(out, match, signal.SIGINT)
        assert done["operations"], match
        assert (done["status"], done["stderr"].endswith(GOES_ON)) == (130, True), match
        assert "Traceback" not in done["stderr"]
    for match in ("test.parquet", "backbone", "done.json", "metrics.csv", "report.html"):
        done = runs.at(out, match, signal.SIGINT)
        assert done["operations"], match
        assert (done["status"], done["stderr"]) == (130, GOES_ON), match
    assert runs.run(out, patch="report is short")["status"] == 0
    assert contents(out) == runs.expected


@pytest.mark.parametrize(
    ("signals", "status", "last"),
    [
        ([signal.SIGINT, signal.SIGINT], 130, GOES_ON),
        ([signal.SIGTERM], 143, ""),
        ([signal.SIGTERM, signal.SIGTERM], 143, ""),
        ([signal.SIGTERM, signal.SIGINT], 130, GOES_ON),
    ],
)
def test_signals_in_a_round_end_it_with_their_exit_code(runs: Runs, signals: list[int], status: int, last: str) -> None:
    out = runs.folder / f"signals-{'-'.join(map(str, map(int, signals)))}"
    done = runs.at(out, "a/.private-2", *signals)
    assert done["status"] == status
    assert re.fullmatch(rf"WARNING +stopping after this step; again to stop at once +\n{last}", done["stderr"])
    assert (out / "run.log").read_text().endswith("ERROR stopped by a signal.\n")
    assert runs.run(out, patch="report is short")["status"] == 0
    assert contents(out) == runs.expected


def test_an_unexpected_error_is_a_line_and_its_traceback_is_in_the_log(runs: Runs) -> None:
    out = runs.folder / "unexpected"
    shutil.copytree(runs.folder / "undisturbed", out)
    done = runs.run(out, patch="evaluation breaks")
    assert done["status"] == 1
    assert done["stderr"] == (
        "error: ZeroDivisionError: nobody expected this. This is a fault of Polyhead, not yours; --debug shows where. "
        "Please report it.\n"
    )
    log = (out / "run.log").read_text()
    assert "ERROR stopped by an error: nobody expected this\n    Traceback (most recent call last)" in log
    debugged = runs.run(out, "--debug", patch="evaluation breaks")
    assert debugged["status"] == 1
    assert "Traceback (most recent call last)" in debugged["stderr"]
    assert debugged["stderr"].endswith("ZeroDivisionError: nobody expected this\n")


def test_a_federation_that_fails_leaves_what_was_finished_and_the_same_command_goes_on(runs: Runs) -> None:
    study, out, other = runs.study.with_name("both.toml"), runs.folder / "both", runs.folder / "both-undisturbed"
    study.write_text(runs.study.read_text().replace('methods = ["ffl"]', 'methods = ["local", "ffl"]'))
    done = runs.ask("run", study, "--out", out, patch="site b fails")
    error = [line for line in done["stderr"].splitlines() if "WARNING" not in line]
    assert (done["status"], len(error)) == (1, 1)
    assert error[0].startswith("error: ffl, seed 0, round 0: in the last of 3 attempts 1 of 2 sites could be counted")
    assert "federation.min_sites needs 2" in error[0]
    assert "then give the same command again" in error[0]
    assert f"ERROR stopped by an error: {error[0].removeprefix('error: ')}" in (out / "run.log").read_text()
    assert runs.ask("run", study, "--out", other)["status"] == 0
    results = {name: raw for name, raw in contents(other).items() if "/local/" in name}
    assert len(results) == 11
    assert {name: raw for name, raw in contents(out).items() if "/local/" in name} == results
    assert not (out / "report.html").exists()
    assert "repeated: 1 of 2 sites" in (out / "rounds.csv").read_text()
    assert runs.ask("run", study, "--out", out)["status"] == 0
    assert contents(out) == contents(other)


def test_a_restart_keeps_the_old_run_beside_the_new_one_and_says_where(runs: Runs) -> None:
    out = runs.folder / "restarted"
    shutil.copytree(runs.folder / "undisturbed", out)
    (out / "metrics.csv").write_text("of old\n")
    before = contents(out)
    done = runs.run(out, "--restart")
    assert (done["status"], done["stderr"]) == (0, "")
    assert f"What was in {out} is now {out}.before-1.\n" in done["stdout"]
    assert contents(out.with_name("restarted.before-1")) == before
    assert contents(out) == runs.expected
    assert (out / "report.html").exists()


def test_a_changed_study_is_refused_by_its_key_and_a_changed_comment_goes_on(runs: Runs) -> None:
    out = runs.folder / "changed"
    shutil.copytree(runs.folder / "undisturbed", out)
    study = runs.study.with_name("changed.toml")
    study.write_text(runs.study.read_text().replace("rounds = 3", "rounds = 4"))
    done = runs.ask("run", study, "--out", out)
    assert (done["status"], done["stderr"].count("\n")) == (1, 1)
    assert re.match(rf"error: {out}: belongs to another study\..*federation\.rounds.*3.*4.*--restart", done["stderr"])
    study.write_text("# a word more\n" + runs.study.read_text())
    done = runs.ask("run", study, "--out", out, patch="report is short")
    assert (done["status"], done["stderr"]) == (0, "")
    assert contents(out) == runs.expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run/state", "cache"])
def test_a_folder_that_cannot_be_written_is_found_before_any_training(runs: Runs, tmp_path: Path, name: str) -> None:
    prefix = without_privileges()
    study, folder = tmp_path / "study.toml", tmp_path / name
    text = runs.study.read_text().replace('manifest = "', f'manifest = "{runs.folder}/')
    study.write_text(f'cache = "{tmp_path / "cache"}"\n{text}')
    folder.mkdir(parents=True)
    folder.chmod(0o555)
    if name == "run/state":
        shutil.copy(study, tmp_path / "run")
    try:
        process = started("run", study, "--out", tmp_path / "run", prefix=prefix)
        _, said = process.communicate(timeout=60)
    finally:
        folder.chmod(0o755)
    assert (process.returncode, said.count("\n")) == (1, 1)
    assert re.match(rf"error: {folder}: .*(cannot be|can be) written.*Permission denied.*(Make it|Name a folder)", said)
    assert not list(tmp_path.rglob("*.safetensors"))
