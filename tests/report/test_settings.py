"""The choices behind the labels, as the report repeats them."""

import json
from pathlib import Path

import pytest

from polyhead.begun import keep_settings
from polyhead.errors import RunError
from polyhead.report import write_report
from polyhead.report.load import load_run
from polyhead.report.settings import setting_rows, source_rows
from tests.report.page import Page

CHOICES = {"Rural": {"adapter": "table", "uncertain": "blank"}, "Lakeside": {"uncertain": "<b>negative</b>"}}


def record(run: Path, contents: object) -> Path:
    (run / "sources.json").write_text(json.dumps(contents))
    return run


def test_every_choice_is_a_row_and_sites_come_in_the_study_s_order(make_run):
    rows = source_rows(load_run(record(make_run(), CHOICES)))
    assert [tuple(row.values()) for row in rows] == [
        ("Lakeside", "uncertain", "<b>negative</b>"),
        ("Rural", "adapter", "table"),
        ("Rural", "uncertain", "blank"),
    ]


def test_the_page_shows_them_as_text(make_run):
    page = Page(write_report(record(make_run(), CHOICES)).read_text())
    assert page.table("source-table").rows[1:] == [
        ["Lakeside", "uncertain", "<b>negative</b>"],
        ["Rural", "adapter", "table"],
        ["Rural", "uncertain", "blank"],
    ]


def test_a_run_without_them_shows_nothing(make_run):
    text = write_report(make_run()).read_text()
    assert "source-table" not in text
    assert "behind the labels" not in text


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ([], r"sources\.json: is damaged: found a list; an object is needed"),
        ({"Rural": "blank"}, r"sources\.json, key 'Rural': found 'blank'; an object is needed"),
    ],
)
def test_a_faulty_record_is_refused_with_its_place(make_run, contents, message):
    with pytest.raises(RunError, match=message):
        write_report(record(make_run(), contents))


def test_a_setting_left_blank_is_what_the_run_was_trained_with(make_run):
    run = make_run()
    keep_settings(run / "settings.json", load_run(run).study)
    kept = json.loads((run / "settings.json").read_text())
    kept["training"]["batch_size"] += 1
    (run / "settings.json").write_text(json.dumps(kept))
    (row,) = (row for row in setting_rows(load_run(run)) if row["key"] == "training.batch_size")
    assert (row["value"], row["origin"]) == (str(kept["training"]["batch_size"]), "default")
