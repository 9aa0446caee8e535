"""What the engine said is remembered, however much it says."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.flare import foreground
from polyhead.flare.foreground import _Heard

READY, FAULT = "server started", "certificate verify failed"


def test_a_word_counts_though_much_follows(tmp_path: Path) -> None:
    output = tmp_path / "output.txt"
    output.write_bytes(b"Server STARTED\n" + b"chatter\n" * 2**18)
    heard = _Heard(output, (READY, FAULT))
    assert heard.times()[READY] == 1
    with output.open("ab") as file:
        file.write(b"chatter\n" * 2**18 + b"\xff certificate verify failed: no\n" * 3)
    times = heard.times()
    assert (times[READY], times[FAULT]) == (1, 3)


@given(
    words=st.lists(st.sampled_from([READY.upper(), FAULT, "server ", "started", "\n", "é"]), max_size=12),
    at_once=st.integers(1, 40),
    stops=st.lists(st.integers(1, 200), max_size=4),
)
def test_however_it_is_cut_each_counts_once(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], at_once: int, stops: list[int]
) -> None:
    output = tmp_path_factory.mktemp("cut") / "output.txt"
    whole = "".join(words).encode()
    heard = _Heard(output, (READY, FAULT))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(foreground, "_AT_ONCE", at_once)
        for until in (*sorted(stops), len(whole)):
            output.write_bytes(whole[:until])
            times = heard.times()
    text = whole.decode().lower()
    assert (times[READY], times[FAULT]) == (text.count(READY), text.count(FAULT))
