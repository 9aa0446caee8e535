"""What makes a manifest's table acceptable, rule by rule; `polyhead.manifest` says what the columns mean."""

from collections.abc import Iterator, Sequence

import polars as pl

from polyhead.findings import closest
from polyhead.problems import Problem

__all__ = [
    "LABELS",
    "OUTSIDE",
    "REQUIRED_COLUMNS",
    "RESERVED_COLUMNS",
    "SPLITS",
    "finding_columns",
    "table_problems",
    "usable_rows",
]

SPLITS = ("train", "val", "test")
REQUIRED_COLUMNS = ("image", "patient_id", "split")
RESERVED_COLUMNS = (*REQUIRED_COLUMNS, "view", "sex", "age", "study_id")
OUTSIDE = r"^[/\\~]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)"
"""Pattern of a path that may leave its folder: absolute, with a drive or a home, or through ``..``."""
LABELS = {"1": 1, "0": 0, "1.0": 1, "0.0": 0}

# So many lines of one kind are named one by one; the rest is a number.
_NAMED = 1000
_MOST_FINDINGS = 1000
_LINE = "\0line"  # No header can hold this name.
_CONTROL = r"[\x00-\x1f\x7f-\x9f]"


def finding_columns(text: pl.DataFrame) -> tuple[str, ...]:
    """Return the columns that are findings, in the table's order."""
    return tuple(name for name in text.columns if name not in RESERVED_COLUMNS)


def table_problems(text: pl.DataFrame) -> Iterator[Problem]:
    """Yield everything that is wrong with a table of text, in the order in which to mend it; all are errors.

    Row ``i`` (from 0) of the table is line ``i + 2`` of its file.
    """
    missing = [name for name in REQUIRED_COLUMNS if name not in text.columns]
    for name in missing:
        yield _error("column", f"no column {name!r}; {closest(name, text.columns)}. Rename or add it.")
    names = list(_name_problems(finding_columns(text)))
    if "patient_id" in text.columns:
        names += _patients_for_findings(text)
    yield from names
    if missing or names:
        return
    numbered = text.with_row_index(_LINE, offset=2)
    for column in REQUIRED_COLUMNS:
        blank = numbered.filter(pl.col(column).is_null())
        yield from _by_line(blank, "blank", column, "Every image needs one.", blank_value=True)
    yield from _split_problems(numbered)
    yield from _image_problems(numbered)
    for finding in finding_columns(text):
        bad = numbered.select(_LINE, finding).filter(
            pl.col(finding).is_not_null() & ~pl.col(finding).is_in(list(LABELS))
        )
        yield from _by_line(bad, "label", finding, ". Allowed: 1, 0 or blank (not annotated).")


def usable_rows(text: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that name an image once, below the site's folder, with a patient and a split."""
    image = pl.col("image")
    return text.filter(
        image.is_not_null()
        & image.is_first_distinct()
        & ~image.str.contains(OUTSIDE)
        & ~image.str.contains(_CONTROL)
        & pl.col("patient_id").is_not_null()
        & pl.col("split").is_in(SPLITS)
    )


def _bare(name: str) -> str:
    return name if name.isprintable() else repr(name)  # A terminal obeys control characters.


def _error(kind: str, text: str, count: int = 1) -> Problem:
    return Problem("error", kind, text, count)


def _by_line(bad: pl.DataFrame, kind: str, column: str, rule: str, *, blank_value: bool = False) -> Iterator[Problem]:
    """Yield a problem a row, and one for all beyond those that are named."""
    for line, value in bad.head(_NAMED).select(_LINE, column).iter_rows():
        found = "blank. " if blank_value else repr(value)
        yield _error(kind, f"line {line}, column {column!r}: {found}{rule}")
    if bad.height > _NAMED:
        more = bad.height - _NAMED
        yield _error(kind, f"column {column!r}: and so on {more} lines more, the last is {bad[_LINE][-1]}.", more)


def _name_problems(findings: Sequence[str]) -> Iterator[Problem]:
    if len(findings) > _MOST_FINDINGS:
        yield _error("column", f"line 1: {len(findings):,} finding columns; at most {_MOST_FINDINGS:,} are read.")
        return
    if not findings:
        yield _error("column", "line 1: no finding column. Add at least one column with 1, 0 or blank.")
    for finding in findings:
        cannot = f"line 1: column {finding!r} cannot be a finding"
        # A spreadsheet would run a name that begins like a formula, and a terminal obeys control characters.
        if not finding[0].isalnum() or not finding.isprintable():
            yield _error("column", f"{cannot}. Begin with a letter or digit; printable text only.")
        if finding.casefold() in (*RESERVED_COLUMNS, "mean"):
            yield _error("column", f"{cannot}: {finding.casefold()!r} has a meaning of its own.")


def _patients_for_findings(text: pl.DataFrame) -> list[Problem]:
    """A table with a column for each patient would publish their ids wherever findings are named."""
    patients = text["patient_id"].unique()
    named = [name for name in finding_columns(text) if name in patients]
    what = "is the id of a patient, so it cannot be a finding. Give each patient a row."
    return [_error("column", f"line 1: column {_bare(name)!r} {what}") for name in named]


def _split_problems(numbered: pl.DataFrame) -> Iterator[Problem]:
    unknown = numbered.filter(pl.col("split").is_not_null() & ~pl.col("split").is_in(SPLITS))
    yield from _by_line(unknown, "split", "split", f". Allowed: {', '.join(SPLITS)}.")
    for split in SPLITS:
        if not (numbered["split"] == split).any():
            text = f"column 'split': no image in {split!r}. Training, validation and test all need some."
            yield _error("empty-split", text)
    # Pairs first: grouping the rows would hold every line of every patient.
    pairs = numbered.filter(pl.col("patient_id").is_not_null() & pl.col("split").is_in(SPLITS))
    pairs = pairs.select("patient_id", "split").unique()
    torn = pairs.filter(pl.col("patient_id").is_duplicated()).group_by("patient_id").agg(pl.col("split").sort())
    if torn.height:
        lines = numbered.group_by("patient_id").agg(pl.col(_LINE).min())
        firsts = torn.join(lines, on="patient_id").sort(_LINE).head(3)
        first = ", ".join(f"{_bare(patient)} ({'+'.join(splits)})" for patient, splits, _ in firsts.iter_rows())
        text = f"column 'split': {torn.height} patients are in more than one split, first {first}. Keep each in one."
        yield _error("patient-in-two-splits", text, torn.height)


def _image_problems(numbered: pl.DataFrame) -> Iterator[Problem]:
    image = pl.col("image")
    outside = numbered.filter(image.str.contains(OUTSIDE))
    yield from _by_line(outside, "path", "image", " leads out of the site's folder. Give a path below it.")
    control = numbered.filter(image.str.contains(_CONTROL))
    yield from _by_line(control, "path", "image", " holds control characters. Rename the file.")
    twice = numbered.filter(image.is_not_null() & ~image.is_first_distinct())
    yield from _by_line(twice, "row-twice", "image", " stands on an earlier line too. Keep one row per image.")
