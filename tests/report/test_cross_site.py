"""The matrix of released heads, as the page shows it: every number of the table, in its place, and no other."""

import io

import polars as pl
import pytest
from rich.console import Console

from polyhead.report import write_report
from polyhead.report.cross_site import cross_site_tables
from polyhead.report.load import load_run
from polyhead.summary import _print_cross_site
from tests.report.page import Page, save

SITES = {"Lakeside": ("Effusion", "Device"), "Rural": ("Pleural Effusion", "Nodule"), "Village": ("Nodule",)}
EMPTY = dict.fromkeys(("auroc", "low", "high", "own", "difference", "difference_low", "difference_high"), "")


def row(head, site, finding, seed="all", **changed):
    key = {"method": "ffl", "seed": seed, "head_site": head, "data_site": site, "finding": finding}
    counts = {"positives": "12", "negatives": "1500", "patients": "900"}
    return key | EMPTY | {"auroc": "0.71", "low": "0.6", "high": "0.8"} | counts | changed


@pytest.fixture
def run(make_run):
    folder = make_run(SITES)
    toml = (folder / "study.toml").read_text()
    for place in ("0", "1"):
        path = f'"../sites/{place}/manifest.csv"'
        toml = toml.replace(path, f"{path}\nrelease_head = true")
    (folder / "study.toml").write_text(toml)
    own = {"own": "0.75", "difference": "-0.04", "difference_low": "-0.1", "difference_high": "0.02"}
    cells = [
        row("Lakeside", "Rural", "Pleural Effusion", **own),
        row("Rural", "Lakeside", "Pleural Effusion", **EMPTY | {"positives": "0"}),
        row("Rural", "Village", "Nodule", auroc="0.93"),
        row("Lakeside", "Village", "Pleural Effusion", auroc="0.42"),
        row("Rural", "Village", "Nodule", seed="0", auroc="0.111"),
    ]
    save(folder / "cross_site.csv", cells)
    return folder


def test_every_cell_stands_in_its_place(run):
    write_report(run)
    html = (run / "report.html").read_text()
    page = Page(html)
    records = page.table("cross-site-1").records()
    assert [(one["group"], one["Head of"]) for one in records] == [
        ("Nodule", "Rural"),
        ("Pleural Effusion", "Lakeside"),
        ("Pleural Effusion", "Rural"),
    ]
    nodule, lakeside, rural = records
    assert nodule["on Village"].startswith("0.930 (0.600 to 0.800)")
    assert nodule["on Lakeside"].strip() == "–"
    assert lakeside["on Rural"].startswith("0.710 (0.600 to 0.800)")
    assert rural["on Lakeside"].startswith("NA")
    text = " ".join("".join(page.text).split())
    assert "against its own: −0.040 (−0.100 to +0.020)" in text
    assert "12 with, 1 500 without" in text
    assert "0.111" not in html
    assert html.count('<a href="#union">') == 1


def test_a_head_at_home_is_the_metric_of_its_own_site(run):
    tables = load_run(run)
    found = cross_site_tables(tables)[0]["groups"][0]["rows"][0]
    at_home = found["cells"][list(tables.sites).index("Rural")]
    estimate = tables.metric("ffl", "all", "Rural", "Nodule", "auroc")
    assert at_home["home"]
    assert at_home["text"].startswith(f"{estimate.value:.3f} (")


def counted(run, site, finding, split, **changed):
    """Change what is counted of a finding's labels at a site."""
    table = pl.read_csv(run / "sites.csv")
    here = (pl.col("site") == site) & (pl.col("finding") == finding) & (pl.col("split") == split)
    table.with_columns(
        **{name: pl.when(here).then(value).otherwise(pl.col(name)) for name, value in changed.items()}
    ).write_csv(run / "sites.csv")


def cell_of(run, finding, head, site):
    tables = load_run(run)
    (group,) = [one for one in cross_site_tables(tables)[0]["groups"] if one["finding"] == finding]
    (line,) = [one for one in group["rows"] if one["head"] == head]
    return line["cells"][list(tables.sites).index(site)]


def test_who_trained_a_finding_is_seen_by_its_training_images_not_by_its_test_images(run):
    """Test images of one class leave no number; that the site has a head of its own is so all the same."""
    assert cell_of(run, "Pleural Effusion", "Rural", "Lakeside")["text"] == "NA"
    assert cell_of(run, "Pleural Effusion", "Rural", "Lakeside")["trained"]
    assert not cell_of(run, "Pleural Effusion", "Lakeside", "Village")["trained"]


def test_a_head_that_could_learn_nothing_is_none_to_be_held_against(run):
    assert cell_of(run, "Pleural Effusion", "Lakeside", "Rural")["trained"]
    counted(run, "Rural", "Pleural Effusion", "train", positives=0)
    assert not cell_of(run, "Pleural Effusion", "Lakeside", "Rural")["trained"]
    write_report(run)
    assert "against its own: −0.040" not in (run / "report.html").read_text()


def test_the_terminal_tells_last_of_what_nothing_is_known(run):
    own = {"own": "0.75", "difference": "-0.04", "difference_low": "-0.1", "difference_high": "0.02"}
    cells = [row("Rural", "Lakeside", "Pleural Effusion", **EMPTY), row("Rural", "Village", "Nodule")]
    found = pl.DataFrame([*cells, row("Lakeside", "Rural", "Pleural Effusion", **own)])
    said = Console(file=io.StringIO(), width=200)
    _print_cross_site(found.cast({"auroc": float, "low": float, "high": float, "own": float}, strict=False), said)
    lines = [line for line in said.file.getvalue().splitlines() if line.startswith("│")]
    shown = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    assert [(one[3], one[4][:5], one[5]) for one in shown] == [
        ("Village", "0.710", "-"),
        ("Rural", "0.710", "0.750"),
        ("Lakeside", "NA", "NA"),
    ]


@pytest.mark.parametrize(("auroc", "shade"), [(None, 0), (0.3, 0), (0.6, 1), (0.79, 2), (0.8, 3), (0.97, 4)])
def test_darker_is_better(auroc, shade, run):
    save(run / "cross_site.csv", [row("Rural", "Village", "Nodule", auroc="" if auroc is None else str(auroc))])
    tables = load_run(run)
    cell = cross_site_tables(tables)[0]["groups"][0]["rows"][0]["cells"][list(tables.sites).index("Village")]
    assert cell["shade"] == shade


def test_a_released_row_that_nobody_else_annotates_is_named(run):
    save(run / "cross_site.csv", [row("Lakeside", "Village", "Pleural Effusion")])
    assert cross_site_tables(load_run(run))[0]["untested"] == [
        "Device (Lakeside)",
        "Nodule (Rural)",
        "Pleural Effusion (Rural)",
    ]


def test_without_released_heads_there_is_no_section(make_run):
    run = make_run(SITES)
    write_report(run)
    assert "One model for all findings" not in (run / "report.html").read_text()
    assert 'id="union"' not in (run / "report.html").read_text()


def test_a_table_that_cannot_be_read_is_named_with_the_command_that_makes_it(run):
    save(run / "cross_site.csv", [{"method": "ffl"}])
    with pytest.raises(Exception, match=r"cross_site\.csv: no column 'seed'\. Make the file again: polyhead evaluate"):
        load_run(run)
