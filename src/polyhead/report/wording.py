"""Numbers and findings of a study in plain words; gains, losses and nulls in the same form."""

from polyhead.report.load import MEAN, Comparison, Estimate, RunTables

__all__ = [
    "METHODS",
    "NOT_AVAILABLE",
    "NOT_JOINED",
    "compared",
    "difference",
    "directions",
    "duration",
    "evidence",
    "finding_verdict",
    "headlines",
    "interval",
    "number",
    "p_value",
    "quantity",
    "size",
    "unsaid",
    "verdict",
    "whole",
]

NOT_AVAILABLE = "NA"

# No site joins others in training alone, or where all data are brought to one place.
NOT_JOINED = ("local", "central")

METHODS = {
    "local": "training alone",
    "conventional": "conventional federated learning",
    "ffl": "flexible federated learning",
    "surgical": "surgical aggregation",
    "masked": "one masked head for all findings",
    "central": "training on the pooled data",
    "fedbn": "flexible federated learning with private BatchNorm",
    "fedprox": "flexible federated learning with a proximal term",
    "fedbabu": "federated training of the backbone alone",
    "fedavgm": "flexible federated learning with server momentum",
    "fedadam": "flexible federated learning with Adam at the server",
}


def number(value: float | None, digits: int = 3) -> str:
    """Return `value` rounded, or NA; a negative number has a true minus, zero has no sign."""
    if value is None:
        return NOT_AVAILABLE
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def whole(value: float | None) -> str:
    """Return a count with thin spaces between the thousands."""
    return NOT_AVAILABLE if value is None else f"{value:,.0f}".replace(",", "\u202f")


def quantity(value: float | None, noun: str) -> str:
    """Return a count with its noun, in the plural where it should be."""
    return f"{whole(value)} {noun if value == 1 else noun + 's'}"


def difference(value: float | None) -> str:
    """Return a rounded difference with its sign."""
    text = number(value)
    return f"+{text}" if value is not None and value > 0 and float(text) != 0 else text


def interval(estimate: Estimate | Comparison) -> str:
    """Return ``value (low to high)``, or NA."""
    show = difference if isinstance(estimate, Comparison) else number
    value = estimate.difference if isinstance(estimate, Comparison) else estimate.value
    if value is None or estimate.low is None or estimate.high is None:
        return show(value)
    return f"{show(value)} ({show(estimate.low)} to {show(estimate.high)})"


def duration(seconds: float | None) -> str:
    """Return a time in seconds, minutes or hours."""
    if seconds is None:
        return NOT_AVAILABLE
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(count: float | None) -> str:
    """Return a number of bytes in the unit that suits it."""
    if count is None:
        return NOT_AVAILABLE
    for unit, of in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= of:
            return f"{count / of:.1f} {unit}"
    return f"{count:.0f} bytes" if count else "0"


def p_value(p: float | None) -> str:
    """Return a rounded p-value; never zero."""
    return "<0.001" if p is not None and p < 0.0005 else number(p)


def verdict(comparison: Comparison | None) -> str:
    """Return ``gains``, ``loses`` or ``cannot tell``, by whether the interval leaves out zero; or ``not compared``."""
    if comparison is None or comparison.low is None or comparison.high is None:
        return "not compared"
    if comparison.low > 0:
        return "gains"
    return "loses" if comparison.high < 0 else "cannot tell"


def finding_verdict(comparison: Comparison) -> str:
    """Return the verdict on one finding among several, where an interval alone is too easily beyond zero by chance.

    A gain or loss needs a p-value below 0.05 after Holm's correction as well.
    """
    significant = comparison.p_holm is not None and comparison.p_holm < 0.05
    return verdict(comparison) if significant or verdict(comparison) == "not compared" else "cannot tell"


def evidence(comparison: Comparison | None, tested: str) -> str:
    """Return the verdict on one mean; where the data cannot tell, with `tested`: on how many it was looked for."""
    word = verdict(comparison)
    return f"{word} with n = {tested}" if word == "cannot tell" and tested else word


def unsaid(reason: str) -> str:
    """Return what stands in a verdict's place where there can be none."""
    return f"nothing can be said: {reason}"


def compared(run: RunTables) -> tuple[str, tuple[str, ...]]:
    """Return the last method that is compared, and those it is compared with; before others one that sites join in."""
    compared_ones = {method for method, *_ in run.comparisons}
    subjects = [method for method in reversed(run.methods) if method in compared_ones] or [run.methods[-1]]
    subject = next((method for method in subjects if method not in NOT_JOINED), subjects[0])
    references = {reference for method, reference, *_ in run.comparisons if method == subject}
    return subject, tuple(method for method in run.methods if method in references)


def directions(subject: str, reference: str) -> tuple[str, str]:
    """Return what a negative and a positive difference mean."""
    if reference == "local":
        return "better alone", "better together"
    return f"{reference} better", f"{subject} better"


def headlines(run: RunTables) -> list[str]:
    """Return, for each comparison, at how many sites the method gains, loses, or cannot be told apart."""
    subject, references = compared(run)
    return [_headline(run, subject, reference) for reference in references]


def _headline(run: RunTables, subject: str, reference: str) -> str:
    results = [run.comparisons.get((subject, reference, site, MEAN)) for site in run.sites]
    words = [word for word in map(verdict, results) if word != "not compared"]
    ours, theirs = (METHODS.get(method, method) for method in (subject, reference))
    if not words:
        return f"No site has a finding on which {ours} and {theirs} could be compared."
    return (
        f"Against {theirs}, {ours} gains at {words.count('gains')} "
        f"of {quantity(len(words), 'hospital')} and loses at {words.count('loses')}; "
        f"at {words.count('cannot tell')} the data cannot tell."
    )
