"""What a run directory lacks, or what cannot be trusted in it, is named."""

import re

import pytest

from polyhead.errors import PolyheadError, RunError
from polyhead.report import write_report
from tests.report.page import rows, save


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("study.toml", "polyhead run STUDY.toml --out"),
        ("environment.json", "polyhead run STUDY.toml --out"),
        ("sites.csv", "polyhead run STUDY.toml --out"),
        ("rounds.csv", "polyhead run STUDY.toml --out"),
        ("metrics.csv", "polyhead evaluate"),
        ("comparisons.csv", "polyhead evaluate"),
        ("predictions/ffl/seed-1/Rural/test.parquet", "polyhead run STUDY.toml --out"),
    ],
)
def test_a_missing_file_is_named_with_its_command(make_run, name, command):
    run = make_run()
    (run / name).unlink()
    with pytest.raises(RunError, match=re.escape(f"{run / name}: missing. Make it: {command} {run}")):
        write_report(run)
    assert not list(run.glob("*.html"))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("metrics.csv", "p,low", "p,lower", None),
        ("metrics.csv", ",low,", ",lower,", "no column 'low'"),
        ("metrics.csv", ",auroc,0.", ",auroc,x0.", "row 1, column 'value': 'x0"),
        ("metrics.csv", ",auroc,0.", ",auroc,inf0.", "column 'value'"),
        ("environment.json", "{", "[", "is damaged"),
        ("study.toml", "rounds =", "round =", "closest: rounds"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused(make_run, name, old, new, message):
    run = make_run()
    text = (run / name).read_text()
    (run / name).write_text(text.replace(old, new))
    if message is None:
        write_report(run)
        return
    with pytest.raises(PolyheadError, match=re.escape(message)) as caught:
        write_report(run)
    assert str(run / name) in str(caught.value)


def test_a_row_that_stands_twice_is_refused(make_run):
    run = make_run()
    table = rows(run, "metrics.csv")
    save(run / "metrics.csv", [*table, table[0] | {"value": "0.123"}])
    with pytest.raises(RunError, match="One row for each method, seed, site, finding, metric"):
        write_report(run)


def test_a_failure_keeps_the_old_page(make_run):
    run = make_run()
    before = write_report(run).read_bytes()
    (run / "metrics.csv").write_text("nothing\n")
    with pytest.raises(RunError):
        write_report(run)
    assert (run / "report.html").read_bytes() == before


def test_several_seeds_need_their_mean(make_run):
    run = make_run()
    save(run / "metrics.csv", [row for row in rows(run, "metrics.csv") if row["seed"] != "all"])
    with pytest.raises(RunError, match="no rows with seed 'all'"):
        write_report(run)
