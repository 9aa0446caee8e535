"""Which columns of a hospital's table a manifest's reserved columns are made of."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from polyhead.adapters.cells import recognise_findings
from polyhead.adapters.column_map import ColumnMap, FindingMap
from polyhead.errors import SourceError
from polyhead.findings import closest
from polyhead.manifest import RESERVED_COLUMNS

__all__ = ["ColumnSource", "choose_findings", "find_table", "resolve_columns"]

_NEEDED = ("image", "patient_id")
_NAMED = 20


@dataclass(frozen=True)
class ColumnSource:
    """What a reserved column is made of.

    Attributes
    ----------
    columns
        Columns of the table.
    texts
        What stands before, between and after them; one more than there are columns.
    """

    columns: tuple[str, ...]
    texts: tuple[str, ...] = ("", "")

    def expression(self) -> pl.Expr:
        """Return the column as text; null where one of its columns is."""
        parts = [pl.lit(self.texts[0])]
        for column, text in zip(self.columns, self.texts[1:], strict=True):
            parts += [pl.col(column), pl.lit(text)]
        return pl.concat_str(parts)


def find_table(root: Path, columns: ColumnMap) -> Path:
    """Return the table that the map names, or else the only CSV file in `root`.

    Raises
    ------
    SourceError
        `root` is no folder, the table lies outside it, or there is not one CSV file.
    """
    if not root.is_dir():
        raise SourceError(f"{root}: is not a folder. Give the folder of the table and its images.")
    if columns.table is None:
        found = sorted(path for path in root.iterdir() if path.suffix.lower() == ".csv" and path.is_file())
        if len(found) != 1:
            names = ", ".join(path.name for path in found[:_NAMED])
            what = f"{len(found)} CSV files: {names}" if found else "no CSV file"
            raise SourceError(f'{root}: {what}. Name the one to read in the map (--map): table = "labels.csv".')
        return found[0]
    path = root / columns.table
    if not path.resolve().is_relative_to(root.resolve()):
        raise SourceError(f"{columns.path}, key 'table': {columns.table!r} leads out of {root}. Keep it below.")
    return path


def resolve_columns(path: Path, header: Sequence[str], columns: ColumnMap) -> dict[str, ColumnSource]:
    """Find what each reserved column is made of: what the map says, or else the column of that name.

    Raises
    ------
    SourceError
        A column that is needed or named is not there; the nearest are named.
    """
    sources = {}
    for key in RESERVED_COLUMNS:
        name = columns.columns.get(key)
        if key in columns.from_dicom:
            continue
        if name is None:
            if key in header:
                sources[key] = ColumnSource((key,))
            elif key in _NEEDED:
                remedy = f'Say in the map (--map) which column it is: {key} = "...".'
                raise SourceError(f"{path}, line 1: no column {key!r}; {closest(key, header)}. {remedy}")
        elif key == "image" and name not in header and ("{" in name or "}" in name):
            sources[key] = _pattern(path, name, header, columns)
        else:
            sources[key] = ColumnSource((_known(path, name, header, key, columns),))
    return sources


def choose_findings(
    path: Path, table: pl.DataFrame, sources: Mapping[str, ColumnSource], columns: ColumnMap
) -> tuple[Mapping[str, FindingMap], list[str]]:
    """Return the findings that the map names, or else those recognised by their cells; and a note on unused columns.

    Parameters
    ----------
    path
        The table's file, for messages.
    table
        Its text; the first column is the line.
    sources
        As `resolve_columns` gives them.
    columns
        The map.

    Raises
    ------
    SourceError
        There is no finding, or a column of one is not there.
    """
    header = table.columns[1:]
    used = {name for source in sources.values() for name in source.columns}
    findings = columns.findings
    if findings is None:
        findings = recognise_findings(table, [name for name in header if name not in used], columns)
    if not findings:
        raise SourceError(
            f"{path}: no finding. Name the columns under [findings] of the map (--map), and under [labels] how their "
            "cells are spelt; without [findings], a column is one if all its cells are known spellings."
        )
    for name, one in findings.items():
        used |= {_known(path, column, header, f"findings.{name}", columns) for column in one.columns}
    unused = [name for name in header if name not in used]
    more = f" and {len(unused) - _NAMED} more" if len(unused) > _NAMED else ""
    return findings, [f"Columns not used: {', '.join(unused[:_NAMED])}{more}."] if unused else []


def _known(path: Path, name: str, header: Sequence[str], key: str, columns: ColumnMap) -> str:
    if name not in header:
        raise SourceError(f"{columns.path}, key {key!r}: no column {name!r} in {path}; {closest(name, header)}.")
    return name


def _pattern(path: Path, pattern: str, header: Sequence[str], columns: ColumnMap) -> ColumnSource:
    parts = re.split(r"\{([^{}]*)\}", pattern)
    texts, names = parts[::2], parts[1::2]
    if not names or any(brace in text for text in texts for brace in "{}"):
        example = '"images/{file}.png"'
        raise SourceError(
            f"{columns.path}, key 'image': found {pattern!r}. Put each column into one pair of braces: {example}."
        )
    return ColumnSource(tuple(_known(path, name, header, "image", columns) for name in names), tuple(texts))
