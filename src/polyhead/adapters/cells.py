"""A hospital's cells, read as labels; what is understood in no way is refused with its place."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import polars as pl

from polyhead.adapters.column_map import ColumnMap, FindingMap, is_finding_name, plain
from polyhead.adapters.imported import Options
from polyhead.adapters.labels import policy_value
from polyhead.errors import SourceError

__all__ = ["LINE", "label_findings", "recognise_findings", "refuse_cells"]

LINE = "\0line"
"""Column with the line in the file; no header can hold this name."""

_CODES = MappingProxyType({"positive": 1, "negative": 0, "uncertain": -1, "not_annotated": -2})
_NOT_MENTIONED = -3
_SHOWN = 5
_LONGEST = 40
_REMEDY = "Write the spelling into one of the lists under [labels] of the map, or mend the cells."


def refuse_cells(path: Path, bad: pl.DataFrame, why: str, remedy: str) -> None:
    """Refuse a table because of some cells, if there are any.

    Parameters
    ----------
    path
        The table.
    bad
        A row a cell: `LINE`, ``column`` and ``value`` (text, null if empty).
    why
        Follows the value, as in ``line 3, column 'split': '4' WHY``.
    remedy
        What is allowed and what to do.

    Raises
    ------
    SourceError
        Showing the first cells and the number of all.
    """
    if not bad.height:
        return
    lines = [
        f"{path}, line {line}, column {column!r}: {_shown(value)} {why}."
        for line, column, value in bad.sort(LINE).head(_SHOWN).select(LINE, "column", "value").iter_rows()
    ]
    if bad.height > _SHOWN:
        lines.append(f"{path}: and {bad.height - _SHOWN:,} cells more.")
    raise SourceError("\n".join([*lines, remedy]))


def recognise_findings(table: pl.DataFrame, unused: Sequence[str], columns: ColumnMap) -> dict[str, FindingMap]:
    """Return the columns that are findings by their cells: all of them known spellings, and one at least a label."""
    return {
        name: FindingMap((name,), columns.spellings)
        for name in unused
        if is_finding_name(name) and _says_labels(table[name], columns.spellings)
    }


def label_findings(
    path: Path, table: pl.DataFrame, findings: Mapping[str, FindingMap], options: Options
) -> tuple[pl.DataFrame, list[str]]:
    """Read every finding's cells.

    Parameters
    ----------
    path
        The table's file, for messages.
    table
        Text, with `LINE` and every column of `findings`.
    findings
        By name.
    options
        What becomes of uncertain and of empty cells.

    Returns
    -------
    polars.DataFrame
        A column a finding, Int8: 1, 0 or null.
    list of str
        How many cells were uncertain, and how many empty.

    Raises
    ------
    SourceError
        Cells whose spelling is in no list: line, column and value of the first, and how many there are.
    """
    read = {
        name: {column: _meanings(table[column], one.spellings) for column in one.columns}
        for name, one in findings.items()
    }
    cells = [(column, meanings) for columns in read.values() for column, meanings in columns.items()]
    unknown = [
        table.filter(meanings.is_null()).select(LINE, pl.lit(column).alias("column"), pl.col(column).alias("value"))
        for column, meanings in cells
        if meanings.null_count()
    ]
    if unknown:
        refuse_cells(path, pl.concat(unknown).unique(), "is in no list of spellings", _REMEDY)
    labels = [_combine(columns.values(), options).alias(name) for name, columns in read.items()]
    return pl.DataFrame(labels), _notes(dict(cells), options)


def _meanings(cells: pl.Series, spellings: Mapping[str, str]) -> pl.Series:
    """Return a code for each cell, null where its spelling is in no list."""
    codes = {value: _code(value, spellings) for value in cells.unique()}
    return cells.replace_strict(list(codes), list(codes.values()), return_dtype=pl.Int8)


def _code(cell: str | None, spellings: Mapping[str, str]) -> int | None:
    meaning = spellings.get(plain(cell or ""))
    if not cell and meaning == "not_annotated":
        return _NOT_MENTIONED
    return None if meaning is None else _CODES[meaning]


def _says_labels(cells: pl.Series, spellings: Mapping[str, str]) -> bool:
    codes = {_code(value, spellings) for value in cells.unique()}
    return None not in codes and not codes <= {_NOT_MENTIONED, _CODES["not_annotated"]}


def _combine(columns: Iterable[pl.Series], options: Options) -> pl.Series:
    """Settle the columns of a finding by the policies, then join them: any 1 gives 1, all 0 give 0, else null."""
    settled = {
        **{1: 1, 0: 0, _CODES["not_annotated"]: None},
        _CODES["uncertain"]: policy_value(options.uncertain),
        _NOT_MENTIONED: policy_value(options.not_mentioned),
    }
    labels = [codes.replace_strict(settled, return_dtype=pl.Int8) for codes in columns]
    present = pl.any_horizontal(label == 1 for label in labels)
    absent = pl.all_horizontal(label == 0 for label in labels)
    return pl.select(pl.when(present).then(1).when(absent).then(0).cast(pl.Int8)).to_series()


def _notes(cells: Mapping[str, pl.Series], options: Options) -> list[str]:
    """Count what the policies settled, each column of the table once."""
    uncertain = sum(int((codes == _CODES["uncertain"]).sum()) for codes in cells.values())
    silent = sum(int((codes == _NOT_MENTIONED).sum()) for codes in cells.values())
    notes = [(uncertain, "uncertain", options.uncertain), (silent, "empty", options.not_mentioned)]
    return [f"Cells that are {kind} and became {policy}: {count:,}." for count, kind, policy in notes if count]


def _shown(value: str | None) -> str:
    if value is None:
        return "nothing"
    return repr(value if len(value) <= _LONGEST else value[:_LONGEST] + "...")
