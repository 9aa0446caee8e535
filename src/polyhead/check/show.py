"""A check as tables for a person, in 80 columns and without colour if need be."""

from collections.abc import Iterable, Sequence
from itertools import groupby

import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from polyhead.check.matches import Match, Matches
from polyhead.check.result import CheckResult, DiskUse, Estimate, ManifestCheck, SiteCheck, count_problems
from polyhead.manifest import SPLITS
from polyhead.printable import printable
from polyhead.problems import Problem

__all__ = ["show"]

_SHOWN = 3
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_ORDER = tuple(_STYLES)


def show(result: CheckResult, console: Console) -> None:
    """Print everything; of many problems of one kind the first few, with their number."""
    for manifest in result.manifests:
        _show_manifest(manifest, [site for site in result.sites if site.manifest == manifest.path], console)
    if result.matches and len(result.sites) > 1:
        _show_matches(result.matches, [site.name for site in result.sites], console)
    if result.estimate:
        _print(console, "")
        console.print(_estimate_table(result.estimate))
    if result.problems:
        _print(console, "\nThe study as a whole" if result.study else "\nAll sites together", "bold")
        console.print(_problem_table(result.problems))
    _show_verdict(result, console)


def _show_manifest(manifest: ManifestCheck, sites: Sequence[SiteCheck], console: Console) -> None:
    problems = (*manifest.problems, *(problem for site in sites for problem in site.problems))
    names = ", ".join(site.name for site in sites) or manifest.path.parent.name
    _print(console, f"\n{names}: {_tally(problems)}", "bold")
    _print(console, str(manifest.path), "dim")
    if manifest.images is not None:
        read = "each read once" if manifest.images_read else "not read"
        _print(console, f"{manifest.images:,} images, {read}; {manifest.patients:,} patients")
    if manifest.cache:
        _print(console, f"pixel cache: {_disk(manifest.cache)}")
    if len(sites) > 1:
        problems = (*manifest.problems, *(_of_site(site, problem) for site in sites for problem in site.problems))
    if problems:
        console.print(_problem_table(problems))
    for site in sites:
        console.print(_count_table(site, titled=len(sites) > 1))


def _of_site(site: SiteCheck, problem: Problem) -> Problem:
    return Problem(problem.severity, problem.kind, f"{site.name}: {problem.text}", problem.count)


def _problem_table(problems: Iterable[Problem]) -> Table:
    table = Table("", "kind", "count", "what", box=box.SIMPLE)
    table.columns[1].overflow = "fold"
    table.columns[2].justify = "right"
    table.columns[3].ratio = 1

    def key(problem: Problem) -> tuple[int, str]:
        return _ORDER.index(problem.severity), problem.kind

    for (place, kind), group in groupby(sorted(problems, key=key), key):
        same = list(group)
        texts = [problem.text for problem in same[:_SHOWN]]
        if more := sum(problem.count for problem in same[_SHOWN:]):
            texts.append(f"and {more:,} more; see --json")
        count = sum(problem.count for problem in same)
        name = _ORDER[place]
        _add(table, Text(name, _STYLES[name]), kind, f"{count:,}", "\n".join(texts))
    return table


def _count_table(site: SiteCheck, *, titled: bool) -> Table:
    """Return positives and negatives of each finding and split; blanks and images follow from the rest."""
    sizes = {row["split"]: row for row in site.counts.unique("split").iter_rows(named=True)}
    heads = [f"{split}\n{sizes[split]['images']:,} im.\n{sizes[split]['patients']:,} pat." for split in SPLITS]
    title = f"{site.name}: positive / negative labels" if titled else "Positive / negative labels"
    table = Table("finding", *heads, "blank", "weight", title=title, title_justify="left", box=box.SIMPLE)
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
    for (finding,), rows in site.counts.group_by("finding", maintain_order=True):
        cells = [f"{row['positives']:,} / {row['negatives']:,}" for row in rows.iter_rows(named=True)]
        blank = int(rows["blank"].sum()) / max(int(rows["images"].sum()), 1)
        weight = rows.filter(pl.col("split") == "train")["pos_weight"][0]
        _add(table, finding, *cells, _percent(blank), "-" if weight is None else f"{weight:.3g}")
    return table


def _percent(share: float) -> str:
    return "-" if share == 0 else "<1 %" if share < 0.01 else f"{share:.0%}".replace("%", " %")


def _show_matches(matches: Matches, sites: Sequence[str], console: Console) -> None:
    table = Table("finding", *sites, "decided by", title="Findings in common", title_justify="left", box=box.SIMPLE)
    common = [match for match in matches.matches if len(match.spellings) > 1]
    for match in common:
        spellings = [match.spellings[site].name if site in match.spellings else "-" for site in sites]
        _add(table, match.canonical, *spellings, _decided_by(match))
    _print(console, "")
    console.print(table if common else "No finding is common to two sites.")
    for site in sites:
        alone = [match.spellings[site].name for match in matches.matches if set(match.spellings) == {site}]
        if alone:
            _print(console, f"only at {site}: {', '.join(alone)}")
    for miss in matches.near_misses:
        _print(
            console,
            f"alike, but not matched: {miss.finding!r} ({miss.site}) and {miss.other_finding!r} ({miss.other_site})",
            "yellow",
        )
    if matches.near_misses:
        _print(console, "If a person decides that two mean the same, say so under [findings.aliases] of the study.")


def _decided_by(match: Match) -> str:
    if len({spelling.name for spelling in match.spellings.values()}) == 1:
        return "same spelling"
    decisions = dict.fromkeys(spelling.decided_by for spelling in match.spellings.values())
    return ", ".join(decision for decision in decisions if decision != "as written")


def _estimate_table(estimate: Estimate) -> Table:
    table = Table("what", "how much", title="Estimates for this machine", title_justify="left", box=box.SIMPLE)
    _add(table, "model", estimate.model)
    _add(table, "device", estimate.device)
    if estimate.step_seconds is not None and estimate.train_seconds is not None:
        _add(table, "one optimizer step", f"{estimate.step_seconds:.3g} s, measured on noise")
        _add(table, f"{estimate.steps:,} optimizer steps", _duration(estimate.train_seconds))
    else:
        _add(table, f"{estimate.steps:,} optimizer steps", "not timed without images")
    if estimate.predict_seconds is not None:
        _add(table, f"{estimate.predicted_images:,} images predicted", _duration(estimate.predict_seconds))
    if estimate.run:
        _add(table, "run directory", _disk(estimate.run))
    return table


def _show_verdict(result: CheckResult, console: Console) -> None:
    problems = result.all_problems()
    _print(console, "")
    counted = any(problem.severity != "note" for problem in problems)
    unit = " Counted are labels, images, patients and settings." if counted else ""
    if result.sound:
        _print(console, f"Sound: {_tally(problems)}.{unit}", "bold")
    else:
        _print(console, f"Not sound: {_tally(problems)}.{unit} Mend the errors, then check again.", "bold red")


def _tally(problems: Sequence[Problem]) -> str:
    counts = {severity: count_problems(problems, severity) for severity in _STYLES}  # type: ignore[arg-type]
    if not counts["error"] + counts["warning"]:
        return "no errors, no warnings"
    return ", ".join(f"{counts[one]:,} {one}{'' if counts[one] == 1 else 's'}" for one in ("error", "warning"))


def _disk(use: DiskUse) -> str:
    place = f"{_bytes(use.needed)} in {use.folder}"
    return f"{place}, ready" if use.ready else f"about {place}, {_bytes(use.free)} free"


def _bytes(number: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} TB"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"about {seconds:.2g} s"
    if seconds < 100 * 60:
        return f"about {seconds / 60:.2g} min"
    return f"about {seconds / 3600:,.3g} h"


def _print(console: Console, text: str, style: str | None = None) -> None:
    # Names may hold what looks like markup, and paths are better left in one piece.
    console.print(Text(printable(text), style or ""), soft_wrap=True)


def _add(table: Table, *cells: str | Text) -> None:
    table.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in cells))
