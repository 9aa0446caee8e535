"""Text tables: two readers, one result; the exact line of what is wrong."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from polyhead import tables
from polyhead.errors import ManifestError
from polyhead.tables import read_text_table

SEPARATORS = ",;\t"
WHITE = " \t\x0b\x0c\x85\xa0\u2003\u3000"


def read(tmp_path: Path, raw: bytes) -> list[tuple[str | None, ...]]:
    (tmp_path / "table.csv").write_bytes(raw)
    frame = read_text_table(tmp_path / "table.csv", ManifestError)
    return [tuple(frame.columns), *frame.rows()]


def outcome(path: Path) -> object:
    try:
        frame = read_text_table(path, ManifestError)
    except ManifestError as problem:
        return str(problem)
    return frame.columns, frame.dtypes, frame.rows()


def same_both_ways(path: Path, raw: bytes) -> object:
    """Read a file with both readers, then line by line alone; give the result."""
    path.write_bytes(raw)
    fast = outcome(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_read_in_bulk", lambda *arguments: None)
        assert outcome(path) == fast
    return fast


def was_read_in_bulk(path: Path, raw: bytes) -> bool:
    path.write_bytes(raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_read_line_by_line", lambda *arguments: pytest.fail("line by line"))
        try:
            read_text_table(path, ManifestError)
        except pytest.fail.Exception:
            return False
    return True


field = st.text(st.sampled_from('ab01.é ß\u3000\ufeff"#\\' + SEPARATORS), max_size=4)
row = st.lists(field, min_size=1, max_size=4)


@settings(max_examples=400)
@given(
    rows=st.lists(row, min_size=1, max_size=5),
    separator=st.sampled_from(SEPARATORS),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "latin-1", "cp1252"]),
)
@example(rows=[["a", "b"], ["\ufeff", "1"]], separator=",", end="\n", encoding="utf-8")
@example(rows=[["a", "b"], ["", ""]], separator=",", end="\n", encoding="utf-8-sig")
@example(rows=[["a"], [""], ["b"]], separator=",", end="\n", encoding="utf-8")
def test_both_readers_say_the_same_of_any_table(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], separator: str, end: str, encoding: str
) -> None:
    raw = end.join(separator.join(one) for one in rows).encode(encoding, errors="replace")
    same_both_ways(tmp_path_factory.getbasetemp() / "both.csv", raw)


@settings(max_examples=200)
@given(raw=st.binary(max_size=60))
def test_both_readers_say_the_same_of_any_bytes(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    same_both_ways(tmp_path_factory.getbasetemp() / "bytes.csv", raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"a,b\n1,2\n",
        b"a;b\r\n1;2",
        b"\xef\xbb\xbfa\tb\n\t\n",
        b"a,b\n",
        b"\xc4,b\n \xfc,2\n",
        "Ä,b\nü,2\n".encode(),
        b"a,b\n#1,2\n",
    ],
)
def test_a_plain_file_is_read_in_bulk(raw: bytes, tmp_path: Path) -> None:
    assert was_read_in_bulk(tmp_path / "table.csv", raw)


@pytest.mark.parametrize(
    "raw", [b'a,b\n"1",2\n', b"a,b\r1,2\r", b"a,b\n1\r,2\n", b"a\n1\n", b"a,b\n" + b"x" * 100_001 + b",2"]
)
def test_a_file_that_is_not_plain_goes_line_by_line(raw: bytes, tmp_path: Path) -> None:
    assert not was_read_in_bulk(tmp_path / "table.csv", raw)
    same_both_ways(tmp_path / "table.csv", raw)


def test_rows_keep_their_lines_and_blanks_are_null(tmp_path: Path) -> None:
    assert read(tmp_path, b"a,b\n1,\n ,2\n") == [("a", "b"), ("1", None), (None, "2")]


def test_white_space_around_values_is_dropped_and_inside_is_kept(tmp_path: Path) -> None:
    raw = f"a;b\n{WHITE}x y{WHITE};{WHITE}\n".encode()
    assert read(tmp_path, raw) == [("a", "b"), ("x y", None)]


def test_nothing_is_guessed(tmp_path: Path) -> None:
    row = ("007", "1.0", "NULL", "true", "2020-01-01")
    assert read(tmp_path, b"a,b,c,d,e\n" + ",".join(row).encode()) == [tuple("abcde"), row]


def test_latin_1_is_read_in_bulk_and_line_by_line(tmp_path: Path) -> None:
    for raw in (b"\xc4,b\n\xfc,2\n", b'\xc4,b\n"\xfc",2\n'):
        assert read(tmp_path, raw) == [("Ä", "b"), ("ü", "2")]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"a,b\n1,2\n1,2,3\n", "line 3: 3 fields, but the header has 2"),
        (b"a,b\n1,2\n1\n", "line 3: 1 fields, but the header has 2"),
        # As many separators as there should be, but in the wrong lines.
        (b"a,b\n1,2,3\n4\n", "line 2: 3 fields, but the header has 2"),
        (b"a,b\n1,2\n\n3,4\n", "line 3: 0 fields"),
        (b"a,b,c\n1,2\n\n3,4,5\n", "line 2: 2 fields, but the header has 3"),
        (b"a,b\n" + b"x" * 140_000 + b",2", "line 2: not valid CSV"),
        (b"a, a\n1,2\n", "line 1: column 'a' stands 2 times"),
        (b"a,\n1,2\n", "line 1: column 2 has no name"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(raw: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=message):
        read(tmp_path, raw)


def test_a_fault_after_the_first_block_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_BLOCK", 7)
    good = b"a,b\n" + b"1,2\n" * 50
    assert was_read_in_bulk(tmp_path / "table.csv", good)
    same_both_ways(tmp_path / "table.csv", good)
    assert "line 52: 3 fields" in str(same_both_ways(tmp_path / "table.csv", good + b"1,2,3\n"))


def test_a_table_too_large_for_any_hospital_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "table.csv").open("wb") as file:
        file.truncate(2**31 + 1)  # sparse: it takes no disk
    with pytest.raises(ManifestError, match=r"table\.csv: 2,147,483,649 bytes; .* at most 2,147,483,648"):
        read_text_table(tmp_path / "table.csv", ManifestError)
