"""What would my hospital gain? For each site and federated method a verdict, the difference, and what it costs."""

from dataclasses import dataclass

import polars as pl

from polyhead.report.load import MEAN, OVERALL, Comparison, RunTables
from polyhead.report.roc import read_annotated
from polyhead.report.wording import NOT_AVAILABLE, NOT_JOINED, duration, evidence, interval, quantity, size, unsaid

__all__ = ["Gain", "gained_over", "gains"]

_ALONE = "local"
_REFERENCES = (_ALONE, "conventional")


@dataclass(frozen=True)
class Gain:
    """One site and one method, in words.

    Attributes
    ----------
    verdict
        On the mean over findings against training alone, by its interval; or why nothing can be said.
    over
        The gain over each of `gained_over`, with its interval; a dash where the method is that reference.
    sent, received
        Bytes of all rounds and seeds.
    here, whole
        Time of the site's own part in them, and of all sites together.
    """

    site: str
    method: str
    verdict: str
    over: tuple[str, ...]
    sent: str
    received: str
    here: str
    whole: str


def gained_over(run: RunTables) -> tuple[str, ...]:
    """Return what gains are told over: training alone and conventional federated learning, where they were run."""
    return tuple(method for method in _REFERENCES if method in run.methods)


def gains(run: RunTables) -> list[Gain]:
    """Return a line for each site and method that sites join in, sites in the study's order, its last method first.

    Raises
    ------
    RunError
        If predictions are missing, of which the test images are counted.
    """
    joined = [method for method in reversed(run.methods) if method not in NOT_JOINED]
    return [_gain(run, site, method) for site in run.sites for method in joined]


def _gain(run: RunTables, site: str, method: str) -> Gain:
    over = tuple("–" if one == method else _over(run, site, method, one) for one in gained_over(run))
    ours = run.rounds.filter(pl.col("method") == method)
    here = ours.filter(pl.col("site") == site)
    up, down, seconds = (_total(here, column) for column in ("bytes_up", "bytes_down", "seconds"))
    cost = size(up), size(down), duration(seconds), duration(_total(ours, "seconds"))
    return Gain(site, method, _verdict(run, site, method), over, *cost)


def _over(run: RunTables, site: str, method: str, reference: str) -> str:
    mean = run.comparisons.get((method, reference, site, MEAN))
    return NOT_AVAILABLE if mean is None else interval(mean)


def _total(rounds: pl.DataFrame, column: str) -> float | None:
    # Sorted, so that the order of the file's rows cannot move the last digit of a sum.
    return float(rounds[column].sort().sum()) if len(rounds) else None


def _verdict(run: RunTables, site: str, method: str) -> str:
    if site in run.silent:
        return unsaid(f"it {run.silent[site].rstrip('.')}")
    if _ALONE not in run.methods:
        return unsaid("the study trains no site alone")
    mean = run.comparisons.get((method, _ALONE, site, MEAN))
    if mean is None or mean.difference is None:
        return unsaid(
            "it released no mean" if run.at_home else "no finding with both kinds of test images is predicted by both"
        )
    return evidence(mean, _tested(run, site, method))


def _tested(run: RunTables, site: str, method: str) -> str:
    """Say on how many test images and patients a mean difference rests."""
    if run.at_home:
        known = run.metric(method, OVERALL, site, MEAN, "auroc")
        return "" if known is None or known.patients is None else f"about {quantity(known.patients, 'test patient')}"
    found = [name for name in run.findings[site] if _is_known(run.comparisons.get((method, _ALONE, site, name)))]
    table = read_annotated(run.folder, method, run.seeds[0], site).filter(pl.col("finding").is_in(found))
    images, patients = table["image"].n_unique(), table["patient_id"].n_unique()
    return f"{quantity(images, 'test image')} of {quantity(patients, 'patient')}"


def _is_known(comparison: Comparison | None) -> bool:
    return comparison is not None and comparison.difference is not None
