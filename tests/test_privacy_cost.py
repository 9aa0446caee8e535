"""What a study with noise costs its sites is said before training, kept in the run, and shown in the report."""

from io import StringIO
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from polyhead.accountant import Steps, epsilon_of
from polyhead.config import Federation
from polyhead.federation.methods import METHODS
from polyhead.manifest import read_manifest
from polyhead.privacy_cost import cost_table, costly
from polyhead.study import run_study
from polyhead.study_file import load_study
from tests.conftest import TINY_SETTINGS, write_two_sites

pytest.importorskip("opacus", reason="needs the extra: pip install '.[privacy]' in Polyhead's folder")

NOISE = "\n[privacy]\nnoise = 2.0\ndelta = 1e-4\n"


def write_study(folder: Path, methods: str) -> Path:
    sites = write_two_sites(folder, 24, 8, 8)
    file = folder / "study.toml"
    rest = TINY_SETTINGS.replace("image_size = 32", 'image_size = 32\nnorm = "group"').replace("_size = 8", "_size = 4")
    file.write_text(f'name = "x"\nseeds = [0, 1]\nmethods = {methods}\n{sites}{rest}{NOISE}')
    return file


def test_of_each_site_and_method_that_shares_and_of_all_of_them(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, '["local", "conventional", "ffl"]'))
    table = cost_table(study, {"a": 100, "b": 2})
    assert table.select("site", "method", "seeds", "steps").rows() == [
        (site, *row) for site in "ab" for row in (("conventional", 1, 2), ("ffl", 1, 2), ("all", 2, 8))
    ]
    assert table["rate"].to_list() == [0.04] * 3 + [1.0] * 3
    assert table["epsilon"][2] == pytest.approx(epsilon_of([Steps(2.0, 0.04, 8)], 1e-4), abs=1e-4)


def test_a_run_says_it_and_keeps_it_and_its_report_shows_it(tmp_path: Path) -> None:
    said = StringIO()
    study = write_study(tmp_path, '["local", "ffl", "masked"]')
    page = run_study(study, tmp_path / "run", Console(file=said, width=200)).read_text()
    table = pl.read_csv(tmp_path / "run/privacy.csv")
    train = read_manifest(tmp_path / "a/manifest.csv").split("train")
    assert table.filter(pl.col("site") == "a")["patients"].to_list() == [train["patient_id"].n_unique()] * 3
    # A head of all findings is part of the same vector, and its blanks are masked: it costs what any head does.
    assert table.filter(pl.col("site") == "a")["epsilon"][0] == table.filter(pl.col("site") == "a")["epsilon"][1]
    assert f"Privacy, a, ffl: epsilon {table['epsilon'][0]:.2f} at delta 0.0001" in said.getvalue()
    assert 'id="privacy-table"' in page
    rounds = pl.read_csv(tmp_path / "run/rounds.csv", infer_schema=False)
    assert set(rounds["loss"]) == {"nan"}


def test_a_run_without_noise_says_nothing_of_it(tmp_path: Path) -> None:
    study = write_study(tmp_path, '["ffl"]')
    study.write_text(study.read_text().replace("noise = 2.0", "noise = 0.0").replace("seeds = [0, 1]", "seeds = [0]"))
    page = run_study(study, tmp_path / "run", Console(quiet=True)).read_text()
    assert not (tmp_path / "run/privacy.csv").exists()
    assert 'id="privacy-table"' not in page


def test_every_method_costs_but_those_that_send_no_update() -> None:
    """A pull, a fixed head and a rule of the server change nothing of what is drawn and sent."""
    assert set(METHODS) - set(costly(list(METHODS), Federation())) == {"local", "central"}
