"""Published tables, whole and damaged."""

import csv
import gzip
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from polyhead.adapters import source_files
from polyhead.adapters.source_files import check_key, find_file, read_lines, read_source
from polyhead.errors import SourceError

PAGE = "the download page"
CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


def read(path: Path, content: bytes | str, columns: list[str], **how: bool) -> pl.DataFrame:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_source(path, PAGE, columns, **how)


def refusal(path: Path, content: bytes | str, columns: list[str], **how: bool) -> str:
    with pytest.raises(SourceError) as problem:
        read(path, content, columns, **how)
    assert str(path) in str(problem.value)
    return str(problem.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8), st.booleans())
def test_a_table_is_read_as_it_was_written(tmp_path: Path, rows: list[tuple[str, str]], packed: bool) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    content = text.getvalue().encode()
    table = read(tmp_path / "t.csv", gzip.compress(content) if packed else content, ["b", "a"])
    assert table.columns == ["b", "a"]
    expected = pl.DataFrame(rows, {"a": pl.String, "b": pl.String}, orient="row").select("b", "a")
    assert table.equals(expected.with_columns(pl.all().str.strip_chars().replace("", None)))


def test_line_breaks_quotes_marks_and_other_columns_are_no_obstacle(tmp_path: Path) -> None:
    content = '\ufeff,b ,report\r\n0, 1 ,"two\r\nlines, ""quoted"""\r\n1,,5" tube\r\n'
    assert read(tmp_path / "t.csv", content, ["b"])["b"].to_list() == ["1", None]
    assert read(tmp_path / "t.csv", content.encode("latin-1", "ignore"), ["report"])["report"][0].endswith('"quoted"')
    latin = "name\nFrançois\n".encode("latin-1")
    assert read(tmp_path / "t.csv", latin, ["name"])["name"].to_list() == ["François"]


def test_a_comma_too_many_is_allowed_where_it_is_published_so(tmp_path: Path) -> None:
    for content in ("a,b,\n1,2,\n", "a,b\n1,2,\n", "a,b,\n1,2\n"):
        assert read(tmp_path / "t.csv", content, ["b"], trailing_comma=True)["b"].to_list() == ["2"]
    assert "line 2: 3 fields, but the header has 2" in refusal(tmp_path / "t.csv", "a,b\n1,2,\n", ["a"])
    assert "line 2: 3 fields" in refusal(tmp_path / "t.csv", "a,b\n1,2,3\n", ["a"], trailing_comma=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\xef\xbb\xbf\n", "is empty"),
        (b"a,b\n", "no rows"),
        (b"\x89PNG\0\0", "not text"),
        (gzip.compress(b"a,b\n1,2\n" * 999, mtime=0)[:-20], "cannot be read"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:5] + b"xxxxxxxxxxx", "cannot be read"),
        (b"a,c\n1,2\n", "line 1: no column 'b'; known: a, c. The published table has it: the download page"),
        (b"a,b,b\n1,2,3\n", "column 'b' stands 2 times"),
        (b"a,b\n1,2\n1\n", "line 3: 1 fields, but the header has 2"),
        (b'a,b\n1,"2\n', "not valid CSV"),
        (b"a,b\n1,2\n\n3,4\n", "line 3: 0 fields"),
    ],
)
def test_a_damaged_or_foreign_table_is_refused_and_named(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refusal(tmp_path / "t.csv", content, ["a", "b"])


def test_a_table_whose_columns_are_all_known_may_have_no_other(tmp_path: Path) -> None:
    said = refusal(tmp_path / "t.csv", "Edema,Oedemas\n1,2\n", ["Edema"], others=False)
    assert "unknown column 'Oedemas'; closest: Edema" in said
    assert PAGE in said
    table = read_source(tmp_path / "t.csv", PAGE, ["Edema"], optional=["Oedemas", "Age"], others=False)
    assert table.columns == ["Edema", "Oedemas"]


@pytest.mark.parametrize("packed", [False, True])
def test_what_unpacks_beyond_all_measure_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(source_files, "_MAX_BYTES", 1000)
    content = b"a\n" + b"1\n" * 499
    pack = gzip.compress if packed else bytes
    assert "more than 1,000 bytes" in refusal(tmp_path / "t.csv", pack(content + b"1\n"), ["a"])
    assert read(tmp_path / "t.csv", pack(content), ["a"]).height == 499


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
@example(b"\n\x01")
@example(b"\xef\xbb\xbf")
def test_bytes_of_any_kind_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    for whole in (content, b"a,b\n" + content, b"\x1f\x8b" + content):
        try:
            table = read(tmp_path / "t.csv", whole, ["a"], trailing_comma=True)
        except SourceError:
            continue
        assert table.columns == ["a"]


def test_a_missing_file_is_named_with_the_page_that_has_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no file x\*\.csv or y\.csv\. It comes with .*: the download page"):
        find_file(tmp_path, ["x*.csv", "y.csv"], PAGE)
    with pytest.raises(SourceError, match="is not a folder"):
        find_file(tmp_path / "nowhere", ["x.csv"], PAGE)
    (tmp_path / "x1.csv").touch()
    assert find_file(tmp_path, ["x*.csv", "y.csv"], PAGE) == tmp_path / "x1.csv"
    (tmp_path / "x2.csv").touch()
    with pytest.raises(SourceError, match=r"2 files fit x\*\.csv: x1\.csv, x2\.csv\. Keep one"):
        find_file(tmp_path, ["x*.csv"], PAGE)


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(SourceError, match="cannot be read"):
        read_source(tmp_path / "t.csv", PAGE, ["a"])


def test_a_list_is_one_name_a_line(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.png\r\n\n b.png \nc.png")
    assert read_lines(tmp_path / "list.txt", PAGE).to_list() == ["a.png", "b.png", "c.png"]


def test_a_key_is_neither_blank_nor_twice() -> None:
    frame = pl.DataFrame({"a": ["1", "1", "2", "2"], "b": ["x", "y", "x", "x"], "c": ["1", None, "2", "3"]})
    check_key(frame.head(3), ["a", "b"], Path("t.csv"))
    with pytest.raises(SourceError, match=r"t\.csv: a '2', b 'x' stands on several lines \(1 such\)"):
        check_key(frame, ["a", "b"], Path("t.csv"))
    with pytest.raises(SourceError, match=r"t\.csv: 1 lines have a blank c"):
        check_key(frame, ["c"], Path("t.csv"))
