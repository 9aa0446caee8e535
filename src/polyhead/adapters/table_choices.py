"""What a map says, as choices on record: every list, value and column that is not the built-in one."""

from collections.abc import Collection, Mapping

from polyhead.adapters.column_map import MEANINGS, ColumnMap, FindingMap
from polyhead.adapters.imported import Options

__all__ = ["say_findings", "say_map"]

_BUILT_IN = ColumnMap()


def say_map(columns: ColumnMap, options: Options, kept: Collection[str], own_splits: bool) -> dict[str, str]:
    """Return the choices behind all findings, views and splits.

    Parameters
    ----------
    columns
        The map.
    options
        What a person chose.
    kept
        The reserved columns that the manifest will have.
    own_splits
        Whether the table says the split of each image.
    """
    lists = _lists(columns.spellings, _BUILT_IN.spellings)
    empty = columns.spellings[""]
    choices = {
        "adapter": "table",
        "uncertain": f"{options.uncertain} (cells: {lists['uncertain']})"
        if "uncertain" in lists
        else options.uncertain,
        "not_mentioned": options.not_mentioned if empty == "not_annotated" else f"none: an empty cell is {empty}",
        **{f"labels {meaning}": spellings for meaning, spellings in lists.items()},
        "views": options.views if "view" in kept else "all, the table does not say which",
    }
    if columns.frontal_views != _BUILT_IN.frontal_views and "view" in kept:
        choices["frontal_views"] = " or ".join(sorted(columns.frontal_views)) or "none"
    if columns.split_values != _BUILT_IN.split_values and own_splits:
        added = columns.split_values.items() - _BUILT_IN.split_values.items()
        choices["split_values"] = ", ".join(f"{spelling} = {split}" for spelling, split in sorted(added))
    if columns.from_dicom:
        choices["from_dicom"] = ", ".join(columns.from_dicom)
    return choices


def say_findings(columns: ColumnMap, findings: Mapping[str, FindingMap]) -> dict[str, str]:
    """Return the choice behind each finding that is not just the column of its name, named in the map and spelt as all.

    Parameters
    ----------
    columns
        The map.
    findings
        Those that the map names, or those recognised by their cells.
    """
    choices = {}
    for name, one in findings.items():
        parts = ["recognised"] if columns.findings is None else []
        if len(one.columns) > 1:
            parts.append(f"any of {', '.join(one.columns)}")
        elif one.columns != (name,):
            parts.append(f"column {one.columns[0]}")
        lists = _lists(one.spellings, columns.spellings)
        parts += [f"{meaning} if {spellings}" for meaning, spellings in lists.items()]
        if parts:
            choices[f"finding {name}"] = "; ".join(parts)
    return choices


def _lists(spellings: Mapping[str, str], usual: Mapping[str, str]) -> dict[str, str]:
    """Return each list of spellings that differs from the usual one."""
    lists = {}
    for meaning in MEANINGS:
        own, other = ([text for text, said in some.items() if said == meaning] for some in (spellings, usual))
        if set(own) != set(other):
            lists[meaning] = " or ".join(text or "an empty cell" for text in own) or "no cell"
    return lists
