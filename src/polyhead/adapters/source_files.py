"""A public data set's own tables, read as text: packed or not, with line breaks in quotes or not, and never padded."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path

import polars as pl

from polyhead.errors import SourceError
from polyhead.findings import closest
from polyhead.tables import rows_to_frame

__all__ = ["check_key", "find_file", "read_lines", "read_source"]

# Five times the largest table of the five public sets; a packed file that grows beyond it is no table.
_MAX_BYTES = 2**29


def find_file(folder: Path, patterns: Sequence[str], page: str) -> Path:
    """Return the one file of a folder that fits the first pattern that fits any.

    Parameters
    ----------
    folder
        Where to look; not below it, unless a pattern says so.
    patterns
        Globs, the likeliest first.
    page
        Where a person gets the data set, by name.

    Raises
    ------
    SourceError
        None fits, or several fit one pattern.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: is not a folder. Give the data set's folder.")
    for pattern in patterns:
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        if len(found) > 1:
            names = ", ".join(str(path.relative_to(folder)) for path in found[:3])
            raise SourceError(f"{folder}: {len(found)} files fit {pattern}: {names}. Keep one.")
        if found:
            return found[0]
    raise SourceError(f"{folder}: no file {' or '.join(patterns)}. It comes with the data set: {page}.")


def read_lines(path: Path, page: str) -> pl.Series:
    """Read a list of one name a line; white space around a name and empty lines are dropped.

    Raises
    ------
    SourceError
        The file cannot be read, or is no text.
    """
    return pl.Series(path.name, [line.strip() for line in _text(path, page).splitlines() if line.strip()], pl.String)


def read_source(
    path: Path,
    page: str,
    columns: Sequence[str],
    *,
    optional: Sequence[str] = (),
    others: bool = True,
    trailing_comma: bool = False,
) -> pl.DataFrame:
    """Read some columns of a CSV file, gzipped or not (its content tells), as text; an empty field is null.

    Parameters
    ----------
    path
        The file.
    page
        Where a person gets the data set, by name.
    columns
        Columns that must be there.
    optional
        Columns that are read if they are there.
    others
        Whether there may be other columns; they are not read.
    trailing_comma
        Whether a line, or the header, may end in one comma too many.

    Raises
    ------
    SourceError
        The file is missing, damaged, no text, larger than half a gigabyte when unpacked, or no CSV; a column is
        missing, unknown or there twice; a line has another number of fields than the header.
    """
    rows = _rows(path, _text(path, page), trailing_comma)
    header = next(rows)
    _check_header(path, page, header, columns, (*columns, *optional) if not others else header)
    names = [name for name in dict.fromkeys((*columns, *optional)) if name in header]
    # Doubled, so that itemgetter gives a tuple for one column too.
    places = [header.index(name) for name in names]
    frame = rows_to_frame(map(itemgetter(*places, places[0]), rows), [*names, "\0first again"])
    if frame.is_empty():
        raise SourceError(f"{path}: has a header and no rows. Get it again: {page}.")
    return frame.select(names).with_columns(pl.all().str.strip_chars().replace("", None))


def check_key(frame: pl.DataFrame, key: Sequence[str], path: Path) -> None:
    """Refuse a table in which a row's key is blank, or stands on another row too.

    Raises
    ------
    SourceError
        Naming the first such key and their number.
    """
    blank = frame.filter(pl.any_horizontal(pl.col(key).is_null())).height
    if blank:
        raise SourceError(f"{path}: {blank} lines have a blank {' or '.join(key)}. The published table has none.")
    twice = frame.filter(frame.select(key).is_duplicated()).select(key).unique(maintain_order=True)
    if twice.height:
        first = ", ".join(f"{name} {value!r}" for name, value in twice.row(0, named=True).items())
        raise SourceError(f"{path}: {first} stands on several lines ({twice.height} such). Keep one of each.")


def _text(path: Path, page: str) -> str:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as stream:
            raw = stream.read(_most_bytes(path, packed) + 1)
    except (OSError, EOFError, zlib.error) as problem:
        why = getattr(problem, "strerror", None) or problem
        raise SourceError(
            f"{path}: cannot be read ({why}). Check its permissions, or get it again: {page}."
        ) from problem
    most = _most_bytes(path, packed)
    if len(raw) > most:
        raise SourceError(f"{path}: more than {most:,} bytes of text; that is no table of this data set: {page}.")
    try:
        text = raw.decode("utf-8-sig").rstrip()
    except UnicodeDecodeError:
        text = raw.decode("latin-1").rstrip()
    if not text or "\0" in text:
        raise SourceError(f"{path}: is {'not text' if text else 'empty'}. Get it again: {page}.")
    return text


def _most_bytes(path: Path, packed: bool) -> int:
    """Return how much text a file may hold. Tables are packed to a fifth or a twentieth, never to a hundredth."""
    return min(_MAX_BYTES, 2**24 + 100 * path.stat().st_size) if packed else _MAX_BYTES


def _rows(path: Path, text: str, trailing_comma: bool) -> Iterator[list[str]]:
    """Yield the header, then each line's fields; refuse what would have to be padded or shifted."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        if trailing_comma and header[-1:] == [""]:
            header.pop()
        yield header
        for fields in reader:
            if trailing_comma and len(fields) == len(header) + 1 and not fields[-1]:
                fields.pop()
            if len(fields) != len(header):
                raise SourceError(
                    f"{path}, line {reader.line_num}: {len(fields)} fields, but the header has {len(header)}. "
                    "The file is incomplete or was altered; get it again."
                )
            yield fields
    except csv.Error as problem:
        raise SourceError(f"{path}, line {reader.line_num}: not valid CSV ({problem}).") from problem


def _check_header(path: Path, page: str, header: list[str], needed: Sequence[str], known: Sequence[str]) -> None:
    for name in needed:
        if name not in header:
            raise SourceError(
                f"{path}, line 1: no column {name!r}; {closest(name, header)}. The published table has it: {page}."
            )
        if header.count(name) > 1:
            raise SourceError(f"{path}, line 1: column {name!r} stands {header.count(name)} times. Keep one.")
    unknown = [name for name in header if name not in known]
    if unknown:
        raise SourceError(
            f"{path}, line 1: unknown column {unknown[0]!r}; {closest(unknown[0], known)}. "
            f"Keep the columns of the published table ({page}); `polyhead import table` reads any other."
        )
