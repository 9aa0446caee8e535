"""The page in a real browser: no error, something to see, and no wider than the window."""

import json
import os
import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polyhead.report import write_report

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    "--enable-logging=stderr",
)

pytestmark = pytest.mark.slow


@pytest.fixture
def browse(tmp_path):
    binary = next(filter(None, map(shutil.which, NAMES)), None)
    if binary is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium: apt-get install chromium")
        pytest.skip("no Chromium: apt-get install chromium")

    def run(page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [binary, *FLAGS, profile, *flags, page.resolve().as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)

    return run


def console(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_page_opens_without_an_error_and_shows_something(browse, make_run, tmp_path):
    picture = tmp_path / "page.png"
    done = browse(write_report(make_run()), "--window-size=1200,3000", f"--screenshot={picture}")
    assert console(done) == []
    with Image.open(picture) as image:
        assert image.size == (1200, 3000)
        pixels = np.asarray(image.convert("L"))
    for part in np.array_split(pixels, 6):
        assert (part < 100).mean() > 0.002  # ink on every part of the page
        assert (part > 240).mean() > 0.5


def test_the_console_is_heard(browse, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text("<script>console.error('heard')</script>")
    assert console(browse(page, f"--screenshot={tmp_path / 'bad.png'}"))


LONG = {
    "A-hospital-with-a-very-long-name-in-one-word-of-sixty-four-chars": ("Pneumothorax" * 8, "Cardiomegaly"),
    "B": ("Cardiomegaly", "A finding named at length, with a remark on its site, side and certainty"),
}


@pytest.mark.parametrize("width", [1200, 400, 320])
@pytest.mark.parametrize("sites", [None, LONG], ids=["usual", "long names"])
def test_the_page_is_no_wider_than_the_window(browse, make_run, tmp_path, width, sites):
    html = write_report(make_run(sites)).read_text()
    assert measured(browse, tmp_path, html, width) <= width


def test_a_page_that_is_too_wide_is_found(browse, tmp_path):
    assert measured(browse, tmp_path, "<!doctype html><body><div style='width:900px'>x</div>", 400) >= 900


def measured(browse, folder: Path, html: str, width: int) -> int:
    """Return the width that a page takes in a frame of `width` pixels."""
    frame = f'<iframe id="page" style="border:0;width:{width}px;height:900px" srcdoc="{escape(html)}"></iframe>'
    script = """onload = () => {
        const root = document.getElementById("page").contentDocument.documentElement;
        document.title = JSON.stringify({width: root.scrollWidth});
    }"""
    wrapper = folder / "wrapper.html"
    wrapper.write_text(f"<!doctype html><script>{script}</script>{frame}")
    found = re.search(r"<title>(.*?)</title>", browse(wrapper, "--dump-dom").stdout)
    assert found, "the wrapper did not measure"
    return json.loads(found[1])["width"]
