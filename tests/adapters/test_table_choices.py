"""What a map says is on record, and what is built in is not repeated."""

from pathlib import Path

import pytest

from polyhead.adapters.column_map import ColumnMap, read_column_map
from polyhead.adapters.imported import Options
from polyhead.adapters.table_choices import say_findings, say_map

USUAL = {"adapter": "table", "uncertain": "blank", "not_mentioned": "blank", "views": "frontal"}


def read(folder: Path, text: str) -> ColumnMap:
    path = folder / "columns.toml"
    path.write_text(text)
    return read_column_map(path)


def said(folder: Path, text: str, options: Options | None = None) -> dict[str, str]:
    return say_map(read(folder, text), options or Options(), ("image", "split", "view"), True)


def test_what_is_built_in_is_not_repeated(tmp_path: Path) -> None:
    assert said(tmp_path, "") == USUAL
    same = 'frontal_views = ["ap", "PA", "Frontal"]\n[labels]\nuncertain = ["?", "-1", "-1.0", "Uncertain"]\n'
    assert said(tmp_path, same + '[split_values]\nTraining = "train"') == USUAL
    assert say_map(ColumnMap(), Options(), ("image", "split"), False) == {
        **USUAL,
        "views": "all, the table does not say which",
    }


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ('frontal_views = ["PA", "Front"]', {"frontal_views": "front or pa"}),
        ("frontal_views = []", {"frontal_views": "none"}),
        ('[split_values]\nB = "val"\na = "train"\ntest = "val"', {"split_values": "a = train, b = val, test = val"}),
        ('from_dicom = ["view", "sex"]', {"from_dicom": "view, sex"}),
        ('[labels]\npositive = ["ja", "j"]', {"labels positive": "ja or j"}),
        ('[labels]\nnegative = ["nein"]', {"labels negative": "nein"}),
        (
            '[labels]\nuncertain = ["unklar"]',
            {"labels uncertain": "unklar", "uncertain": "blank (cells: unklar)"},
        ),
        ("[labels]\nuncertain = []", {"labels uncertain": "no cell", "uncertain": "blank (cells: no cell)"}),
        ('[labels]\nnot_annotated = ["9"]', {"labels not_annotated": "an empty cell or 9"}),
    ],
)
def test_what_a_map_says_otherwise_is_stated(text: str, stated: dict[str, str], tmp_path: Path) -> None:
    assert said(tmp_path, text) == USUAL | stated


def test_a_spelling_that_leaves_the_uncertain_ones_is_stated_with_both_lists(tmp_path: Path) -> None:
    told = said(tmp_path, '[labels]\npositive = ["1", "?"]')
    assert told["labels positive"] == "? or 1"
    assert told["labels uncertain"] == "-1 or -1.0 or uncertain"
    assert told["uncertain"] == "blank (cells: -1 or -1.0 or uncertain)"


def test_an_empty_cell_that_means_something_is_not_called_blank(tmp_path: Path) -> None:
    told = said(tmp_path, '[labels]\nnegative = ["0", ""]', Options(not_mentioned="positive"))
    assert told["not_mentioned"] == "none: an empty cell is negative"
    assert told["labels negative"] == "an empty cell or 0"


def test_views_and_splits_that_the_table_has_not_are_not_stated() -> None:
    columns = ColumnMap(frontal_views=frozenset({"x"}), split_values={"x": "train"})
    assert set(say_map(columns, Options(), ("image", "split"), False)) == set(USUAL)


def test_each_finding_says_its_columns_and_spellings(tmp_path: Path) -> None:
    text = (
        '[labels]\npositive = ["ja"]\n[findings]\nEdema = "Edema"\nMass = "m"\nEffusion = ["l", "r"]\n'
        'Hernia = { column = "Hernia", positive = ["?"] }\n'
    )
    columns = read(tmp_path, text)
    assert columns.findings is not None
    assert say_findings(columns, columns.findings) == {
        "finding Mass": "column m",
        "finding Effusion": "any of l, r",
        "finding Hernia": "positive if ?; uncertain if -1 or -1.0 or uncertain",
    }
