"""The report as one HTML page: no network, no script, opens from disk and prints."""

from pathlib import Path

import jinja2

from polyhead.atomic import write_atomically
from polyhead.errors import RunError
from polyhead.report.cross_site import cross_site_tables
from polyhead.report.figures import auroc_figures, forest_figures, roc_figures, training_figures
from polyhead.report.gain import gained_over, gains
from polyhead.report.load import RunTables, load_run
from polyhead.report.plots import method_styles
from polyhead.report.settings import environment_rows, privacy_rows, setting_rows, source_rows
from polyhead.report.training_tables import setback_table, traffic_table
from polyhead.report.views import (
    auroc_table,
    comparison_table,
    count_table,
    finding_matrix,
    operating_table,
    seed_table,
    split_sizes,
)
from polyhead.report.wording import METHODS, compared, headlines, quantity

__all__ = ["write_report"]


def write_report(run: Path) -> Path:
    """Write ``report.html`` into a run directory.

    The page is a function of the directory's files alone: the same files give the same bytes.

    Parameters
    ----------
    run
        A run directory with ``study.toml``, ``environment.json``, ``sites.csv``, ``rounds.csv``, ``metrics.csv``,
        ``comparisons.csv`` (if there is more than one method) and, unless the hospitals keep them at home, the
        predictions for the test patients.

    Returns
    -------
    pathlib.Path
        The page. It is replaced in one step; a failure leaves the old one.

    Raises
    ------
    RunError
        A file is missing or cannot be trusted; the message names it and the command that makes it.
    """
    page = _render(load_run(run))
    path = run / "report.html"
    try:
        write_atomically(path, page)
    except OSError as problem:
        raise RunError(f"{path}: cannot be written ({problem.strerror}).") from problem
    return path


def _render(run: RunTables) -> str:
    # Everything is escaped but the figures, which plots.py has escaped itself.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("polyhead.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["quantity"] = quantity
    return environment.get_template("template.html").render(run=run, **_summary(run), **_figures(run), **_tables(run))


def _summary(run: RunTables) -> dict[str, object]:
    subject, references = compared(run)
    return {
        "subject": subject,
        "references": references,
        "headlines": headlines(run),
        "gains": gains(run),
        "gains_over": gained_over(run),
        "descriptions": METHODS,
        "styles": method_styles(run.methods),
    }


def _figures(run: RunTables) -> dict[str, object]:
    return {
        "forest": forest_figures(run),
        "auroc_plots": auroc_figures(run),
        "roc": roc_figures(run),
        "training": training_figures(run),
    }


def _tables(run: RunTables) -> dict[str, object]:
    return {
        "matrix": finding_matrix(run),
        "sizes": split_sizes(run),
        "counts": count_table(run),
        "comparisons": comparison_table(run),
        "cross_site": cross_site_tables(run),
        "auroc": auroc_table(run),
        "seed_values": seed_table(run),
        "operating": operating_table(run),
        "traffic": traffic_table(run),
        "setbacks": setback_table(run),
        "settings": setting_rows(run),
        "privacy": privacy_rows(run),
        "sources": source_rows(run),
        "environment": environment_rows(run),
    }
