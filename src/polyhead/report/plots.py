"""The report's figures, as SVG text that can stand inside a page.

Text stays text (searchable, in the page's own font) and is never read as TeX: a finding called ``$x_1$`` is shown so.
One point of a figure is one pixel of the page.
"""

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = [
    "Curve",
    "Dots",
    "ForestRow",
    "MethodStyle",
    "dot_plot",
    "forest_plot",
    "method_styles",
    "roc_plot",
    "training_plot",
]

_INK, _SOFT, _LINE = "#1c2733", "#5a6675", "#d5dbe1"
_SIZE = 12.0
_GUTTER, _MARGIN = 166, 146  # left and right of a forest plot, for its words
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "font.family": ["DejaVu Sans"],
    "font.size": _SIZE,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _SOFT,
    "xtick.labelsize": 11,
    "ytick.color": _SOFT,
    "ytick.labelsize": 11,
}


@dataclass(frozen=True)
class MethodStyle:
    """How a method is drawn throughout the report; dashes and marker tell methods apart without colour."""

    colour: str
    dashes: tuple[float, ...]
    marker: str


# The first are Okabe and Ito's colours; all have a contrast of at least 3 to 1 on white.
_STYLES = {
    "local": MethodStyle("#c04f00", (5, 2), "s"),
    "conventional": MethodStyle("#008a65", (6, 2, 1.5, 2), "D"),
    "ffl": MethodStyle("#0068a8", (), "o"),
    "surgical": MethodStyle("#a8497f", (2, 1.5), "^"),
    "masked": MethodStyle("#7d6500", (4, 2, 1.5, 2, 1.5, 2), "P"),
    "central": MethodStyle("#4a4a4a", (8, 2, 1, 2, 1, 2), "v"),
    "fedbn": MethodStyle("#00788a", (10, 2), "X"),
    "fedprox": MethodStyle("#5b4fc4", (1, 1), "<"),
    "fedbabu": MethodStyle("#b3261e", (3, 1, 1, 1), ">"),
    "fedavgm": MethodStyle("#4f7a1f", (7, 1.5, 3, 1.5), "*"),
    "fedadam": MethodStyle("#6b4226", (1, 3), "p"),
}


@dataclass(frozen=True)
class ForestRow:
    """A line of a forest plot: a finding, a site's mean (`strong`), or a site's name (`heading`)."""

    label: str
    count: str = ""
    text: str = ""
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: tuple[float, ...] = ()
    strong: bool = False
    heading: bool = False


@dataclass(frozen=True)
class Dots:
    """A line of a dot plot: a finding with (method, value, low, high)."""

    label: str
    values: tuple[tuple[str, float, float, float], ...]
    strong: bool = False


@dataclass(frozen=True)
class Curve:
    """A line: of a method, drawn thin if it is one of several seeds."""

    method: str
    x: Sequence[float]
    y: Sequence[float]


def method_styles(methods: Sequence[str]) -> dict[str, MethodStyle]:
    """Return a style for each method: its own, or for a method unknown here one that is still free."""
    free = [style for name, style in _STYLES.items() if name not in methods] or list(_STYLES.values())
    unknown = [name for name in methods if name not in _STYLES]
    return {name: _STYLES[name] if name in _STYLES else free[unknown.index(name) % len(free)] for name in methods}


def forest_plot(rows: Sequence[ForestRow], directions: tuple[str, str], limit: float, alt: str) -> str:
    """Draw differences with their intervals about zero, on an axis as long to the left as to the right."""
    with rc_context({**_RC, "svg.hashsalt": alt}):
        figure, axes = _panel((500, 24.0 * len(rows) + 82), left=_GUTTER, right=_MARGIN, top=24, bottom=58)
        axes.set(xlim=(-limit, limit), ylim=(len(rows) - 0.5, -0.5), yticks=[])
        axes.set_xlabel("difference in AUROC", labelpad=20)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(4, symmetric=True))
        axes.axvline(0, color=_INK, linewidth=1)
        _forest_frame(axes, directions)
        for y, row in enumerate(rows):
            _forest_row(axes, y, row)
        return _svg(figure, alt)


def dot_plot(rows: Sequence[Dots], styles: Mapping[str, MethodStyle], limits: tuple[float, float], alt: str) -> str:
    """Draw values with their intervals, the methods below each other within a row."""
    methods = [name for name in styles if any(name == value[0] for row in rows for value in row.values)]
    with rc_context({**_RC, "svg.hashsalt": alt}):
        height = (14.0 * len(methods) + 12) * len(rows)
        figure, axes = _panel((500, height + 50), left=150, right=16, top=8, bottom=42)
        axes.set(xlim=limits, ylim=(len(rows) - 0.5, -0.5), yticks=[], xlabel="AUROC")
        axes.grid(axis="x", color=_LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        for y, row in enumerate(rows):
            _label(axes, y, row.label, row.strong, gutter=150, room=19)
            for method, value, low, high in row.values:
                offset = (methods.index(method) - (len(methods) - 1) / 2) * 14 * len(rows) / height
                style = styles[method]
                axes.plot([low, high], [y + offset] * 2, color=style.colour, linewidth=1.6)
                axes.plot([value], [y + offset], style.marker, color=style.colour, markersize=6)
        return _svg(figure, alt)


def roc_plot(curves: Sequence[Curve], styles: Mapping[str, MethodStyle], alt: str) -> str:
    """Draw ROC curves: sensitivity against 1 - specificity."""
    with rc_context({**_RC, "svg.hashsalt": alt}):
        figure, axes = _panel((236, 232), left=42, right=10, top=8, bottom=40)
        ticks = {"xticks": [0, 0.5, 1], "yticks": [0, 0.5, 1], "xticklabels": ["0", "0.5", "1"]}
        axes.set(xlim=(0, 1), ylim=(0, 1), **ticks, yticklabels=["0", "0.5", "1"])
        axes.set(xlabel="1 − specificity", ylabel="sensitivity")
        axes.plot([0, 1], [0, 1], color=_LINE, linewidth=1)
        _lines(axes, curves, styles, width=1.8, alpha=1)
        return _svg(figure, alt)


def training_plot(curves: Sequence[Curve], styles: Mapping[str, MethodStyle], alt: str) -> str:
    """Draw the loss against the round, a thin line for each method and seed."""
    with rc_context({**_RC, "svg.hashsalt": alt}):
        figure, axes = _panel((344, 232), left=50, right=12, top=10, bottom=42)
        axes.set(xlabel="round", ylabel="training loss")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="y", color=_LINE, linewidth=0.6)
        _lines(axes, curves, styles, width=1.2, alpha=0.8)
        return _svg(figure, alt)


def _forest_row(axes: Axes, y: int, row: ForestRow) -> None:
    if row.heading:
        _band(axes, y)
    _label(axes, y, row.label, row.strong or row.heading, gutter=_GUTTER, room=17 if row.count else 30)
    _write(axes, row.count, (0, y), -10, align="right", size=11, colour=_SOFT)
    _write(axes, row.text, (1, y), 8, size=10 if row.strong else 10.5, strong=row.strong)
    axes.plot(row.seeds, [y + 0.27] * len(row.seeds), "o", color=_SOFT, markersize=2.6)
    if row.difference is None:
        return
    if row.low is not None and row.high is not None:
        axes.plot([row.low, row.high], [y, y], color=_INK, linewidth=2.4 if row.strong else 1.4)
    axes.plot([row.difference], [y], "D" if row.strong else "s", color=_INK, markersize=7 if row.strong else 5)


def _band(axes: Axes, y: int) -> None:
    """Shade a row over the whole width of the figure."""
    width = axes.get_window_extent().width
    axes.axhspan(y - 0.42, y + 0.42, -_GUTTER / width, 1 + _MARGIN / width, color="#eef2f6", clip_on=False, zorder=0)


def _forest_frame(axes: Axes, directions: tuple[str, str]) -> None:
    """Name the column of counts of test images, and say under the axis what is left and right of zero."""
    _write(axes, "with finding", (0, 1), -10, align="right", size=10.5, colour=_SOFT, rise=7)
    _write(axes, f"← {directions[0]}", (0.5, 0), -6, align="right", size=11, rise=-32)
    _write(axes, f"{directions[1]} →", (0.5, 0), 6, size=11, rise=-32)


def _label(axes: Axes, y: float, label: str, strong: bool, gutter: int, room: int) -> None:
    """Write a row's name to the left of the axes; a long one in two smaller lines."""
    lines = [label] if len(label) <= room else textwrap.wrap(label, room + 4, max_lines=2, placeholder="…")
    _write(axes, "\n".join(lines), (0, y), 4 - gutter, size=_SIZE if len(lines) == 1 else 9.5, strong=strong)


def _write(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    offset: float,
    size: float,
    align: Literal["left", "right"] = "left",
    colour: str = _INK,
    strong: bool = False,
    rise: float | None = None,
) -> None:
    """Write `text` at a share of the axes' width and a row, moved right by `offset` pixels.

    With `rise`, in pixels, the second coordinate is a share of the axes' height instead of a row.
    """
    axes.annotate(
        text,
        at,
        xytext=(offset, rise or 0),
        xycoords=axes.get_yaxis_transform() if rise is None else "axes fraction",
        textcoords="offset points",
        fontsize=size,
        color=colour,
        fontweight="bold" if strong else "normal",
        horizontalalignment=align,
        verticalalignment="center" if rise is None else "baseline",
        linespacing=1.05,
        annotation_clip=False,
    )


def _lines(axes: Axes, curves: Sequence[Curve], styles: Mapping[str, MethodStyle], width: float, alpha: float) -> None:
    for curve in curves:
        style = styles[curve.method]
        dashes = (0, style.dashes) if style.dashes else "solid"
        axes.plot(curve.x, np.asarray(curve.y), color=style.colour, linewidth=width, alpha=alpha, linestyle=dashes)


def _panel(size: tuple[float, float], left: float, right: float, top: float, bottom: float) -> tuple[Figure, Axes]:
    """Return a figure of `size` pixels with one pair of axes, its margins in pixels."""
    width, height = size
    figure = Figure(figsize=(width / 72, height / 72), facecolor="none", dpi=72)
    box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    return figure, figure.add_axes(box, facecolor="none")


def _svg(figure: Figure, alt: str) -> str:
    """Return the figure as an element of a page: no date, no ids that another figure might have too."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawing = re.search(r"<svg\b[^>]*>(.*)</svg>", buffer.getvalue(), re.DOTALL)
    if drawing is None:
        raise AssertionError("matplotlib wrote no SVG element")
    inner = re.sub(r'<g id="[^"]*"', "<g", re.sub(r"<style\b.*?</style>", "", drawing[1], flags=re.DOTALL))
    inner = re.sub(r"\s*\n\s*", " ", inner)
    width, height = (round(inches * 72) for inches in figure.get_size_inches())
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return f'<svg {size} role="img" aria-label="{escape(alt, quote=True)}">{inner}</svg>'
