"""What each site gained is said by the interval of its mean, with what it rests on and what it cost."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from polyhead.errors import RunError
from polyhead.report.gain import gained_over, gains
from polyhead.report.load import load_run
from polyhead.summary import print_gains
from tests.report.page import Page, rows, save

SITES = {"Lakeside": ("Pneumothorax", "Effusion", "Device"), "Rural": ("Pleural Effusion", "Nodule")}


def judge(run: Path, low: float, high: float, known: bool = True) -> None:
    """Let ffl's means against training alone have this interval, and every p-value be beyond any doubt."""
    table = rows(run, "comparisons.csv")
    for row in table:
        row |= {"p": "0.9", "p_holm": "0.9"}
        if (row["method"], row["reference"], row["finding"]) == ("ffl", "local", "mean"):
            row |= {"difference": str((low + high) / 2), "low": str(low), "high": str(high)}
            row |= {} if known else dict.fromkeys(("difference", "low", "high"), "")
    save(run / "comparisons.csv", table)


def leave_at_home(run: Path, silent: dict[str, str]) -> None:
    """Make a run the coordinator's: nothing of it lies there but what sites released."""
    (run / "at_home.json").write_text(json.dumps({"silent": silent}))
    (run / "sites.csv").unlink()
    for file in run.glob("predictions/*/*/*/test.parquet"):
        file.unlink()
    for name in ("metrics.csv", "comparisons.csv"):
        save(run / name, [row for row in rows(run, name) if row["site"] not in silent])


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.05, "gains"),
        (-0.05, -0.01, "loses"),
        (-0.01, 0.05, "cannot tell with n = 160 test images of 160 patients"),
        (0.0, 0.05, "cannot tell with n = 160 test images of 160 patients"),
    ],
)
def test_the_verdict_is_that_of_the_means_interval_alone(make_run, low, high, verdict):
    run = make_run(SITES)
    judge(run, low, high)
    found = [one for one in gains(load_run(run)) if one.method == "ffl"]
    assert [(one.site, one.verdict) for one in found] == [("Lakeside", verdict), ("Rural", verdict)]


def test_every_method_that_sites_join_in_has_a_line_and_the_last_comes_first(make_run):
    run = make_run(SITES, methods=("local", "conventional", "ffl", "central"))
    tables = load_run(run)
    assert gained_over(tables) == ("local", "conventional")
    found = gains(tables)
    assert [(one.site, one.method) for one in found] == [
        *(("Lakeside", "ffl"), ("Lakeside", "conventional"), ("Rural", "ffl"), ("Rural", "conventional"))
    ]
    differences = {
        (r["method"], r["reference"], r["site"]): r for r in rows(run, "comparisons.csv") if r["finding"] == "mean"
    }
    for one in found:
        for reference, text in zip(("local", "conventional"), one.over, strict=True):
            if reference == one.method:
                assert text == "–"
            else:
                value = float(differences[one.method, reference, one.site]["difference"])
                assert text.split()[0] == f"{value:+.3f}".replace("-", "−")


def test_the_cost_is_the_sum_over_all_rounds_and_seeds(make_run):
    run = make_run(SITES)
    ours = [row for row in rows(run, "rounds.csv") if row["method"] == "ffl"]
    here = [row for row in ours if row["site"] == "Rural"]
    found = next(one for one in gains(load_run(run)) if (one.site, one.method) == ("Rural", "ffl"))
    sent = sum(int(row["bytes_up"]) for row in here)
    assert len(here) == 24
    assert (found.sent, found.received) == (f"{sent / 1e6:.1f} MB",) * 2
    assert found.here == f"{sum(float(row['seconds']) for row in here):.0f} s"
    assert found.whole == f"{sum(float(row['seconds']) for row in ours):.0f} s"


def test_patients_are_counted_over_the_findings_that_are_compared(make_run):
    """Of Lakeside's three findings the device is one that no test image has; conventional predicts one of them."""
    run = make_run(SITES)
    table = rows(run, "comparisons.csv")
    for row in table:
        row |= {"low": "-0.1", "high": "0.1", "difference": "0.0"} if row["difference"] else {}
    save(run / "comparisons.csv", table)
    found = {(one.site, one.method): one.verdict for one in gains(load_run(run))}
    assert found["Lakeside", "conventional"] == "cannot tell with n = 160 test images of 160 patients"


def test_without_training_alone_nothing_can_be_said_and_the_other_gain_is_shown(make_run):
    run = make_run(SITES, methods=("conventional", "ffl"))
    first = gains(load_run(run))[0]
    assert first.verdict == "nothing can be said: the study trains no site alone"
    assert gained_over(load_run(run)) == ("conventional",)
    assert "(" in first.over[0]


def test_a_study_of_training_alone_says_that_there_is_nothing_to_say(make_run):
    run = make_run(SITES, methods=("local",))
    assert gains(load_run(run)) == []
    assert "Nothing can be said: the study trains no federated method." in printed(run, 100)


def test_a_site_without_a_mean_is_told_of(make_run):
    run = make_run(SITES)
    judge(run, 0, 0, known=False)
    verdict = "nothing can be said: no finding with both kinds of test images is predicted by both"
    assert {one.verdict for one in gains(load_run(run)) if one.method == "ffl"} == {verdict}


def test_hospitals_in_their_own_houses(make_run):
    run = make_run(SITES)
    judge(run, -0.1, 0.1)
    leave_at_home(run, {"Rural": "has released nothing."})
    found = {one.site: one for one in gains(load_run(run)) if one.method == "ffl"}
    assert found["Lakeside"].verdict == "cannot tell with n = about 160 test patients"
    assert found["Rural"].verdict == "nothing can be said: it has released nothing"
    assert (found["Rural"].over, found["Rural"].sent) == (("NA", "NA"), "269.6 MB")
    (run / "metrics.csv").unlink()
    with pytest.raises(RunError, match=r"metrics\.csv: missing. Make it: polyhead federation start STUDY.toml"):
        load_run(run)


def test_a_mean_that_was_withheld_is_said_to_be(make_run):
    run = make_run(SITES)
    leave_at_home(run, {})
    for name in ("metrics.csv", "comparisons.csv"):
        save(run / name, [row for row in rows(run, name) if row["finding"] != "mean"])
    assert {one.verdict for one in gains(load_run(run))} == {"nothing can be said: it released no mean"}


def printed(run: Path, width: int) -> str:
    text = io.StringIO()
    print_gains(run, Console(file=text, width=width))
    return text.getvalue()


def test_a_wide_terminal_has_a_line_for_each_and_a_narrow_one_the_same_words(make_run):
    run = make_run(SITES)
    judge(run, -0.01, 0.05)
    wide, narrow = printed(run, 240), printed(run, 80)
    assert len([line for line in wide.splitlines() if line.startswith(("Lakeside", "Rural"))]) == 4
    assert "Lakeside, ffl" in wide
    assert "cannot tell with n = 160 test images of 160 patients" in wide
    assert "+0.020 (−0.010 to +0.050)" in wide
    assert "\nffl " in narrow
    assert "\nffl " not in wide
    assert max(map(len, narrow.splitlines())) <= 80
    words = ([word.strip("(),─") for word in text.split()] for text in (wide, narrow))
    assert len({" ".join(sorted(filter(None, one))) for one in words}) == 1


def test_the_report_opens_with_it(make_run):
    from polyhead.report import write_report

    run = make_run(SITES)
    judge(run, 0.01, 0.05)
    shown = Page(write_report(run).read_text())
    assert shown.tables[0].attributes["id"] == "gains"
    first = shown.table("gains").records()[0]
    assert list(first)[:4] == ["Hospital", "Joining in", "Verdict", "Over local"]
    assert list(first.values())[:4] == ["Lakeside", "ffl", "gains", "+0.030 (+0.010 to +0.050)"]
