"""Delimited text, read as text: no value is guessed into a number, no line is dropped or padded."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from polyhead.errors import PolyheadError

__all__ = ["read_text_table"]

_SEPARATORS = ",;\t"
_MAX_BYTES = 2**31  # some 10 million lines


def read_text_table(path: Path, error: type[PolyheadError]) -> pl.DataFrame:
    """Read a CSV file with a header line; every column is text, an empty field is null.

    Commas, semicolons and tabs separate; a byte-order mark, CRLF line ends and Latin-1 are understood. A field may be
    quoted, but may not contain a line break, so that data row ``i`` (from 0) is line ``i + 2`` of the file. White space
    around names and values is dropped.

    Raises
    ------
    PolyheadError
        Of the class `error`: the file is missing, empty or no text; a column has no name or stands twice; a line
        has another number of fields than the header.
    """
    try:
        if path.exists() and not path.is_file():
            raise error(f"{path}: is not a file.")
        if path.stat().st_size > _MAX_BYTES:
            raise error(f"{path}: {path.stat().st_size:,} bytes; at most {_MAX_BYTES:,} are read.")
        raw = path.read_bytes().rstrip(b"\r\n")
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror}). Check the path and its permissions.") from problem
    if not raw or b"\0" in raw:
        raise error(f"{path}: is {'not text' if raw else 'empty'}. A CSV file with a header line is needed.")
    encoding = _encoding(raw)
    separator = max(_SEPARATORS, key=raw.split(b"\n", 1)[0].decode(encoding).count)
    plain = io.BytesIO()
    lines = _checked_lines(path, io.TextIOWrapper(io.BytesIO(raw), encoding, newline=""), separator, error)
    header = next(lines)
    # Written out again, so that polars, which is stricter about quotes than csv, sees but one way of quoting.
    text = io.TextIOWrapper(plain, "utf-8", newline="", write_through=True)
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(lines)
    return _frame(plain.getvalue(), header)


def _frame(rows: bytes, header: list[str]) -> pl.DataFrame:
    schema = dict.fromkeys(header, pl.String)
    if not rows:
        return pl.DataFrame(schema=schema)
    frame = pl.read_csv(rows, has_header=False, schema=schema)
    return frame.with_columns(pl.all().str.strip_chars().replace("", None))


def _encoding(raw: bytes) -> str:
    try:
        raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _checked_lines(
    path: Path, lines: io.TextIOWrapper, separator: str, error: type[PolyheadError]
) -> Iterator[list[str]]:
    """Yield the header, then the fields of every line; refuse what would have to be padded, renamed or shifted."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
    try:
        header = [name.strip() for name in next(reader, [""])]
        _check_header(path, header, error)
        yield header
        for expected_line, fields in enumerate(reader, start=2):
            if reader.line_num != expected_line:
                raise error(f"{path}, line {expected_line}: a quoted field runs over the end of the line. Remove it.")
            if len(fields) != len(header):
                raise error(
                    f"{path}, line {expected_line}: {len(fields)} fields, but the header has {len(header)}. "
                    "Quote fields that contain the separator, and remove empty lines."
                )
            yield fields
    except csv.Error as problem:
        raise error(f"{path}, line {reader.line_num}: not valid CSV ({problem}).") from problem


def _check_header(path: Path, header: list[str], error: type[PolyheadError]) -> None:
    names = Counter(header)
    if "" in names:
        raise error(f"{path}, line 1: column {header.index('') + 1} has no name. Name it or remove it.")
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise error(f"{path}, line 1: column {twice[0]!r} stands {names[twice[0]]} times. Keep one.")
