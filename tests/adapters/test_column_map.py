"""The map of a table's columns: what it may say, and how a slip is pointed out."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.adapters import column_map
from polyhead.adapters.column_map import ColumnMap, FindingMap, is_finding_name, read_column_map
from polyhead.errors import SourceError
from polyhead.manifest import RESERVED_COLUMNS

WHOLE = """
table = "labels.csv"
image = "images/{file}.png"
patient_id = "pid"
from_dicom = ["view", "age"]
frontal_views = ["AP ", "Pa"]
[split_values]
Dev = "val"
[labels]
positive = ["Ja", "1"]
not_annotated = ["k.A."]
[findings]
A = "a"
B = ["b left", "b right"]
C = { column = "c", positive = ["2", "3"], negative = ["0", "1"] }
D = { column = ["d", "e"] }
"""


def read(folder: Path, text: str | bytes) -> ColumnMap:
    path = folder / "columns.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_column_map(path)


def test_everything_that_a_map_says(tmp_path: Path) -> None:
    found = read(tmp_path, WHOLE)
    assert found.table == "labels.csv"
    assert found.columns == {"image": "images/{file}.png", "patient_id": "pid"}
    assert found.from_dicom == ("view", "age")
    assert found.frontal_views == {"ap", "pa"}
    assert found.split_values["dev"] == found.split_values["validation"] == "val"
    positive = {spelling for spelling, meaning in found.spellings.items() if meaning == "positive"}
    assert positive == {"ja", "1"}
    assert {spelling for spelling, meaning in found.spellings.items() if meaning == "not_annotated"} == {"k.a.", ""}
    assert found.spellings["no"] == "negative"
    assert found.findings is not None
    assert found.findings["A"] == FindingMap(("a",), found.spellings)
    assert found.findings["B"].columns == ("b left", "b right")
    grades = found.findings["C"].spellings
    assert [grades.get(grade) for grade in ("0", "1", "2", "3", "ja", "no", "k.a.", "?")] == [
        *("negative", "negative", "positive", "positive", None, None, "not_annotated", "uncertain")
    ]
    assert found.findings["D"].columns == ("d", "e")


def test_an_empty_map_is_no_map(tmp_path: Path) -> None:
    found, default = read(tmp_path, "\ufeff"), ColumnMap()
    for name in ("table", "columns", "from_dicom", "frontal_views", "split_values", "spellings", "findings"):
        assert getattr(found, name) == getattr(default, name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('tabel = "x.csv"', "key 'tabel': is unknown; closest: table, labels."),
        ('patient = "x"', "key 'patient': is unknown; closest: patient_id."),
        ("table = 3", "key 'table': found 3; text is needed."),
        ('view = " "', "key 'view': found ' '; text is needed."),
        ('table = "../x.csv"', "key 'table': '../x.csv' leads out of ROOT. Give a path below it."),
        ('table = "/x.csv"', "leads out of ROOT"),
        ('image = "a/../../{file}"', "key 'image': 'a/../../{file}' leads out of ROOT"),
        ('image = "~/{file}"', "leads out of ROOT"),
        ('image = "C:/{file}"', "leads out of ROOT"),
        ('from_dicom = "view"', "key 'from_dicom': found 'view'; a list of text is needed."),
        (
            'from_dicom = ["split"]',
            "key 'from_dicom': 'split' is unknown; known: age, patient_id, sex, study_id, view.",
        ),
        ('view = "v"\nfrom_dicom = ["view"]', "key 'view': is in 'from_dicom' too. Keep one: the column 'v'"),
        ("frontal_views = [1]", "key 'frontal_views': found 1 in the list; text is needed: put it in quotes."),
        (
            'split_values = "x"',
            "key 'split_values': found 'x'; a table is needed: [split_values] on a line of its own.",
        ),
        ('[split_values]\nx = "dev"', "key 'split_values.x': found 'dev'; allowed: train, val, test."),
        ("[split_values]\nx = []", "key 'split_values.x': found []; allowed: train, val, test."),
        ('[labels]\npositiv = ["x"]', "key 'labels.positiv': is unknown; closest: positive."),
        ('[labels]\npositive = "x"', "key 'labels.positive': found 'x'; a list of text is needed."),
        ("[labels]\npositive = [1]", "key 'labels.positive': found 1 in the list; text is needed: put it in quotes."),
        (
            '[labels]\npositive = ["x"]\nnegative = ["X "]',
            "key 'labels.negative': 'X ' is in 'positive' too. Keep one.",
        ),
        ("[findings]\nx = 3", "key 'findings.x': found 3; allowed is a column's name, or a list of names."),
        ("[findings]\nx = []", "key 'findings.x': found []; allowed is"),
        ('[findings]\nx = [""]', "key 'findings.x': found ['']; allowed is"),
        ('[findings]\nx = { positive = ["2"] }', "key 'findings.x.column': found None; allowed is"),
        ('[findings]\nx = { column = "c", graded = ["2"] }', "key 'findings.x.graded': is unknown; known: negative"),
        ('[findings]\n"=x" = "c"', "key 'findings.=x': cannot be a finding"),
        ('[findings]\nAge = "c"', "key 'findings.Age': cannot be a finding"),
        ('[findings]\n"" = "c"', "key 'findings.': cannot be a finding"),
        ("table = ", "not valid TOML"),
        (b"\xff\xfe", "not valid TOML"),
    ],
)
def test_a_slip_is_pointed_out_with_its_key(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as problem:
        read(tmp_path, text)
    assert str(problem.value).startswith(str(tmp_path / "columns.toml"))
    assert message in str(problem.value)


def test_a_map_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"absent\.toml: cannot be read .* Check the path"):
        read_column_map(tmp_path / "absent.toml")


@pytest.mark.parametrize("name", ["", " x", "x ", "-x", "=1", "a\nb", "mean", "Mean", *RESERVED_COLUMNS])
def test_names_that_no_finding_may_have(name: str) -> None:
    assert not is_finding_name(name)


@given(place=st.integers(0, len(WHOLE) - 1), inserted=st.binary(max_size=3))
def test_a_mutated_map_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, inserted: bytes
) -> None:
    raw = WHOLE.encode()
    with contextlib.suppress(SourceError):
        read(tmp_path_factory.mktemp("fuzz"), raw[:place] + inserted + raw[place + 1 :])


def test_what_leads_out_of_a_folder_is_written_down_once() -> None:
    sources = Path(column_map.__file__).parents[1].rglob("*.py")
    homes = [path.name for path in sources if r"\.\.([/\\]|$)" in path.read_text()]
    assert homes == ["manifest_rules.py"]
