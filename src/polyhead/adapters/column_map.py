"""The map that says how to read a hospital's own table: a TOML file, every key of it optional.

.. code-block:: toml

    table = "labels.csv"            # below ROOT; by default the only CSV file there
    image = "images/{file}.png"     # a column, or a pattern with columns in braces; below ROOT
    patient_id = "pid"              # so too split, view, sex, age and study_id; by default the column of that name
    from_dicom = ["view"]           # these are read from the images' DICOM headers instead
    frontal_views = ["PA", "AP"]    # which values of view are frontal

    [split_values]                  # spelling = "train", "val" or "test"; adds to "training", "validation" and the like
    dev = "val"

    [labels]                        # spellings of cells; a list that is given takes the place of the built-in one
    positive = ["1", "yes"]         # so too negative, uncertain and not_annotated

    [findings]                      # by default every unused column all of whose cells are known spellings
    Cardiomegaly = "heart_enlarged"
    "Pleural Effusion" = ["effusion_left", "effusion_right"]
    Congestion = { column = "congestion_grade", positive = ["2", "3"], negative = ["0", "1"] }

Spellings, split and view are compared without regard to case and surrounding white space.
"""

import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from polyhead.errors import SourceError
from polyhead.findings import closest
from polyhead.manifest import RESERVED_COLUMNS, SPLITS
from polyhead.manifest_rules import OUTSIDE
from polyhead.toml_file import read_toml

__all__ = ["MEANINGS", "ColumnMap", "FindingMap", "is_finding_name", "plain", "read_column_map"]

MEANINGS = ("positive", "negative", "uncertain", "not_annotated")
"""What a cell can say. An empty cell is one of these like any other; if ``not_annotated``, it is "not mentioned"."""

# Single letters other than y and n are left out: "F" is more often a sex than a label.
_SPELLINGS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("1", "1.0", "yes", "y", "true", "present", "positive"), "positive"),
        **dict.fromkeys(("0", "0.0", "no", "n", "false", "absent", "negative"), "negative"),
        **dict.fromkeys(("-1", "-1.0", "?", "uncertain"), "uncertain"),
        **dict.fromkeys(("", "na", "nan", "n/a", "null", "unknown"), "not_annotated"),
    }
)
_SPLIT_VALUES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("train", "training"), "train"),
        **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
        **dict.fromkeys(("test", "testing"), "test"),
    }
)
_FRONTAL = ("pa", "ap", "frontal")
_IN_DICOM = ("patient_id", "study_id", "view", "sex", "age")
_TABLES = ("split_values", "labels", "findings")
_LISTS = ("from_dicom", "frontal_views")
_KEYS = ("table", *RESERVED_COLUMNS, *_LISTS, *_TABLES)


@dataclass(frozen=True)
class FindingMap:
    """Where a finding's labels stand.

    Attributes
    ----------
    columns
        One or more; any positive makes the finding positive, all negative make it negative, else it is blank.
    spellings
        ``{plain spelling: one of MEANINGS}``.
    """

    columns: tuple[str, ...]
    spellings: Mapping[str, str]


@dataclass(frozen=True)
class ColumnMap:
    """How to read a table; without arguments, what an empty map says.

    Attributes
    ----------
    path
        The file it was read from, for messages.
    table
        The table's path, relative to ROOT; None is the only CSV file there.
    columns
        ``{reserved column: the table's column}``, as far as the map says; ``image`` may be a pattern.
    from_dicom
        Reserved columns that are read from the images' headers.
    frontal_views
        Plain values of ``view`` that are frontal.
    split_values
        ``{plain spelling: split}``.
    spellings
        ``{plain spelling: one of MEANINGS}``.
    findings
        By name; None: they are recognised by their cells.
    """

    path: Path | None = None
    table: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    from_dicom: tuple[str, ...] = ()
    frontal_views: frozenset[str] = frozenset(_FRONTAL)
    split_values: Mapping[str, str] = field(default_factory=lambda: _SPLIT_VALUES)
    spellings: Mapping[str, str] = field(default_factory=lambda: _SPELLINGS)
    findings: Mapping[str, FindingMap] | None = None


def plain(text: str) -> str:
    """Return a spelling as it is compared: trimmed, without case."""
    return text.strip().casefold()


def is_finding_name(name: str) -> bool:
    """Return whether a manifest may have a finding of that name."""
    plain_text = name == name.strip() and name[:1].isalnum() and name.isprintable()
    return plain_text and name.casefold() not in (*RESERVED_COLUMNS, "mean")


def read_column_map(path: Path) -> ColumnMap:
    """Read a map.

    Raises
    ------
    SourceError
        Naming file and key of what was found, and what is allowed.
    """
    content = read_toml(path, SourceError)
    _check_keys(path, content)
    from_dicom = _texts(path, "from_dicom", content.get("from_dicom", []), _IN_DICOM)
    for key in from_dicom:
        if key in content:
            raise _error(path, key, f"is in 'from_dicom' too. Keep one: the column {content[key]!r}, or the header")
    spellings = _spellings(path, "labels", content.get("labels", {}), _SPELLINGS)
    findings = {name: _finding(path, name, value, spellings) for name, value in content.get("findings", {}).items()}
    views = _texts(path, "frontal_views", content.get("frontal_views", list(_FRONTAL)))
    return ColumnMap(
        path=path,
        table=content.get("table"),
        columns={key: content[key] for key in RESERVED_COLUMNS if key in content},
        from_dicom=from_dicom,
        frontal_views=frozenset(map(plain, views)),
        split_values=_split_values(path, content.get("split_values", {})),
        spellings=spellings,
        findings=findings if "findings" in content else None,
    )


def _error(path: Path, key: str, text: str) -> SourceError:
    return SourceError(f"{path}, key {key!r}: {text}.")


def _check_keys(path: Path, content: Mapping[str, Any]) -> None:
    for key, value in content.items():
        if key not in _KEYS:
            raise _error(path, key, f"is unknown; {closest(key, _KEYS)}")
        if key in _TABLES and not isinstance(value, dict):
            raise _error(path, key, f"found {reprlib.repr(value)}; a table is needed: [{key}] on a line of its own")
        if key not in (*_TABLES, *_LISTS) and not (isinstance(value, str) and value.strip()):
            raise _error(path, key, f"found {reprlib.repr(value)}; text is needed")
    for key in ("table", "image"):
        if re.search(OUTSIDE, content.get(key, "")):
            raise _error(path, key, f"{content[key]!r} leads out of ROOT. Give a path below it")


def _texts(path: Path, key: str, value: Any, allowed: Sequence[str] | None = None) -> tuple[str, ...]:
    """Check a list of text; numbers are refused, because 1 and 1.0 are two spellings."""
    if not isinstance(value, list):
        raise _error(path, key, f"found {reprlib.repr(value)}; a list of text is needed")
    for one in value:
        if not isinstance(one, str):
            raise _error(path, key, f"found {one!r} in the list; text is needed: put it in quotes")
        if allowed is not None and one not in allowed:
            raise _error(path, key, f"{one!r} is unknown; {closest(one, allowed)}")
    return tuple(value)


def _split_values(path: Path, table: Mapping[str, Any]) -> dict[str, str]:
    for spelling, split in table.items():
        if split not in SPLITS:
            raise _error(path, f"split_values.{spelling}", f"found {split!r}; allowed: {', '.join(SPLITS)}")
    return {**_SPLIT_VALUES, **{plain(spelling): split for spelling, split in table.items()}}


def _spellings(path: Path, key: str, table: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, str]:
    """Let the lists of a map take the place of those known; a spelling that a map lists leaves the other lists.

    An empty cell keeps its meaning unless it is listed itself.
    """
    stated: dict[str, str] = {}
    for meaning, values in table.items():
        where = f"{key}.{meaning}"
        if meaning not in MEANINGS:
            raise _error(path, where, f"is unknown; {closest(meaning, MEANINGS)}")
        for value in _texts(path, where, values):
            other = stated.setdefault(plain(value), meaning)
            if other != meaning:
                raise _error(path, where, f"{value!r} is in {other!r} too. Keep one")
    kept = {spelling: meaning for spelling, meaning in known.items() if meaning not in table or not spelling}
    return {**kept, **stated}


def _finding(path: Path, name: str, value: Any, spellings: Mapping[str, str]) -> FindingMap:
    key = f"findings.{name}"
    if not is_finding_name(name):
        raise _error(path, key, "cannot be a finding: a name begins with a letter or digit, and has no other meaning")
    if not isinstance(value, dict):
        return FindingMap(_columns(path, key, value), spellings)
    columns = _columns(path, f"{key}.column", value.get("column"))
    lists = {meaning: values for meaning, values in value.items() if meaning != "column"}
    return FindingMap(columns, _spellings(path, key, lists, spellings))


def _columns(path: Path, key: str, value: Any) -> tuple[str, ...]:
    columns = _texts(path, key, value) if isinstance(value, list) else (value,)
    if not columns or not all(isinstance(column, str) and column.strip() for column in columns):
        raise _error(path, key, f"found {reprlib.repr(value)}; allowed is a column's name, or a list of names")
    return columns
