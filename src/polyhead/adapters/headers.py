"""Columns read from the headers of DICOM files; their pixels are not decoded."""

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from polyhead.adapters.cells import LINE
from polyhead.adapters.imported import Options
from polyhead.errors import ImageError, SourceError
from polyhead.imaging.dicom.tags import read_tags
from polyhead.imaging.pixels import confined_path

__all__ = ["add_headers"]

_TOLERATED = 0.01
_SHOWN = 5


def add_headers(
    path: Path,
    rows: pl.DataFrame,
    root: Path,
    keys: Sequence[str],
    options: Options,
    progress: Callable[[int, int], None] | None,
) -> tuple[pl.DataFrame, list[str]]:
    """Add columns from the headers of the images.

    Parameters
    ----------
    path
        The table's file, for messages.
    rows
        With `LINE` and ``image``, relative to `root`.
    root
        The images' folder.
    keys
        Of ``patient_id``, ``study_id``, ``view``, ``sex`` and ``age``.
    options
        Whether any number of unreadable files may be left out, as of missing ones.
    progress
        Called with the numbers of files done and of all.

    Returns
    -------
    polars.DataFrame
        The rows whose file could be read, with the columns as text; null where a header does not say.
    list of str
        A note if files could not be read.

    Raises
    ------
    SourceError
        More than 1 % of the files, or all, cannot be read: lines and reasons of the first.
    """
    found: list[tuple[str | None, ...]] = []
    unreadable: list[tuple[int, str]] = []
    for done, (line, image) in enumerate(rows.select(LINE, "image").iter_rows(), start=1):
        try:
            tags = read_tags(confined_path(root, image))
            found.append(tuple(getattr(tags, key) for key in keys))
        except ImageError as problem:
            unreadable.append((line, str(problem)))
        if progress is not None:
            progress(done, rows.height)
    tolerated = rows.height - 1 if options.allow_missing else _TOLERATED * rows.height
    if len(unreadable) > tolerated:
        raise SourceError(_refusal(path, unreadable, rows.height))
    kept = rows.filter(~pl.col(LINE).is_in([line for line, _ in unreadable]))
    columns = pl.DataFrame(found, schema=dict.fromkeys(keys, pl.String), orient="row")
    columns = columns.with_columns(pl.all().str.strip_chars().replace("", None))
    note = f"Images left out because their DICOM header cannot be read: {len(unreadable):,}."
    return pl.concat([kept, columns], how="horizontal"), [note] if unreadable else []


def _refusal(path: Path, unreadable: Sequence[tuple[int, str]], count: int) -> str:
    lines = [f"{path}, line {line}: {reason}" for line, reason in unreadable[:_SHOWN]]
    remedy = "Mend the files, give these columns in the table, or leave such images out with --allow-missing."
    return "\n".join([*lines, f"{len(unreadable):,} of {count:,} images have no readable DICOM header. {remedy}"])
