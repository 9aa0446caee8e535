"""Each public data set as published, in miniature, from its own files to a trained model."""

from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from polyhead.cli import app
from tests.adapters.miniatures import MINIATURES
from tests.conftest import TINY_SETTINGS

STUDY = """
name = "five public sets"
seeds = [0]
methods = ["local", "ffl"]
{sites}
"""


def polyhead(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, f"{arguments}: {done.output}\n{done.exception}"
    return done.output


@pytest.mark.slow
def test_the_five_sets_go_from_their_published_files_to_one_trained_backbone(tmp_path: Path) -> None:
    for name, write in MINIATURES.items():
        write(tmp_path / "published" / name)
        site = tmp_path / "sites" / name
        few = ("--min-positives", 5) if name == "padchest" else ()
        polyhead("import", name, tmp_path / "published" / name, "--out", site, *few)
        polyhead("check", site, "--size", 32)
        polyhead("prepare", site, "--size", 32)
    sites = "".join(
        f'[[site]]\nname = "{name}"\nmanifest = "{tmp_path}/sites/{name}/manifest.csv"\n' for name in MINIATURES
    )
    study, run = tmp_path / "study.toml", tmp_path / "run"
    study.write_text(STUDY.format(sites=sites) + TINY_SETTINGS)
    assert "error" not in polyhead("check", study).replace("0 errors", "")
    polyhead("run", study, "--out", run)
    metrics = pl.read_csv(run / "metrics.csv", infer_schema_length=None)
    assert set(metrics["site"]) == set(MINIATURES)
    for name in MINIATURES:
        assert (run / "models" / "ffl" / "seed-0" / name / "model.json").exists()
    report = (run / "report.html").read_text()
    assert "Choices behind the labels" in report
