"""What reaches a terminal."""

from hypothesis import given
from hypothesis import strategies as st

from polyhead.printable import printable


@given(st.text())
def test_nothing_that_a_terminal_would_obey_is_left(text: str) -> None:
    assert all(line.isprintable() for line in printable(text).split("\n"))


@given(st.text(st.characters(categories=["L", "N", "P", "Zs"], exclude_characters="\xa0")))
def test_ordinary_text_stays(text: str) -> None:
    kept = "".join(one for one in text if one.isprintable())
    assert printable(kept) == kept


def test_an_escape_is_written_out_and_a_line_break_kept() -> None:
    assert printable("a\x1b]0;title\x07\nb") == "a\\x1b]0;title\\x07\nb"
