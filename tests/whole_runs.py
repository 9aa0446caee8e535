"""A tiny study, an undisturbed run of it, and a driver that runs commands with something going wrong."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from polyhead.site_file import SiteFile, write_site_file
from tests.conftest import write_two_sites
from tests.fault_driver import ask, polyhead_driver
from tests.test_kill import SETTINGS, contents

__all__ = ["Runs", "runs"]


@dataclass(frozen=True)
class Runs:
    """A study, a folder for its runs, an undisturbed one among them, and what that one holds."""

    driver: subprocess.Popen[str]
    study: Path
    folder: Path
    expected: dict[str, bytes]

    def ask(self, *arguments: object, **more: Any) -> dict[str, Any]:
        return ask(self.driver, arguments=[str(argument) for argument in arguments], **more)

    def at(self, out: Path, match: str, *signals: int) -> dict[str, Any]:
        """Run with signals that come right before the first write to a file whose path matches."""
        return self.run(
            out, fault={"folder": str(out), "match": match, "number": 1, "do": "signals", "signals": signals}
        )

    def run(self, out: Path, *options: str, **more: Any) -> dict[str, Any]:
        return self.ask("run", self.study, "--out", out, *options, **more)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Two hospitals, shared and private state, fine-tuning, validation, choices on record: every kind of file."""
    folder = tmp_path_factory.mktemp("runs")
    sites = write_two_sites(folder, 16, 12, 16)
    write_site_file(folder / "b", SiteFile(source={"adapter": "chexpert", "uncertain": "blank"}))
    study = folder / "study.toml"
    study.write_text(f'name = "faults"\nmethods = ["ffl"]\n{sites}{SETTINGS}')
    with polyhead_driver() as driver:
        arguments = ["run", str(study), "--out", str(folder / "undisturbed")]
        done = ask(driver, arguments=arguments)
        assert (done["status"], done["stderr"]) == (0, "")
        yield Runs(driver, study, folder, contents(folder / "undisturbed"))
        assert driver.stdin
        driver.stdin.close()
