"""The report tells which rounds did not go well, and counts each round once."""

import math
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.federation.rounds import RoundRow, append_rounds
from polyhead.report.html import write_report
from polyhead.report.load import RunTables, load_run
from polyhead.report.training_tables import setback_table, traffic_table
from tests.report.page import Page

AVERAGED, SENT = "averaged", 1_000_000


def row(number: int, site: str = "Rural", status: str = AVERAGED, seconds: float = 2.0) -> RoundRow:
    failed = status.startswith("failed")
    return RoundRow(number, site, math.nan if failed else 0.5, seconds, 0 if failed else SENT, SENT, status)


def rewritten(run: Path, *rows: RoundRow, method: str = "ffl", seed: int = 0) -> Path:
    """Give a run other rounds, written as a run writes them."""
    (run / "rounds.csv").unlink(missing_ok=True)
    append_rounds(run, method, seed, rows)
    return run


@pytest.fixture
def run(make_run) -> Path:
    return make_run()


def setbacks(run: Path) -> list[tuple[str, ...]]:
    return [tuple(str(value) for value in row.values()) for row in setback_table(load_run(run))]


def test_a_run_that_went_well_has_no_setbacks(run):
    rewritten(run, row(0), row(1), row(2, status="alone"), row(0, "Lakeside", "no training images"))
    assert setback_table(load_run(run)) == []
    page = write_report(run).read_text()
    assert 'id="setbacks"' not in page


def test_setbacks_have_their_count_and_the_first_round_and_reason(run):
    rewritten(
        run,
        row(3, status="left out: second reason"),
        row(1, status="left out: first reason: x"),
        row(2),
        row(5, status="failed: KeyError."),
        row(9, status="left out: third reason"),
        row(4, "Lakeside", "clipped: far"),
        row(4, "Northern Hospital", "repeated: 1 of 3 sites"),
    )
    append_rounds(run, "conventional", 1, [row(7, status="failed: at seed 1")])
    append_rounds(run, "conventional", 0, [row(8, status="failed: at seed 0")])
    append_rounds(run, "local", 0, [row(8, status="failed: at local")])
    table = [list(one.values()) for one in setback_table(load_run(run))]
    assert table == [
        ["local", "0", "Rural", "failed", "1", "8", "failed: at local"],
        ["conventional", "0", "Rural", "failed", "1", "8", "failed: at seed 0"],
        ["conventional", "1", "Rural", "failed", "1", "7", "failed: at seed 1"],
        ["ffl", "0", "Lakeside", "clipped", "1", "4", "clipped: far"],
        ["ffl", "0", "Northern Hospital", "repeated", "1", "4", "repeated: 1 of 3 sites"],
        ["ffl", "0", "Rural", "failed", "1", "5", "failed: KeyError."],
        ["ffl", "0", "Rural", "left out", "3", "1", "left out: first reason: x"],
    ]


def test_the_page_shows_them(run):
    rewritten(run, row(3, status="left out: one NaN"), row(4, status="left out: two"), row(5))
    (shown,) = Page(write_report(run).read_text()).table("setbacks").records()
    assert [shown[name] for name in ("Method", "Site", "Rounds", "First")] == ["ffl", "Rural", "2", "3"]
    assert shown["What happened first"] == "left out: one NaN"


def traffic(run: Path) -> dict[str, str]:
    (found,) = traffic_table(load_run(run))
    return found


def test_a_round_that_was_repeated_is_one_round(run):
    repeated = "repeated: 1 of 3 sites"
    rewritten(run, row(0), row(1, status=repeated), row(1, status=repeated), row(1), row(2), row(12, seconds=100.0))
    found = traffic(run)
    assert found["rounds"] == "3"
    assert found["troubles"] == "2 repeated"
    assert found["total"] == "110 s"


def test_seeds_have_rounds_of_their_own(run):
    rewritten(run, row(0), row(1))
    append_rounds(run, "ffl", 1, [row(0), row(1, status="failed: x"), row(2, status="left out: y")])
    found = traffic(run)
    assert (found["rounds"], found["troubles"]) == ("5", "1 failed, 1 left out")


HOSTILE = "left out: <script>alert(1)</script> &amp; {{ 7*7 }} \x1b[2J \" ' | </table> is not shared"


def test_hostile_reasons_are_text_and_nothing_else(run):
    rewritten(run, row(1, status=HOSTILE), row(2, status=f"failed: {'x' * 5000}"))
    html = write_report(run).read_text()
    assert "<script>alert" not in html
    assert "\x1b" not in html
    # The reader's own checks: every element closed, in order.
    failed, left_out = Page(html).table("setbacks").records()
    assert left_out["What happened first"] == HOSTILE.replace("\x1b", "\\x1b")
    assert len(failed["What happened first"]) == 300


STATUSES = st.one_of(
    st.sampled_from([AVERAGED, "alone", "no training images", "repeated: 1 of 3 sites"]),
    st.builds("{}: {}".format, st.sampled_from(["left out", "failed", "clipped"]), st.text(max_size=20)),
)
ROWS = st.lists(st.tuples(st.integers(0, 11), st.sampled_from(["Rural", "Lakeside"]), STATUSES), max_size=12)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> RunTables:
    from tests.report.conftest import SITES, Plan, build_run

    folder = tmp_path_factory.mktemp("made") / "run"
    build_run(folder, Plan(SITES))
    return load_run(folder)


@given(ROWS)
def test_every_bad_row_is_counted_once_and_order_changes_nothing(loaded, rows):
    def table(rows):
        columns = {"method": "ffl", "seed": "0", "seconds": 1.0, "bytes_up": 1.0, "bytes_down": 1.0}
        made = [{**columns, "round": float(number), "site": site, "status": status} for number, site, status in rows]
        schema = {"method": pl.String, "seed": pl.String, "round": pl.Float64, "site": pl.String, "status": pl.String}
        schema |= dict.fromkeys(("seconds", "bytes_up", "bytes_down"), pl.Float64)
        return RunTables(**{**vars(loaded), "rounds": pl.DataFrame(made, schema=schema)})

    found = setback_table(table(rows))
    bad = [one for one in rows if one[2].partition(":")[0] in ("left out", "failed", "clipped", "repeated")]
    assert sum(int(one["count"]) for one in found) == len(bad)
    assert len({tuple(one.values())[:4] for one in found}) == len(found)
    for one in found:
        of = [n for n, site, status in bad if (site, status.partition(":")[0]) == (one["site"], one["kind"])]
        assert int(one["round"]) == min(of)
    assert setback_table(table(rows)) == setback_table(table(rows[::-1]))
    assert traffic_table(table(rows)) == traffic_table(table(rows[::-1]))
    for line in traffic_table(table(rows)):
        assert int(line["rounds"]) == len({number for number, site, _ in rows if site == line["site"]})
