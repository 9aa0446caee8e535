"""The demonstration, with fewer rounds."""

from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from polyhead import demo
from polyhead.manifest import read_manifest
from polyhead.study_file import parse_study


@pytest.mark.slow
def test_the_demo_runs_from_nothing_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join("rounds = 1" if line.startswith("rounds") else line for line in demo._study_text().splitlines())
    monkeypatch.setattr(demo, "_study_text", lambda: text)
    report = demo.run_demo(tmp_path / "demo", Console(quiet=True))
    assert report == tmp_path / "demo/run/report.html"
    sites = parse_study(text, tmp_path / "demo", "demo.toml").site
    train = {site.name: read_manifest(site.manifest).split("train").height for site in sites}
    assert len(train) == 3
    assert min(train.values()) == 150
    methods = pl.read_csv(tmp_path / "demo/run/metrics.csv", schema_overrides={"seed": pl.String})["method"]
    assert set(methods) == {"local", "conventional", "ffl"}
    images = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo/sites").rglob("*.png")}
    demo.run_demo(tmp_path / "demo", Console(quiet=True))
    assert {path: path.stat().st_mtime_ns for path in images} == images
