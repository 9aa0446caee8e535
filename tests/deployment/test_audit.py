"""A site's record of its messages: any change to it shows."""

import hashlib
import json
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyhead.atomic import append_durably
from polyhead.deployment import audit
from polyhead.deployment.audit import Part, record, verify
from polyhead.errors import RunError, UpdateError

PART = Part("backbone.w", "float32", (2, 2), 16, "ab" * 32)


def write(file: Path, messages: int = 4) -> list[str]:
    for number in range(messages):
        record(file, "out" if number % 2 else "in", {"round": number // 2, "loss": 0.5}, [PART])
    return file.read_text().splitlines(keepends=True)


def test_a_record_is_summed_up(tmp_path: Path) -> None:
    write(tmp_path / "audit.jsonl", 3)
    found = verify(tmp_path / "audit.jsonl")
    assert (found.messages, found.bytes) == ({"in": 2, "out": 1}, {"in": 32, "out": 16})


def test_its_last_hash_changes_with_every_line(tmp_path: Path) -> None:
    seen = set()
    for _ in range(3):
        write(tmp_path / "audit.jsonl", 1)
        seen.add(verify(tmp_path / "audit.jsonl").last)
    assert len(seen) == 3


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_deleted_line_shows(gone: int, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    lines = write(file)
    file.write_text("".join(line for place, line in enumerate(lines) if place != gone))
    with pytest.raises(RunError, match=f"line {gone + 1}: lines before it are missing"):
        verify(file)


def test_lines_that_changed_places_show(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    lines = write(file)
    file.write_text("".join([lines[0], lines[2], lines[1], lines[3]]))
    with pytest.raises(RunError, match="line 2"):
        verify(file)


@settings(max_examples=60)
@given(data=st.data())
def test_any_changed_character_shows(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("record") / "audit.jsonl"
    text = "".join(write(file))
    place = data.draw(st.integers(0, len(text) - 1))
    new = data.draw(st.characters(codec="ascii").filter(lambda char: char != text[place]))
    changed = text[:place] + new + text[place + 1 :]
    file.write_text(changed, newline="")
    with pytest.raises(RunError):
        verify(file)


def test_a_line_that_a_kill_cut_off_is_taken_away_by_the_next(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    text = "".join(write(file))
    file.write_text(text[:-7])
    write(file, 1)
    assert sum(verify(file).messages.values()) == 4


def test_nothing_is_added_to_a_record_whose_end_was_changed(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    lines = write(file)
    file.write_text("".join([*lines[:-1], lines[-1].replace("0.5", "0.6")]))
    with pytest.raises(RunError, match="was changed"):
        write(file, 1)


def test_a_key_that_stands_twice_shows(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    text = "".join(write(file, 1))
    file.write_text(text.replace('"about": ', '"about": {"word": "nothing"}, "about": '))
    with pytest.raises(RunError, match="line 1: was changed"):
        verify(file)


@pytest.mark.parametrize("content", [{}, {"bytes": 0, "direction": "up"}, {"bytes": "0", "direction": "in"}])
def test_a_line_that_somebody_made_up_shows(content: dict[str, object], tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    line = {**content, "before": "0" * 64}
    proof = hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps({**line, "sha256": proof}) + "\n")
    with pytest.raises(RunError, match="line 1: was changed"):
        verify(file)


DEEP: list[object] = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "value", ["x" * 2**24, b"bytes", {2: "b", 10: "a"}, {"a": 1, 2: 3}, 10**5000, DEEP], ids=lambda _: ""
)
def test_what_a_stranger_sent_cannot_make_the_record_look_changed(value: object, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    write(file, 1)
    with pytest.raises(UpdateError, match="record"):
        record(file, "in", {"method": value}, [])
    write(file, 1)
    assert sum(verify(file).messages.values()) == 2


def test_who_writes_at_the_same_time_waits_for_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "audit.jsonl"
    other = Thread(target=write, args=(file, 1))

    def slowly(path: Path, text: str) -> None:
        if not other.ident:
            other.start()
            other.join(0.3)
        append_durably(path, text)

    monkeypatch.setattr(audit, "append_durably", slowly)
    write(file, 1)
    other.join()
    assert sum(verify(file).messages.values()) == 2
