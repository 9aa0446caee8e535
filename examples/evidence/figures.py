"""The figures and tables of docs/evidence.md, from the table that `results.py` made.

    python examples/evidence/figures.py [--results docs/evidence.csv] [--page docs/evidence.md]

Figures go to the page's folder images/; each table takes the place of what stands between its two marks in the page.
"""

import argparse
from pathlib import Path
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from questions import EVERY, QUESTIONS, Question, steps_between

COLUMNS = [
    *("study", "method", "site", "findings", "held against", "its AUROC", "difference [95 %]", "p", "over seeds"),
    *("on validation [95 %]", "MB sent"),
]
HEADER = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n"
INK, SOFT = "#1c2733", "#8793a1"


def answer(results: pl.DataFrame, question: Question) -> pl.DataFrame:
    """Return the rows of a question, in its order."""
    parts = [results.filter(study=study, method=method) for study, method in question.answers]
    found = pl.concat(parts).filter(pl.col("against").is_in(question.others))
    return found.filter(pl.col("site").is_in(question.sites)) if question.sites else found


def table(rows: pl.DataFrame) -> str:
    """Return rows as a table of the page."""
    return HEADER + "".join(
        f"| {r['study']} | {r['method']} | {r['site']} | {findings(r)} | {r['against']} | {r['reference']:.3f} "
        f"| {r['difference']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}] | {r['p']:.3f} "
        f"| {r['lowest_seed']:+.3f} to {r['highest_seed']:+.3f} "
        f"| {r['validation_difference']:+.3f} [{r['validation_low']:+.3f}, {r['validation_high']:+.3f}] "
        f"| {'all images' if r['sent_mb'] is None else format(r['sent_mb'], '.0f')} |\n"
        for r in rows.iter_rows(named=True)
    )


def findings(row: dict[str, Any]) -> str:
    """Return over how many findings a row is, and in brackets over how many on validation images if these are fewer."""
    test, validation = row["findings"], row["validation_findings"]
    return f"{test}" if test == validation else f"{test} ({validation})"


def forest(rows: pl.DataFrame, question: Question) -> Figure:
    """Draw each difference with its interval, and on test images the span of the single seeds."""
    prefix = "validation_" if question.on_validation else ""
    figure = Figure(figsize=(9, 1 + 0.32 * len(rows)), layout="constrained")
    axes: Axes = figure.subplots()
    labels = []
    for place, r in enumerate(rows.iter_rows(named=True)):
        middle, low, high = (r[f"{prefix}{key}"] for key in ("difference", "low", "high"))
        sure = low > 0 or high < 0
        axes.plot([low, high], [place, place], color=INK if sure else SOFT, linewidth=2)
        if not prefix:
            axes.plot([r["lowest_seed"], r["highest_seed"]], [place + 0.22] * 2, ":", color=SOFT, linewidth=1.5)
        axes.plot(middle, place, "o", color=INK if sure else "white", markeredgecolor=INK)
        of = f"mean of {r[f'{prefix}findings']}"
        labels.append(f"{r['study']}  {r['method']} - {r['against']}  {r['site']} ({of})")
    axes.axvline(0, color=SOFT, linewidth=0.8)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel("on validation images, 95 %" if prefix else "on test images, 95 %; dotted: single seeds")
    figure.suptitle(question.title, x=0.01, ha="left")
    return figure


def averaging(rows: pl.DataFrame) -> Figure:
    """Draw gain and bytes against how often the sites average, a line for each size of the small hospital."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes: Axes = figure.subplots()
    for place, (images, studies) in enumerate(EVERY.items()):
        found = rows.filter(pl.col("study").is_in(studies), site="small").sort("sent_mb")
        # Side by side where both sent the same.
        sent = (found["sent_mb"] * (1 + 0.03 * place)).to_list()
        colour = (INK, SOFT)[place]
        axes.vlines(sent, found["low"].to_list(), found["high"].to_list(), color=colour, linewidth=1)
        axes.plot(sent, found["difference"].to_list(), "o-", color=colour, label=f"{images} training images")
        for x, study, y in zip(sent, found["study"], found["difference"], strict=True):
            axes.annotate(f" {steps_between(study)}", (x, y), color=colour)
    axes.axhline(0, color=SOFT, linewidth=0.8)
    axes.set_xscale("log")
    ticks = [20, 50, 100, 200, 500, 1000]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.legend(frameon=False)
    axes.set_xlabel("MB that the small hospital sends in all (beside each point: optimizer steps between averages)")
    axes.set_ylabel("gain in mean AUROC")
    return figure


def between(page: str, begin: str, end: str, text: str) -> str:
    """Put a text between two marks of a page."""
    before, _, rest = page.partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        raise SystemExit(f"the page lacks the marks {begin.strip()} and {end}.")
    return f"{before}{begin}{text}{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/evidence.csv"))
    parser.add_argument("--page", type=Path, default=Path("docs/evidence.md"))
    options = parser.parse_args()
    results = pl.read_csv(options.results)
    page, images = options.page.read_text(), options.page.parent / "images"
    for name, question in QUESTIONS.items():
        rows = answer(results, question)
        if rows.is_empty():
            continue
        page = between(page, f"<!-- {name} -->\n", f"<!-- end of {name} -->", table(rows))
        figure = averaging(rows) if name == "averaging" else forest(rows, question)
        figure.savefig(images / f"evidence-{name}.png", dpi=110, metadata={"Software": None})
    options.page.write_text(page)


if __name__ == "__main__":
    main()
