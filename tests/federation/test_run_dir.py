"""Who may write to a run directory, and what an interrupted run leaves in it."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from polyhead.errors import RunError
from polyhead.federation.rounds import RoundRow, append_round, trim_rounds
from polyhead.federation.run_dir import open_run


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text("name = 'x'\n")
    return path


def test_the_study_is_copied_to_the_byte(study_file: Path, tmp_path: Path) -> None:
    with open_run(tmp_path / "run", study_file) as known:
        assert not known
    assert (tmp_path / "run/study.toml").read_bytes() == study_file.read_bytes()
    with open_run(tmp_path / "run", study_file) as known:
        assert known


def test_another_study_is_refused(study_file: Path, tmp_path: Path) -> None:
    with open_run(tmp_path / "run", study_file):
        pass
    study_file.write_text("name = 'y'\n")
    with pytest.raises(RunError, match="belongs to another study"), open_run(tmp_path / "run", study_file):
        pass


def test_a_folder_with_other_files_is_refused(study_file: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.docx").touch()
    with pytest.raises(RunError, match=r"thesis\.docx"), open_run(tmp_path / "run", study_file):
        pass


def test_a_second_process_is_refused_while_the_first_runs(study_file: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom polyhead.errors import RunError\n"
        "from polyhead.federation.run_dir import open_run\n"
        f"try:\n  with open_run(Path({str(tmp_path / 'run')!r}), Path({str(study_file)!r})): print('in')\n"
        "except RunError as problem: print(problem)"
    )
    with open_run(tmp_path / "run", study_file):
        inside = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    after = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "another process is running in it" in inside.stdout
    assert after.stdout == "in\n"


def row(round_: int, site: str = "a") -> RoundRow:
    return RoundRow(round_, site, 0.5, 1.0, 10, 10, "averaged")


def rows_of(run: Path) -> list[tuple[str, str, str]]:
    with (run / "rounds.csv").open() as file:
        return [(line["method"], line["seed"], line["round"]) for line in csv.DictReader(file)]


def test_rounds_that_will_be_done_again_are_dropped(tmp_path: Path) -> None:
    for method, seed, round_ in (("ffl", 0, 0), ("ffl", 0, 1), ("ffl", 1, 1), ("local", 0, 1)):
        append_round(tmp_path, method, seed, row(round_))
    with (tmp_path / "rounds.csv").open("a") as file:
        file.write("ffl,0,2,a,0.")
    trim_rounds(tmp_path, "ffl", 0, 1)
    assert rows_of(tmp_path) == [("ffl", "0", "0"), ("ffl", "1", "1"), ("local", "0", "1")]
    trim_rounds(tmp_path, "ffl", 0, 0)
    assert rows_of(tmp_path) == [("ffl", "1", "1"), ("local", "0", "1")]
