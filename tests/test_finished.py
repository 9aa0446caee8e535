"""The hashes of what a finished part of a run left."""

import json
import os
from pathlib import Path

import pytest

from polyhead.errors import RunError
from polyhead.finished import check_finished, check_predictions_of, write_finished


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name in ("models/ffl/seed-0/a/model.json", "predictions/ffl/seed-0/a/test.parquet"):
        file = tmp_path / name
        file.parent.mkdir(parents=True)
        file.write_text(name)
    write_finished(done(tmp_path), tmp_path, files(tmp_path))
    return tmp_path


def done(run: Path) -> Path:
    return run / "state/ffl/seed-0/done.json"


def files(run: Path) -> list[Path]:
    return [run / "models/ffl/seed-0/a/model.json", run / "predictions/ffl/seed-0/a/test.parquet"]


def test_what_was_written_is_whole(run: Path) -> None:
    check_finished(done(run), run, files(run))
    check_predictions_of(run)
    assert list(json.loads(done(run).read_text())) == [file.relative_to(run).as_posix() for file in files(run)]


def test_predictions_of_released_heads_are_held_against_their_hashes_too(run: Path) -> None:
    file = run / "union/ffl/seed-0/predictions/a/test.parquet"
    file.parent.mkdir(parents=True)
    file.write_text("a score")
    write_finished(done(run), run, [*files(run), file])
    check_predictions_of(run)
    file.write_text("a sc0re")
    with pytest.raises(RunError, match=f"{file}: is not what the run wrote"):
        check_predictions_of(run)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("changed", "is not what the run wrote"),
        ("missing", r"cannot be read \(No such file"),
        ("pipe", "is not a file"),
    ],
)
def test_a_file_that_is_not_what_was_written_is_named(run: Path, which: int, fault: str, message: str) -> None:
    file = files(run)[which]
    file.unlink()
    if fault == "changed":
        file.write_text("something else")
    elif fault == "pipe":
        os.mkfifo(file)
    with pytest.raises(RunError, match=f"{file}: {message}.*`polyhead run` with the same study"):
        check_finished(done(run), run, files(run))
    if which == 1:
        with pytest.raises(RunError, match=f"{file}: {message}"):
            check_predictions_of(run)
    else:
        check_predictions_of(run)


def test_a_file_that_the_list_does_not_name_is_not_taken_for_whole(run: Path) -> None:
    for content in ({}, {"models/ffl/seed-0/a/model.json": "0"}):
        done(run).write_text(json.dumps(content))
        with pytest.raises(RunError, match=r"done\.json: does not list predictions/ffl/seed-0/a/test\.parquet"):
            check_finished(done(run), run, reversed(files(run)))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b"\xff",
        b'{"../outside": "0"}',
        b'{"/etc/passwd": "0"}',
        b'{"": "0"}',
        b'{"predictions/\\u0000": "0"}',
    ],
)
def test_a_damaged_list_is_named_with_what_to_do(run: Path, content: bytes) -> None:
    done(run).write_bytes(content)
    with pytest.raises(RunError, match=r"done\.json: .*Remove it\. `polyhead run` with the same study"):
        check_finished(done(run), run, files(run))
    with pytest.raises(RunError, match=r"done\.json: .*Remove it"):
        check_predictions_of(run)


def test_a_list_that_is_no_file_or_too_large_is_not_opened(run: Path) -> None:
    done(run).unlink()
    os.mkfifo(done(run))
    with pytest.raises(RunError, match=r"done\.json: is not a file\. Remove it"):
        check_finished(done(run), run, files(run))
    done(run).unlink()
    with done(run).open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(RunError, match=r"done\.json: 1,073,741,824 bytes; .*Remove it"):
        check_finished(done(run), run, files(run))
