"""Delimited text, read as text: no value is guessed into a number, no line is dropped or padded."""

import csv
import io
from collections import Counter
from pathlib import Path

import polars as pl

from polyhead.errors import PolyheadError

__all__ = ["read_text_table"]

_SEPARATORS = ",;\t"


def read_text_table(path: Path, error: type[PolyheadError]) -> pl.DataFrame:
    """Read a CSV file with a header line; every column is text, an empty field is null.

    Commas, semicolons and tabs separate; a byte-order mark, CRLF line ends and Latin-1 are understood. A field may be
    quoted, but may not contain a line break, so that data row ``i`` (from 0) is line ``i + 2`` of the file.

    Raises
    ------
    PolyheadError
        Of the class `error`: the file is missing, empty or no text; a column has no name or stands twice; a line
        has another number of fields than the header.
    """
    try:
        raw = path.read_bytes().rstrip(b"\r\n")
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror}). Check the path and its permissions.") from problem
    if not raw or b"\0" in raw:
        raise error(f"{path}: is {'not text' if raw else 'empty'}. A CSV file with a header line is needed.")
    encoding = _encoding(raw)
    first_line = raw.split(b"\n", 1)[0].decode(encoding)
    separator = max(_SEPARATORS, key=first_line.count)
    _check_lines(path, io.TextIOWrapper(io.BytesIO(raw), encoding, newline=""), separator, error)
    text = raw if encoding == "utf-8-sig" else raw.decode(encoding).encode()
    return pl.read_csv(text, separator=separator, infer_schema=False).with_columns(
        pl.all().str.strip_chars().replace("", None)
    )


def _encoding(raw: bytes) -> str:
    try:
        raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _check_lines(path: Path, lines: io.TextIOWrapper, separator: str, error: type[PolyheadError]) -> None:
    """Refuse what polars would quietly pad, rename or shift."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
    try:
        header = next(reader)
        _check_header(path, header, error)
        for expected_line, fields in enumerate(reader, start=2):
            if reader.line_num != expected_line:
                raise error(f"{path}, line {expected_line}: a quoted field runs over the end of the line. Remove it.")
            if len(fields) != len(header):
                raise error(
                    f"{path}, line {expected_line}: {len(fields)} fields, but the header has {len(header)}. "
                    "Quote fields that contain the separator, and remove empty lines."
                )
    except csv.Error as problem:
        raise error(f"{path}, line {reader.line_num}: not valid CSV ({problem}).") from problem


def _check_header(path: Path, header: list[str], error: type[PolyheadError]) -> None:
    names = Counter(header)
    if "" in names:
        raise error(f"{path}, line 1: column {header.index('') + 1} has no name. Name it or remove it.")
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise error(f"{path}, line 1: column {twice[0]!r} stands {names[twice[0]]} times. Keep one.")
