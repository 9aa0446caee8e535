"""The page says what the files say, and nothing in them can do harm."""

import json
import random
import re
from pathlib import Path

import pytest

from polyhead.report import write_report
from polyhead.report.plots import method_styles
from tests.report.page import Page, rows, save

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$x_1$ & {{ 7*7 }}", "_</text></svg>")


def page(run: Path) -> Page:
    return Page(write_report(run).read_text())


def rounded(text: str) -> str:
    if not text:
        return "NA"
    shown = f"{float(text):.3f}"
    return ("0.000" if float(shown) == 0 else shown).replace("-", "−")


def signed(text: str) -> str:
    shown = rounded(text)
    return f"+{shown}" if text and float(text) > 0 and shown != "0.000" else shown


def with_interval(row: dict[str, str]) -> str:
    if not row["low"]:
        return rounded(row["value"])
    return f"{rounded(row['value'])} ({rounded(row['low'])} to {rounded(row['high'])})"


def label(finding: str) -> str:
    return "mean over findings" if finding == "mean" else finding


def test_every_auroc_is_the_files(make_run):
    run = make_run()
    shown = {(one["group"], one["Finding"]): one for one in page(run).table("auroc-table").records()}
    expected = [row for row in rows(run, "metrics.csv") if row["seed"] == "all" and row["metric"] == "auroc"]
    assert len(expected) > 15
    assert {(row["site"], label(row["finding"])) for row in expected} == set(shown)
    for row in expected:
        cells = shown[row["site"], label(row["finding"])]
        assert cells[row["method"]] == with_interval(row)
        assert cells["Patients"] == row["patients"]
        assert (cells["With"], cells["Without"]) == (row["positives"], row["negatives"])


def test_every_seed_is_the_files(make_run):
    run = make_run()
    shown = {(one["group"], one["Finding"]): one for one in page(run).table("seed-table").records()}
    metrics = {tuple(row.values())[:5]: row for row in rows(run, "metrics.csv") if row["metric"] == "auroc"}
    for (method, seed, site, finding, _), row in metrics.items():
        if seed != "all":
            assert shown[site, label(finding)][method].split()[int(seed)] == rounded(row["value"])


def test_every_operating_point_is_the_files(make_run):
    run = make_run()
    shown = {(one["group"], one["Finding"], one["Method"]): one for one in page(run).table("operating-table").records()}
    metrics = rows(run, "metrics.csv")
    expected = [row for row in metrics if row["seed"] == "all" and row["metric"] != "auroc"]
    assert len(expected) == 2 * len(shown)
    for row in expected:
        key = row["site"], row["finding"], row["method"]
        assert shown[key][row["metric"].capitalize()] == with_interval(row)
        of_model = [one for one in metrics if (one["site"], one["finding"], one["method"]) == key]
        thresholds = [rounded(one["value"]) for one in of_model if one["metric"] == "threshold"]
        assert shown[key]["Thresholds"] == ", ".join(thresholds)


def test_every_comparison_is_the_files(make_run):
    run = make_run()
    shown = {}
    for table in page(run).tables:
        if "data-reference" in table.attributes:
            pair = table.attributes["data-method"], table.attributes["data-reference"]
            shown |= {(*pair, one["group"], one["Finding"]): one for one in table.records()}
    expected = rows(run, "comparisons.csv")
    assert len(expected) == len(shown) > 15
    for row in expected:
        cells = shown[row["method"], row["reference"], row["site"], label(row["finding"])]
        found = [cells[name] for name in ("Difference", "95\xa0% from", "to")]
        assert found == [signed(row[name]) for name in ("difference", "low", "high")]
        assert cells["p"] == small(row["p"])
        assert cells["p (Holm)"] == ("" if row["finding"] == "mean" else small(row["p_holm"]))
        assert cells[row["method"]] == expected_verdict(row)


def small(p: str) -> str:
    return "<0.001" if p and float(p) < 0.0005 else rounded(p)


def expected_verdict(row: dict[str, str]) -> str:
    if not row["low"]:
        return "NA"
    if row["finding"] != "mean" and float(row["p_holm"]) >= 0.05:
        return "cannot tell"
    return "gains" if float(row["low"]) > 0 else "loses" if float(row["high"]) < 0 else "cannot tell"


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.01, 0.05, "gains"), (-0.05, -0.01, "loses"), (-0.01, 0.05, "cannot tell"), (0.0, 0.05, "cannot tell")],
)
def test_the_summary_judges_by_the_interval(make_run, low, high, word):
    run = make_run({"Solo": ("A", "B")}, methods=("local", "ffl"))
    table = rows(run, "comparisons.csv")
    mean = next(row for row in table if row["finding"] == "mean")
    mean |= {"difference": str((low + high) / 2), "low": str(low), "high": str(high), "p": "0.25"}
    save(run / "comparisons.csv", table)
    shown = page(run)
    text = " ".join("".join(shown.text).split())
    line = shown.table("gains").records()[0]
    assert line["Over local"] == f"{signed(str((low + high) / 2))} ({signed(str(low))} to {signed(str(high))})"
    number = " with n = 160 test images of 160 patients"
    assert line["Verdict"] == word + number * (word == "cannot tell")
    counts = {"gains": "gains at 1 of 1 hospital and loses at 0", "loses": "gains at 0 of 1 hospital and loses at 1"}
    assert counts.get(word, "gains at 0 of 1 hospital and loses at 0; at 1 the data cannot tell") in text


def test_the_matrix_shows_who_annotates_what(make_run):
    run = make_run()
    first, *others = page(run).table("matrix").records()
    assert (first["Finding"], first["Sites"]) == ("Pleural Effusion", "3")
    training = {(r["site"], r["canonical"]): r for r in rows(run, "sites.csv") if r["split"] == "train"}
    for one in (first, *others):
        for site in ("Lakeside", "Northern Hospital", "Rural"):
            row = training.get((site, one["Finding"]))
            assert one[site] == (f"{row['positives']} / {row['negatives']}" if row else "–")


def test_every_setting_is_shown_with_its_origin(make_run):
    shown = {row["Setting"]: row for row in page(make_run()).table("setting-table").records()}
    assert shown["training.learning_rate"]["Value"] == "0.0005"
    assert shown["training.learning_rate"]["From"] == "study file"
    assert (shown["training.augment.rotation"]["Value"], shown["training.augment.rotation"]["From"]) == (
        "7.0",
        "default",
    )
    assert shown["site 2.manifest"]["Value"] == "../sites/1/manifest.csv"
    assert shown["seeds"]["Value"] == "0, 1"


def test_what_a_recipe_sets_is_shown_as_the_recipes(make_run):
    run = make_run()
    text = (run / "study.toml").read_text()
    (run / "study.toml").write_text(text.replace("seeds =", 'recipe = "paper"\nseeds =', 1))
    shown = {row["Setting"]: (row["Value"], row["From"]) for row in page(run).table("setting-table").records()}
    assert shown["recipe"] == ("paper", "study file")
    assert shown["training.schedule"] == ("constant", "recipe paper")
    assert shown["training.augment.rotation"] == ("10.0", "recipe paper")
    # What the study says itself, and what neither says.
    assert shown["training.learning_rate"] == ("0.0005", "study file")
    assert shown["federation.trim"] == ("0.2", "default")


def test_the_environment_is_shown(make_run):
    shown = {row["Item"]: row["Value"] for row in page(make_run()).table("environment-table").records()}
    assert shown["versions.torch"] == "2.13.0"
    assert shown["commit"] == "–"


def test_hostile_names_stay_text(make_run):
    run = make_run({"Solo": HOSTILE})
    (run / "environment.json").write_text(json.dumps({HOSTILE[0]: HOSTILE[1]}))
    toml = (run / "study.toml").read_text().replace("A made-up study", "</title><script>alert(1)</script>")
    (run / "study.toml").write_text(toml)
    shown = page(run)
    assert not {"script", "img", "iframe", "object", "embed", "foreignobject"} & {tag for tag, _ in shown.elements}
    assert not [name for _, attributes in shown.elements for name in attributes if name.startswith("on")]
    assert not shown.open
    text = "".join(shown.text)
    for name in HOSTILE:
        assert name in text


def test_nothing_is_loaded_from_anywhere(make_run):
    html = write_report(make_run()).read_text()
    shown = Page(html)
    references = [
        value
        for _, attributes in shown.elements
        for name, value in attributes.items()
        if name.rpartition(":")[2] in ("src", "href", "srcset", "data", "action", "poster")
    ]
    assert references
    assert all(value.startswith("#") for value in references)
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", html)
    policy = next(attributes["content"] for _, attributes in shown.elements if "http-equiv" in attributes)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_ids_are_unique_and_links_lead_somewhere(make_run):
    elements = page(make_run()).elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in elements:
        for name in ("href", "xlink:href"):
            assert name not in attributes or attributes[name].removeprefix("#") in ids


def test_figures_have_text_in_their_place(make_run):
    figures = [attributes for tag, attributes in page(make_run()).elements if tag == "svg"]
    described = [one["aria-label"] for one in figures if one.get("role") == "img"]
    assert len(described) == len(set(described)) == 2 + 3 + 7 + 3  # forest, AUROC, ROC (one finding has none), training
    assert all(one.get("aria-hidden") == "true" for one in figures if "aria-label" not in one)


def test_same_files_same_bytes_in_any_order_of_rows(make_run):
    run = make_run()
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    for name in ("sites.csv", "rounds.csv", "metrics.csv", "comparisons.csv"):
        table = rows(run, name)
        random.Random(name).shuffle(table)  # noqa: S311 - an order, not a secret
        save(run / name, table)
    assert write_report(run).read_bytes() == first


def test_one_method_is_not_compared(make_run):
    run = make_run(methods=("local",))
    (run / "comparisons.csv").unlink()
    shown = page(run)
    assert "Nothing is compared" in "".join(shown.text)
    assert not [one for one in shown.tables if "data-reference" in one.attributes]
    assert ("a", {"href": "#gain"}) not in shown.elements


@pytest.mark.parametrize("methods", [("local", "ffl"), ("local", "conventional"), ("ffl", "own_$method$")])
def test_the_last_method_is_compared_with_each_other(make_run, methods):
    text = "".join(page(make_run(methods=methods)).text)
    assert f"{methods[1]} minus {methods[0]}" in text


def test_one_seed_stands_for_all(make_run):
    run = make_run(seeds=(7,))
    expected = page(run).table("auroc-table").rows
    save(run / "metrics.csv", [row for row in rows(run, "metrics.csv") if row["seed"] != "all"])
    shown = page(run)
    assert shown.table("auroc-table").rows == expected
    assert "Every seed singly" not in "".join(shown.text)


def test_a_finding_of_one_class_has_no_number(make_run):
    run = make_run({"Solo": ("Device",)}, methods=("local", "ffl"))
    first, mean = page(run).table("auroc-table").records()
    assert (first["local"], first["ffl"], mean["ffl"]) == ("NA", "NA", "NA")


def test_means_over_other_findings_are_not_set_side_by_side(make_run):
    run = make_run({"A": ("Nodule", "Effusion"), "B": ("Effusion",)})
    html = write_report(run).read_text()
    assert "over 1 finding<" in html
    colours = [method_styles(("local", "conventional", "ffl"))[name].colour for name in ("ffl", "conventional")]
    at_a = html.split("AUROC by method at A.")[1].split("</svg>")[0]
    marks = [len(re.findall(rf"<use [^>]*{colour}", at_a)) for colour in colours]
    assert marks == [3, 1]  # two findings and their mean; the shared finding alone


def test_rounds_that_went_wrong_are_counted(make_run):
    shown = {(one["Method"], one["Site"]): one for one in page(make_run()).table("traffic").records()}
    assert shown["ffl", "Rural"]["Went wrong"] == "2 no reply"
    assert shown["ffl", "Lakeside"]["Sent a round"] == "11.2 MB"
    assert (shown["local", "Rural"]["Went wrong"], shown["local", "Rural"]["Sent a round"]) == ("none", "0")
