"""``rounds.csv``: one write a round, and a table that is either read right or refused."""

import csv
import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyhead.errors import RunError
from polyhead.federation.rounds import RoundRow, append_rounds, sort_rounds, trim_rounds

OLD = b"method,seed,round,site,loss,seconds,bytes_up,bytes_down,status\n"
NEW = OLD[:-1] + b",validation\n"


def row(round_: int, site: str = "a", status: str = "averaged", validation: float | None = None) -> RoundRow:
    return RoundRow(round_, site, 0.5, 1.0, 10, 10, status, validation)


def lines_of(run: Path) -> list[dict[str, str]]:
    with (run / "rounds.csv").open(newline="") as file:
        return list(csv.DictReader(file, strict=True))


def rows_of(run: Path) -> list[tuple[str, str, str]]:
    return [(line["method"], line["seed"], line["round"]) for line in lines_of(run)]


def test_rounds_that_will_be_done_again_are_dropped(tmp_path: Path) -> None:
    for method, seed, round_ in (("ffl", 0, 0), ("ffl", 0, 1), ("ffl", 1, 1), ("local", 0, 1)):
        append_rounds(tmp_path, method, seed, [row(round_)])
    with (tmp_path / "rounds.csv").open("a") as file:
        file.write("ffl,0,2,a,0.")
    trim_rounds(tmp_path, "ffl", 0, 1)
    assert rows_of(tmp_path) == [("ffl", "0", "0"), ("ffl", "1", "1"), ("local", "0", "1")]
    trim_rounds(tmp_path, "ffl", 0, 0)
    assert rows_of(tmp_path) == [("ffl", "1", "1"), ("local", "0", "1")]


def test_rows_of_federations_trained_at_a_time_are_put_into_their_order(tmp_path: Path) -> None:
    for method, seed, round_ in (("ffl", 1, 0), ("local", 0, 0), ("old", 0, 0), ("ffl", 0, 0), ("ffl", 1, 1)):
        append_rounds(tmp_path, method, seed, [row(round_, "b"), row(round_, "a")])
    sort_rounds(tmp_path, [("local", 0), ("ffl", 0), ("ffl", 1)])
    order = [("local", "0", "0"), ("ffl", "0", "0"), ("ffl", "1", "0"), ("ffl", "1", "1"), ("old", "0", "0")]
    assert rows_of(tmp_path) == [one for one in order for _ in "ba"]
    assert [line["site"] for line in lines_of(tmp_path)] == ["b", "a"] * 5


def test_the_rows_of_a_round_are_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, write = [], os.write
    monkeypatch.setattr(os, "write", lambda descriptor, raw: written.append(bytes(raw)) or write(descriptor, raw))
    append_rounds(tmp_path, "ffl", 0, [row(0, "a"), row(0, "b", validation=0.75)])
    assert written == [NEW + b"ffl,0,0,a,0.5,1.0,10,10,averaged,\nffl,0,0,b,0.5,1.0,10,10,averaged,0.75\n"]


def test_what_is_not_known_is_blank_and_no_loss_is_no_number(tmp_path: Path) -> None:
    append_rounds(tmp_path, "ffl", 0, [RoundRow(0, "a", math.nan, 0.0, 0, 0, "no training images")])
    trim_rounds(tmp_path, "ffl", 0, 1)
    assert lines_of(tmp_path)[0]["loss"] == "nan"
    assert lines_of(tmp_path)[0]["validation"] == ""


def test_a_table_of_an_older_version_is_read_and_gets_the_last_column_blank(tmp_path: Path) -> None:
    (tmp_path / "rounds.csv").write_bytes(OLD + b"ffl,0,0,a,0.5,1.0,10,10,averaged\n")
    trim_rounds(tmp_path, "ffl", 0, 1)
    assert (tmp_path / "rounds.csv").read_bytes() == NEW + b"ffl,0,0,a,0.5,1.0,10,10,averaged,\n"


def test_a_table_that_went_through_a_spreadsheet_is_read(tmp_path: Path) -> None:
    append_rounds(tmp_path, "ffl", 0, [row(0), row(1)])
    before = (tmp_path / "rounds.csv").read_bytes()
    (tmp_path / "rounds.csv").write_bytes(b"\xef\xbb\xbf" + before.replace(b"\n", b"\r\n"))
    trim_rounds(tmp_path, "ffl", 0, 2)
    assert (tmp_path / "rounds.csv").read_bytes() == before


@pytest.mark.parametrize("whole", [b"", b"met", NEW])
def test_a_table_that_was_cut_off_before_its_first_row_begins_anew(tmp_path: Path, whole: bytes) -> None:
    (tmp_path / "rounds.csv").write_bytes(whole)
    trim_rounds(tmp_path, "ffl", 0, 0)
    append_rounds(tmp_path, "ffl", 0, [row(0)])
    assert rows_of(tmp_path) == [("ffl", "0", "0")]


def test_an_empty_table_gets_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "rounds.csv").touch()
    append_rounds(tmp_path, "ffl", 0, [row(0)])
    assert rows_of(tmp_path) == [("ffl", "0", "0")]


@pytest.mark.parametrize("reason", ["two\nlines", 'a "quote", a comma', "\x1b[2J \r \x00", "\ud800", "a\u2028b"])
def test_a_reason_stays_on_its_line(tmp_path: Path, reason: str) -> None:
    append_rounds(tmp_path, "ffl", 0, [row(0, status=f"failed: {reason}"), row(0, "b")])
    raw = (tmp_path / "rounds.csv").read_bytes()
    assert raw.count(b"\n") == 3
    assert not set(b"\x1b\r\0") & set(raw)
    trim_rounds(tmp_path, "ffl", 0, 1)
    assert (tmp_path / "rounds.csv").read_bytes() == raw
    assert lines_of(tmp_path)[0]["status"].startswith("failed: ")


GOOD = b"ffl,0,0,a,0.5,1.0,10,10,averaged,0.5\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (NEW + GOOD + b"ffl,0,1,\xff\n" + GOOD, "utf-8"),
        (NEW + GOOD + b"\0\0\0\n" + GOOD, "bytes of no text"),
        (NEW.replace(b"seed", b"sead") + GOOD, "other columns"),
        (b"\n\n" + GOOD, "other columns"),
        (NEW + GOOD + b"ffl,0,1\n" + GOOD, "line 3: .*3 fields, but the first line has 10"),
        (NEW + GOOD[:-1] + b",1\n", "line 2: .*11 fields"),
        (OLD + GOOD, "line 2: .*10 fields, but the first line has 9"),
        (NEW + GOOD.replace(b"ffl,0", b"ffl,-1"), "'seed': '-1'"),
        (NEW + GOOD.replace(b"10,10", b"10,1x"), "'bytes_down': '1x'"),
        (NEW + GOOD.replace(b"0.5\n", b"half\n"), "half"),
        (NEW + GOOD.replace(b"averaged", b'"averaged') + GOOD, "line [23]: "),
        (NEW + GOOD.replace(b"averaged", b"x" * 200_000), "field limit"),
    ],
)
def test_a_damaged_table_is_refused_with_what_to_do(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "rounds.csv").write_bytes(content)
    pattern = rf"rounds\.csv.*{message}.*Remove the file.*results are not"
    with pytest.raises(RunError, match=pattern):
        trim_rounds(tmp_path, "ffl", 0, 5)
    assert (tmp_path / "rounds.csv").read_bytes() == content


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make) -> None:
    make(tmp_path / "rounds.csv")
    with pytest.raises(RunError, match=r"rounds\.csv: is not a file\. Remove the file"):
        trim_rounds(tmp_path, "ffl", 0, 0)


@settings(max_examples=200)
@given(cut=st.integers(0, 400), place=st.integers(0, 400), bit=st.integers(0, 7), junk=st.binary(max_size=20))
def test_any_damage_is_read_or_refused(tmp_path_factory, cut: int, place: int, bit: int, junk: bytes) -> None:
    run = tmp_path_factory.mktemp("run")
    append_rounds(run, "ffl", 0, [row(round_, site, validation=0.5) for round_ in range(4) for site in "ab"])
    raw = bytearray((run / "rounds.csv").read_bytes()[: max(cut, 1)])
    raw[place % len(raw)] ^= 1 << bit
    (run / "rounds.csv").write_bytes(bytes(raw) + junk)
    try:
        trim_rounds(run, "ffl", 0, 2)
    except RunError:
        return
    assert all(int(line["round"]) < 2 or line["method"] != "ffl" or line["seed"] != "0" for line in lines_of(run))
