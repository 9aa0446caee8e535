"""Somebody at a terminal is asked, and settings of a site that runs stay as they are; no engine is started."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from polyhead.deployment.agreed import agreement_of
from polyhead.deployment.house_file import read_common_study
from polyhead.flare.kits import Server, provision
from tests.deployment.houses_by_hand import write_study

JOIN = (sys.executable, "-P", "-c", "from polyhead.cli import main; main()", "site", "join")


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("join")
    study = write_study(folder, 1)
    (folder / "a.toml").write_text('manifest = "a/manifest.csv"\n')
    agreement = agreement_of(read_common_study(study))
    return provision(folder / "kits", agreement, ["a", "b", "c"], Server("localhost", 8002, 8002), "c@x.example").sites[
        "a"
    ]


@pytest.fixture
def busy(kit: Path) -> Iterator[None]:
    """Something runs from the kit."""
    command = [sys.executable, "-c", "input()", str(kit)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as one:
        (kit / "pid.fl").write_text(f"{one.pid}\n")
        yield
        one.communicate(b"\n")
    (kit / "pid.fl").unlink()


def join_at_a_terminal(kit: Path, answer: str) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "400"}
    given = [*JOIN, str(kit), str(kit.parents[2] / "a.toml")]
    with subprocess.Popen(given, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as it:
        os.close(theirs)
        os.write(ours, f"{answer}\n".encode())
        said = it.communicate(timeout=240)[0].decode()
    os.close(ours)
    return it.returncode, said


@pytest.mark.parametrize("answer", ["n", "", "no"])
def test_who_does_not_agree_takes_no_part(kit: Path, answer: str) -> None:
    code, said = join_at_a_terminal(kit, answer)
    assert code == 1
    assert said.index("What will leave a") < said.index("May this leave the house? [y/N]")
    # Where its states and results will lie.
    assert f" in {kit}, " in said
    assert "Traceback" not in said
    assert not (kit / "local" / "site.toml").exists()


def test_settings_of_a_site_that_runs_are_not_changed(kit: Path, busy: None) -> None:
    settings = kit / "local" / "site.toml"
    settings.write_text("[release]\nleast = 50\n")
    code, said = join_at_a_terminal(kit, "y")
    assert code == 1
    assert "runs from this kit already" in said.splitlines()[-1]
    assert settings.read_text() == "[release]\nleast = 50\n"
    settings.unlink()
