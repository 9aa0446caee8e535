"""The figures: what they draw, and that they never read a name as anything but text."""

import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest

from polyhead.federation.methods import METHODS
from polyhead.report.plots import (
    Curve,
    Dots,
    ForestRow,
    dot_plot,
    forest_plot,
    method_styles,
    roc_plot,
    training_plot,
)

STYLES = method_styles(("local", "conventional", "ffl"))
ODD = "$\\frac{1}$ <b>_&"  # not valid TeX: an error if it were read as such


def parse(svg: str) -> ET.Element:
    return ET.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1))  # noqa: S314 - our own figure


def texts(svg: str) -> list[str]:
    return ["".join(one.itertext()) for one in parse(svg).iter("text")]


def forest(rows, alt="a figure"):
    return forest_plot(rows, ("better alone", "better together"), 0.1, alt)


@pytest.mark.parametrize(
    "svg",
    [
        forest([ForestRow(ODD, text=ODD, difference=0.01)], ODD),
        dot_plot([Dots(ODD, (("ffl", 0.8, 0.7, 0.9),))], STYLES, (0.5, 1), ODD),
        roc_plot([Curve("ffl", [0, 1], [0, 1])], STYLES, ODD),
        training_plot([Curve("ffl", [0, 1], [1, 0.5])], STYLES, ODD),
    ],
    ids=["forest", "dots", "roc", "training"],
)
def test_names_are_shown_literally(svg):
    assert parse(svg).get("aria-label") == ODD
    assert "<b>" not in svg
    assert "http" not in svg
    assert texts(svg)


def test_a_forest_plot_names_directions_rows_and_numbers():
    found = texts(forest([ForestRow("Site", heading=True), ForestRow(ODD, "12", "+0.010", 0.01, -0.01, 0.03, (0.02,))]))
    assert {"← better alone", "better together →", "Site", ODD, "12", "+0.010"} <= set(found)


def test_gains_and_losses_are_drawn_alike():
    gain, loss = (forest([ForestRow("F", "", "", s * 0.05, s * 0.02, s * 0.08)]) for s in (1, -1))
    assert styles(gain) == styles(loss)


def styles(svg):
    return sorted(one.get("style") or "" for one in parse(svg).iter("path"))


def test_a_row_without_a_number_draws_no_mark():
    empty, blank = (forest([ForestRow("F", text=text)]) for text in ("NA", ""))
    assert len(list(parse(empty).iter("path"))) == len(list(parse(blank).iter("path")))
    full = forest([ForestRow("F", "", "", 0.01, 0.0, 0.02)])
    assert len(list(parse(full).iter("path"))) > len(list(parse(empty).iter("path")))


def test_long_names_keep_their_figure():
    found = texts(forest([ForestRow("An enlarged cardiomediastinal silhouette of unknown origin " * 3, "5")]))
    lines = [text for text in found if "enlarged" in text or text.endswith("…")]
    assert len(lines) == 2
    assert max(map(len, lines)) <= 22


def test_colours_differ_and_do_not_depend_on_the_company():
    together = method_styles(("other", "local", "conventional", "ffl", "another"))
    assert len({style.colour for style in together.values()}) == 5
    assert len({style.dashes for style in together.values()}) == 5
    assert together["ffl"] == STYLES["ffl"] == method_styles(("ffl",))["ffl"]


def test_every_method_looks_like_no_other():
    styles = method_styles(tuple(METHODS)).values()
    for part in ("colour", "dashes", "marker"):
        assert len({getattr(style, part) for style in styles}) == len(METHODS)


def test_colours_stand_out_from_the_paper():
    for style in method_styles(tuple(METHODS)).values():
        assert contrast_on_white(style.colour) >= 3


def contrast_on_white(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)


def test_drawing_leaves_the_global_settings_alone():
    before = dict(mpl.rcParams)
    forest([ForestRow("F", difference=0.01)])
    assert dict(mpl.rcParams) == before
