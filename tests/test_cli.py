"""The command line as a person meets it."""

import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

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
    ],
)
def test_a_mistake_is_one_message_and_an_exit_code(arguments: tuple[str, ...], code: int, message: str) -> None:
    done = polyhead(*arguments)
    assert done.returncode == code
    assert message in said(done)
    assert "Traceback" not in said(done)


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
