"""The figures and tables of docs/evidence.md, from the table that `results.py` made.

    python examples/evidence/figures.py [--results docs/evidence.csv] [--page docs/evidence.md]

Figures go to the page's folder images/; each table takes the place of what stands between its two marks in the page.
"""

import argparse
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Steps between averages, by training images of the small hospital and study.
EVERY = {
    150: {"every-1": 1, "every-2": 2, "size-150": 5, "every-10": 10, "every-20": 20, "every-50": 50},
    75: {"size-75": 5, "every-10-75": 10, "every-20-75": 20, "every-50-75": 50},
}
# A question: its mark in the page, the site it is asked for ("" is all), the studies and methods that answer it, and
# what these are held against.
QUESTIONS: dict[str, tuple[str, list[tuple[str, str]], list[str]]] = {
    "size": ("small", [(f"{design}-{n}", "ffl") for design in ("size", "overlap") for n in (75, 150, 600)], ["local"]),
    "conventional": (
        "small",
        [(f"overlap-{n}", method) for n in (75, 150, 600) for method in ("conventional", "ffl")],
        ["local", "conventional"],
    ),
    "phantoms": (
        "small",
        [(f"phantom-{design}-{n}", "ffl") for design in ("size", "overlap") for n in (75, 150, 600)],
        ["local", "conventional"],
    ),
    "sites": (
        "",
        [
            ("five", "ffl"),
            ("five", "fedbn"),
            ("every-10-five", "ffl"),
            ("every-10-five", "fedbn"),
            ("matching", "conventional"),
            ("matching", "ffl"),
            ("phantom-five", "ffl"),
        ],
        ["local", "conventional"],
    ),
    "methods": (
        "small",
        [
            *[("size-150", "ffl"), *(("methods-150", one) for one in ("fedbn", "fedprox", "fedavgm", "fedadam"))],
            *(("methods-150", one) for one in ("surgical", "masked", "central")),
            *[("slower-150", "fedavgm"), ("slower-150", "fedadam"), ("head-150", "ffl"), ("head-150", "fedbabu")],
            *[("full-150", "ffl"), ("long-150", "ffl")],
        ],
        ["local"],
    ),
    "averaging": (
        "small",
        [(study, "ffl") for studies in EVERY.values() for study in studies]
        + [("examples-150", "ffl"), ("reset-150", "ffl"), ("half-150", "ffl"), ("fedbn-75", "fedbn")],
        ["local"],
    ),
    "controls": (
        "small",
        [("size-150", "ffl"), ("shuffled-150", "ffl"), ("phantoms-150", "ffl"), ("phantoms-fedbn-150", "fedbn")],
        ["local"],
    ),
    "often": (
        "",
        [(f"every-{n}", "ffl") for n in (1, 2, 10, 20, 50)]
        + [(f"every-{n}", "ffl") for n in ("10-75", "20-75", "50-75", "10-five")],
        ["ffl of size-150", "ffl of size-75", "ffl of five"],
    ),
    "choices": (
        "",
        [
            *[("methods-150", "fedbn"), ("fedbn-75", "fedbn"), ("five", "fedbn"), ("every-10-five", "fedbn")],
            ("phantoms-fedbn-150", "fedbn"),
            *[("examples-150", "ffl"), ("reset-150", "ffl"), ("half-150", "ffl")],
            *((study, rule) for study in ("methods-150", "slower-150") for rule in ("fedavgm", "fedadam")),
        ],
        ["ffl", "ffl of size-150", "ffl of every-20-75", "ffl of phantoms-150"],
    ),
}
# By what defaults are chosen: these figures show the differences on validation images.
BY_VALIDATION = ["often", "choices"]
COLUMNS = ["study", "method", "site", "findings", "against", "its AUROC", "gain [95 %]", "p", "over seeds"]
HEADER = f"| {' | '.join([*COLUMNS, 'on validation [95 %]', 'MB sent'])} |\n{'|---' * 11}|\n"
INK, SOFT = "#1c2733", "#8793a1"


def answer(results: pl.DataFrame, question: str) -> pl.DataFrame:
    """Return the rows of a question, in its order."""
    site, wanted, others = QUESTIONS[question]
    parts = [results.filter(study=study, method=method) for study, method in wanted]
    found = pl.concat(parts).filter(pl.col("against").is_in(others))
    return found.filter(site=site) if site else found


def table(rows: pl.DataFrame) -> str:
    """Return rows as a table of the page."""
    return HEADER + "".join(
        f"| {r['study']} | {r['method']} | {r['site']} | {r['findings']} | {r['against']} | {r['reference']:.3f} "
        f"| {r['difference']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}] | {r['p']:.3f} "
        f"| {r['lowest_seed']:+.3f} to {r['highest_seed']:+.3f} "
        f"| {r['validation_difference']:+.3f} [{r['validation_low']:+.3f}, {r['validation_high']:+.3f}] "
        f"| {'all images' if r['sent_mb'] is None else format(r['sent_mb'], '.0f')} |\n"
        for r in rows.iter_rows(named=True)
    )


def forest(rows: pl.DataFrame, title: str, prefix: str = "") -> Figure:
    """Draw the differences on test images with their intervals and the spans of the single seeds; or on validation."""
    figure = Figure(figsize=(8, 1 + 0.32 * len(rows)), layout="constrained")
    axes: Axes = figure.subplots()
    labels = []
    for place, r in enumerate(rows.iter_rows(named=True)):
        middle, low, high = (r[f"{prefix}{key}"] for key in ("difference", "low", "high"))
        sure = low > 0 or high < 0
        axes.plot([low, high], [place, place], color=INK if sure else SOFT, linewidth=2)
        if not prefix:
            axes.plot([r["lowest_seed"], r["highest_seed"]], [place + 0.22] * 2, ":", color=SOFT, linewidth=1.5)
        axes.plot(middle, place, "o", color=INK if sure else "white", markeredgecolor=INK)
        labels.append(f"{r['study']}  {r['method']} - {r['against']}  {r['site']} (mean of {r['findings']})")
    axes.axvline(0, color=SOFT, linewidth=0.8)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.locator_params(axis="x", nbins=6)
    about = " on validation images; line: 95 %" if prefix else "; line: 95 %, dotted: single seeds"
    axes.set_xlabel(f"difference of mean AUROC{about}")
    axes.set_title(title, loc="left")
    return figure


def averaging(rows: pl.DataFrame) -> Figure:
    """Draw gain and bytes against how often the sites average, a line for each size of the small hospital."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes: Axes = figure.subplots()
    for place, (images, names) in enumerate(EVERY.items()):
        found = rows.filter(pl.col("study").is_in(list(names))).sort("sent_mb")
        # Side by side where both sent the same.
        sent = (found["sent_mb"] * (1 + 0.03 * place)).to_list()
        colour = (INK, SOFT)[place]
        axes.vlines(sent, found["low"].to_list(), found["high"].to_list(), color=colour, linewidth=1)
        axes.plot(sent, found["difference"].to_list(), "o-", color=colour, label=f"{images} training images")
        for x, study, y in zip(sent, found["study"], found["difference"], strict=True):
            axes.annotate(f" {names[study]}", (x, y), color=colour)
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
    for question in QUESTIONS:
        rows = answer(results, question)
        if rows.is_empty():
            continue
        page = between(page, f"<!-- {question} -->\n", f"<!-- end of {question} -->", table(rows))
        prefix = "validation_" if question in BY_VALIDATION else ""
        figure = averaging(rows) if question == "averaging" else forest(rows, question, prefix)
        figure.savefig(images / f"evidence-{question}.png", dpi=110, metadata={"Software": None})
    options.page.write_text(page)


if __name__ == "__main__":
    main()
