"""Delimited text, read as text: no value is guessed into a number, no line is dropped or padded.

Two readers give the same table. A file without quotes is counted and parsed in bulk; any other, and any that bulk
counting finds at fault, goes line by line through `csv`, which knows the exact line.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from polyhead.errors import PolyheadError
from polyhead.limited_file import read_limited

__all__ = ["read_text_table", "rows_to_frame"]

_SEPARATORS = ",;\t"
_MAX_BYTES = 2**31  # some 10 million lines
_MARK = b"\xef\xbb\xbf"  # byte-order mark of UTF-8
_PADDED = r"^\s|\s$"
_BLOCK = 2**24
_LONGEST_LINE = 100_000  # `csv` refuses fields that are longer than 131,072 characters


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
    frame = _parse(path, error)
    # Column by column, and only where there is something to drop: all at once would hold every value twice.
    for index, values in enumerate(frame.iter_columns()):
        if (values == "").any() or values.str.contains(_PADDED).any():
            bare = values.str.strip_chars()
            frame.replace_column(index, bare.set(bare == "", None))
    return frame


def _parse(path: Path, error: type[PolyheadError]) -> pl.DataFrame:
    raw = _read_bytes(path, error)
    encoding = _encoding(raw)
    separator = max(_SEPARATORS, key=raw.split(b"\n", 1)[0].decode(encoding).count)
    frame = _read_in_bulk(path, raw, encoding, separator, error)
    return _read_line_by_line(path, raw, encoding, separator, error) if frame is None else frame


def _read_bytes(path: Path, error: type[PolyheadError]) -> bytes:
    raw = read_limited(path, error, _MAX_BYTES).rstrip(b"\r\n")
    if not raw or b"\0" in raw:
        raise error(f"{path}: is {'not text' if raw else 'empty'}. A CSV file with a header line is needed.")
    return raw


def _encoding(raw: bytes) -> str:
    if not raw.isascii():
        try:
            raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            return "latin-1"
    return "utf-8-sig"


def _read_in_bulk(
    path: Path, raw: bytes, encoding: str, separator: str, error: type[PolyheadError]
) -> pl.DataFrame | None:
    """Read a plain file; None if it is not plain, or if its lines do not all have as many fields as the header."""
    if encoding == "latin-1":
        raw = raw.decode("latin-1").encode()
    raw = raw.removeprefix(_MARK)
    carriage_returns = raw.count(b"\r")
    if b'"' in raw or carriage_returns != raw.count(b"\r\n"):
        return None
    if carriage_returns:
        raw = raw.replace(b"\r\n", b"\n")
    first, _, rest = raw.partition(b"\n")
    header = [name.strip() for name in first.decode().split(separator)]
    # Of a single column an empty line would look like an empty field; and polars would drop a second mark.
    if len(header) < 2 or rest.startswith(_MARK) or not _is_rectangle(raw, separator, len(header)):
        return None
    del raw
    _check_header(path, header, error)
    return _frame(rest, header, separator, quote=None)


def _is_rectangle(raw: bytes, separator: str, columns: int) -> bool:
    """Say whether every line has as many fields as there are columns, and none is overlong."""
    text = np.frombuffer(raw, np.uint8)
    blocks = [text[start : start + _BLOCK] for start in range(0, len(text), _BLOCK)]
    marks = np.concatenate([block[(block == ord(separator)) | (block == ord("\n"))] for block in blocks])
    marks = np.append(marks, np.uint8(ord("\n")))
    if len(marks) % columns:
        return False
    ends = marks.reshape(-1, columns) == ord("\n")
    if not ends[:, -1].all() or ends[:, :-1].any():
        return False
    breaks = [np.flatnonzero(block == ord("\n")) + number * _BLOCK for number, block in enumerate(blocks)]
    return bool(np.diff(np.concatenate([[-1], *breaks, [len(text)]])).max() <= _LONGEST_LINE)


def _read_line_by_line(
    path: Path, raw: bytes, encoding: str, separator: str, error: type[PolyheadError]
) -> pl.DataFrame:
    lines = _checked_lines(path, io.TextIOWrapper(io.BytesIO(raw), encoding, newline=""), separator, error)
    return rows_to_frame(lines, next(lines))


def rows_to_frame(rows: Iterable[Sequence[str]], header: list[str]) -> pl.DataFrame:
    """Return rows that `csv` has parsed, each with a field for every name of the header, as columns of text."""
    # Written out again, so that polars, which is stricter about quotes than csv, sees but one way of quoting.
    plain = io.BytesIO()
    text = io.TextIOWrapper(plain, "utf-8", newline="", write_through=True)
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return _frame(plain.getvalue(), header, ",", quote='"')


def _frame(rows: bytes, header: list[str], separator: str, *, quote: str | None) -> pl.DataFrame:
    schema = dict.fromkeys(header, pl.String)
    if not rows:
        return pl.DataFrame(schema=schema)
    return pl.read_csv(rows, has_header=False, schema=schema, separator=separator, quote_char=quote)


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
