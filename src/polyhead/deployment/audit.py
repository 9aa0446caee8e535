"""A site's own record of every message out and in: a line each, chained by hashes, so that a change shows.

Each line holds the hash of the line before, and one of itself. Who deletes or changes a line would have to write all
later ones anew. Who keeps the hash of a last line elsewhere, on paper or at a colleague's, sees that, too, and whether
lines are missing at the end, which nothing in the file can show.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from polyhead.atomic import append_durably, make_folders
from polyhead.errors import RunError, UpdateError
from polyhead.limited_file import limited_file

__all__ = ["Part", "Summary", "record", "verify"]

_MOST_BYTES = 2**34
_LONGEST = 2**24  # bytes of a line: twenty thousand tensors
_FIRST = "0" * 64


@dataclass(frozen=True)
class Part:
    """A tensor of a message: name, type, shape, size in bytes and SHA-256 of its values."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Summary:
    """What a record holds: messages and bytes by direction, and the hash of its last line."""

    messages: Mapping[str, int]
    bytes: Mapping[str, int]
    last: str


def record(file: Path, direction: Literal["in", "out"], about: Mapping[str, Any], parts: Sequence[Part]) -> None:
    """Add a message; on return the line is on disk. Call it before a message is sent, and after one came.

    Parameters
    ----------
    about
        Everything of the message that is no tensor.

    Raises
    ------
    DiskError
        If the disk is full.
    RunError
        If the record's last line is damaged.
    UpdateError
        If the message cannot be written in a line that `verify` would pass; nothing is added.
    """
    tensors = [[part.name, part.dtype, list(part.shape), part.bytes, part.sha256] for part in parts]
    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "direction": direction,
        **{"about": dict(about), "bytes": sum(part.bytes for part in parts), "tensors": tensors},
    }
    with _alone(file):
        append_durably(file, _text_of(line | {"before": _last_hash(file)}))


def verify(file: Path) -> Summary:
    """Go through a record and return what it holds.

    Raises
    ------
    RunError
        Naming the first line that was changed, or before which lines are missing.
    """
    messages = {"in": 0, "out": 0}
    size = dict(messages)
    before = _FIRST
    for number, line in _lines(file):
        if line.get("before") != before:
            raise RunError(f"{file}, line {number}: lines before it are missing or were changed.")
        messages[line["direction"]] += 1
        size[line["direction"]] += line["bytes"]
        before = line["sha256"]
    return Summary(messages, size, before)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Wait for another process of the site: a line between our look at the last and our own would break the chain."""
    make_folders(file.parent)
    with file.with_name(f".{file.name}.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _text_of(line: Mapping[str, Any]) -> str:
    """Return a line of the record. What a stranger sent may be anything, and must not make the record look changed."""
    try:
        text = json.dumps({**line, "sha256": _hash_of(line)}) + "\n"
    except (TypeError, ValueError, RecursionError) as problem:
        raise UpdateError(f"a message holds what no record can ({type(problem).__name__}).") from problem
    if len(text) > _LONGEST:
        raise UpdateError(f"a message holds {len(text):,} bytes beside its tensors; a record takes {_LONGEST:,}.")
    if not _is_whole(text.encode()):
        raise UpdateError("a message holds what no record can (names that are no text).")
    return text


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with limited_file(file, RunError, _MOST_BYTES) as opened:
        number = 0
        while raw := opened.readline(_LONGEST):
            number += 1
            yield number, _checked(file, number, raw)


def _checked(file: Path, number: int | str, raw: bytes) -> dict[str, Any]:
    if not _is_whole(raw):
        raise RunError(f"{file}, line {number}: was changed or cut off.")
    return dict(json.loads(raw))


def _is_whole(raw: bytes) -> bool:
    """Tell whether a line is one of ours, to the last character: a key that stands twice is read as the second."""
    try:
        line = json.loads(raw)
        content = {key: value for key, value in line.items() if key != "sha256"}
        form = isinstance(line["bytes"], int) and line["direction"] in ("in", "out")
        return form and line["sha256"] == _hash_of(content) and raw == f"{json.dumps(line)}\n".encode()
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return False


def _last_hash(file: Path) -> str:
    """Return the hash of the last line, cutting off a part of one that a kill left: its message was never sent."""
    if not file.exists():
        return _FIRST
    with file.open("r+b") as opened:
        end = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, end - 2 * _LONGEST))
        start = opened.tell()
        tail = opened.read()
        whole = tail[: tail.rfind(b"\n") + 1]
        if len(whole) < len(tail):
            opened.truncate(start + len(whole))
    if not whole:
        return _FIRST
    return str(_checked(file, "last", whole[whole.rfind(b"\n", 0, -1) + 1 :])["sha256"])


def _hash_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
