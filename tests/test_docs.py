"""The pages: every link leads somewhere, and the settings are those that there are."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from polyhead.config import StudyConfig
from polyhead.config_training import Section
from polyhead.phantom import Acquisition, write_site
from polyhead.predictions import read_predictions
from polyhead.study import run_study
from tests.conftest import TINY_SETTINGS

ROOT = Path(__file__).parents[1]
PAGES = sorted(page for folder in (".", "docs", "examples", "benchmarks") for page in (ROOT / folder).glob("*.md"))


def anchors(page: Path) -> set[str]:
    """Return the names of a page's headings, as they are made for links to them."""
    lines = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE).splitlines()
    titles = [line.lstrip("#").strip().lower() for line in lines if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> list[str]:
    """Return the links of a page to files, or headings of pages, that are not there."""
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        place, _, name = link.partition("#")
        to = page.parent / place if place else page
        if "://" not in link and not (to.exists() and (not name or name in anchors(to))):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# One `two`\n[good](#one-two) [bad](#one) [gone](b.md) [out](https://example.org/a) [self](a.md)")
    assert broken_links(page) == ["#one", "b.md"]


def settings_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_settings", ROOT / "docs" / "settings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_settings_is_what_the_settings_say() -> None:
    script = settings_script()
    written = (ROOT / "docs" / "settings.md").read_text()
    assert written == script.PAGE.format(tables=script.tables(StudyConfig))


def test_a_setting_without_a_word_about_it_is_found() -> None:
    class Odd(Section):
        """Odd.

        Attributes
        ----------
        told
            Yes.
        """

        told: int = 1
        untold: int = 1

    script = settings_script()
    with pytest.raises(KeyError, match="untold"):
        script.tables(Odd)


@pytest.mark.slow
def test_the_page_of_a_run_tells_how_its_model_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    size = {"train": 16, "val": 8, "test": 8, "size": 32}
    write_site(Path("our-hospital"), site="ours", findings=("Edema",), acquisition=Acquisition(), seed=1, **size)
    site = '[[site]]\nname = "ours"\nmanifest = "our-hospital/manifest.csv"\n'
    Path("study.toml").write_text(f'name = "one"\nmethods = ["ffl"]\n{site}{TINY_SETTINGS}')
    run_study(Path("study.toml"), Path("RUN"), Console(quiet=True))
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "run.md").read_text(), re.DOTALL)
    found: dict[str, Any] = {}
    exec(code, found)  # noqa: S102
    kept = read_predictions(Path("RUN/predictions/ffl/seed-0/ours/test.parquet"))
    assert found["about"]["findings"] == ["Edema"]
    assert list(kept["image"]) == list(found["test"].images)
    assert list(kept["score"]) == list(found["probabilities"][:, 0])
