"""The command line as a person meets it."""

import errno
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from polyhead.cli import main
from polyhead.errors import RunError

COMMANDS = ("demo", "import", "check", "prepare", "run", "evaluate", "report")


def polyhead(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from polyhead.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def said(done: subprocess.CompletedProcess[str]) -> str:
    return re.sub(r"\s+", " ", done.stdout + done.stderr)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_an_example(command: str) -> None:
    done = polyhead(command, "--help")
    assert done.returncode == 0
    assert f"Example: polyhead {command}" in said(done)


def test_help_lists_the_commands() -> None:
    done = polyhead("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "absent.toml", "--out", "run"), 2, "error: absent.toml: cannot be read"),
        (("run", "absent.toml"), 2, "Missing option '--out'"),
        (("report", "absent"), 1, "error: absent"),
        (("evaluate", "absent.csv"), 1, "error: absent.csv: cannot be read"),
        (("prepare", "absent"), 1, "error: absent/manifest.csv: cannot be read"),
        (("demo", "--size", "3"), 2, "No such option"),
        (("dmeo",), 2, "No such command 'dmeo'"),
    ],
)
def test_a_mistake_is_one_message_and_an_exit_code(arguments: tuple[str, ...], code: int, message: str) -> None:
    done = polyhead(*arguments)
    assert done.returncode == code
    assert message in said(done)
    assert "Traceback" not in said(done)


def ended(monkeypatch: pytest.MonkeyPatch, end: BaseException | None, *options: str) -> tuple[Any, list[Any]]:
    """Call `polyhead run` with a study that ends so; return the exit code and what the study was given."""
    given: list[Any] = []

    def run_study(study: Path, out: Path, console: Console, restart: bool, jobs: int, threads: int | None) -> None:
        given.extend((study, out, restart, jobs, threads))
        if end:
            raise end

    monkeypatch.setattr("polyhead.study.run_study", run_study)
    monkeypatch.setattr(sys, "argv", ["polyhead", "run", "study.toml", "--out", "there", *options])
    with pytest.raises(SystemExit) as exit_:
        main()
    return exit_.value.code, given


@pytest.mark.parametrize("restart", [False, True])
def test_run_starts_anew_only_when_told(restart: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    code, given = ended(monkeypatch, None, *["--restart"] * restart)
    assert code == 0
    assert given == [Path("study.toml"), Path("there"), restart, 1, None]


@pytest.mark.parametrize(
    ("end", "code", "message"),
    [
        (RunError("there: is in use."), 1, "error: there: is in use."),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on where it stopped."),
        (SystemExit(143), 143, ""),
        (PermissionError(errno.EACCES, "Permission denied", "there/x"), 1, "there/x: Permission denied. What was fin"),
        (OSError(errno.ENOSPC, "No space left on device", "there/x"), 1, "there/x: no space is left. Free some; then"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 1, "the disk: no space is left. Free some; then the same"),
        (ZeroDivisionError("x"), 1, "ZeroDivisionError: x. This is a fault of Polyhead"),
    ],
)
def test_however_a_run_ends_is_an_exit_code_and_one_message(
    end: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch, end)[0] == code
    shown = capsys.readouterr()
    assert message in shown.err
    assert len(shown.err.splitlines()) == bool(message)
    assert not shown.out


def test_an_error_with_a_cause_is_still_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = RunError("there/state: cannot be read.")
    problem.__cause__ = OSError(errno.ENOSPC, "No space left on device", "elsewhere")
    assert ended(monkeypatch, problem)[0] == 1
    assert capsys.readouterr().err == "error: there/state: cannot be read.\n"


@pytest.mark.parametrize("place", [0, 3])
def test_debug_anywhere_shows_the_traceback(place: int) -> None:
    arguments = ["report", "absent"]
    arguments.insert(place, "--debug")
    assert "Traceback" in polyhead(*arguments).stderr


def test_evaluate_reads_any_table_in_our_columns(tmp_path: Path) -> None:
    for method, slope in (("alone", 0.2), ("together", 0.4)):
        frame = pl.DataFrame(
            {
                "image": [str(index) for index in range(60)],
                "patient_id": [str(index // 2) for index in range(60)],
                "finding": ["Edema [mild]"] * 60,
                "label": [index % 2 for index in range(60)],
                "score": [slope * (index % 2) + (index * 7 % 10) / 10 for index in range(60)],
            }
        )
        frame.write_csv(tmp_path / f"{method}.csv")
    done = polyhead("evaluate", tmp_path / "alone.csv", tmp_path / "together.csv", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "together - alone" in said(done)
    comparisons = pl.read_csv(tmp_path / "out/comparisons.csv")
    assert comparisons.filter(finding="Edema [mild]")["difference"][0] > 0


def test_prepare_names_what_it_leaves_out(tmp_path: Path) -> None:
    from PIL import Image

    for index in range(4):
        Image.radial_gradient("L").resize((64 + index, 64)).save(tmp_path / f"{index}.png")
    (tmp_path / "3.png").write_bytes(b"")
    rows = "".join(f"{index}.png,{index},{split},1\n" for index, split in enumerate(("train", "val", "test", "train")))
    (tmp_path / "manifest.csv").write_text("image,patient_id,split,Edema\n" + rows)
    refused = polyhead("prepare", tmp_path, "--size", "32")
    assert refused.returncode == 1
    assert "3.png" in said(refused)
    done = polyhead("prepare", tmp_path, "--size", "32", "--skip", "0.5")
    assert done.returncode == 0
    assert "left out: 3.png" in said(done)
    assert "3 images of 32 x 32 are ready" in said(done)
