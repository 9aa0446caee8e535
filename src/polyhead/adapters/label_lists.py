"""Lists of labels as a program printed them: ``['normal', 'pleural effusion']``, read without running anything."""

import polars as pl

from polyhead.manifest import RESERVED_COLUMNS

__all__ = ["frequent_labels", "one_spelling", "parse_label_lists"]

# Without escapes: no label needs one, and what they would mean is no business of ours.
_ITEM = r"""(?:'[^'\\]*'|"[^"\\]*"|nan|None)"""
_LIST = rf"^\s*\[\s*(?:{_ITEM}\s*(?:,\s*{_ITEM}\s*)*,?\s*)?\]\s*$"
_CAN_BE_A_COLUMN = r"^[\p{L}\p{N}]\P{C}*$"


def parse_label_lists(text: pl.Series) -> pl.Series:
    """Read each text as a list of quoted labels.

    Returns
    -------
    polars.Series
        Of lists of text: distinct labels in their order, white space within made single, empty ones and ``nan`` left
        out; null where the text is null, or anything but such a list.
    """
    lists = pl.when(text.str.contains(_LIST)).then(text.str.extract_all(_ITEM))
    label = pl.element().str.replace(r"(?s)^['\"](.*)['\"]$", "$1").str.replace_all(r"\s+", " ").str.strip_chars(" ")
    cleaned = lists.list.eval(label.filter(~label.is_in(["", "nan", "None"]))).list.unique(maintain_order=True)
    return pl.select(cleaned.alias(text.name)).to_series()


def one_spelling(lists: pl.Series) -> pl.Series:
    """Spell labels that differ in upper and lower case only as most rows do; of equals, the first by alphabet."""
    counts = lists.explode().drop_nulls().value_counts(name="rows").rename({lists.name: "label"})
    ranked = counts.sort(["rows", "label"], descending=[True, False]).with_columns(
        usual=pl.col("label").first().over(pl.col("label").str.to_lowercase())
    )
    other = ranked.filter(pl.col("label") != pl.col("usual"))
    if not other.height:
        return lists
    respelt = pl.element().replace(other["label"], other["usual"])
    return lists.list.eval(respelt).list.unique(maintain_order=True)


def frequent_labels(lists: pl.Series, least: int) -> tuple[str, ...]:
    """Return the labels of at least `least` rows that can name a finding, in alphabetical order."""
    counts = lists.explode().drop_nulls().value_counts(name="rows").rename({lists.name: "label"})
    label = pl.col("label")
    named = label.str.contains(_CAN_BE_A_COLUMN) & ~label.str.to_lowercase().is_in([*RESERVED_COLUMNS, "mean"])
    return tuple(counts.filter((pl.col("rows") >= least) & named)["label"].sort())
