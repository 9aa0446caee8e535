"""What goes into ``run.log``, and what does not change for the terminal."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from polyhead.errors import RunError
from polyhead.run_log import log_to

OURS = logging.getLogger("polyhead.somewhere")
OTHER = logging.getLogger("another.library")
LINE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@pytest.fixture(autouse=True)
def console() -> Iterator[list[str]]:
    """The root logger as the command line sets it up: one handler without a level, WARNING and above."""
    root = logging.getLogger()
    level = root.level
    shown: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: shown.append(record.getMessage())  # type: ignore[method-assign]
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    yield shown
    root.removeHandler(handler)
    root.setLevel(level)
    assert not [left for left in root.handlers if type(left).__module__ == "polyhead.run_log"]
    assert (handler.filters, logging.getLogger("polyhead").level) == ([], logging.NOTSET)


def test_ours_is_kept_from_info_on_and_others_from_warning_on(tmp_path: Path, console: list[str]) -> None:
    OURS.info("before")
    with log_to(tmp_path / "run.log"):
        for logger in (OURS, OTHER):
            for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
                logger.log(level, "%s %s", logger.name, logging.getLevelName(level))
    OURS.warning("after")
    lines = (tmp_path / "run.log").read_text().splitlines()
    expected = ["INFO", "WARNING", "ERROR"]
    assert [line.split(" ", 1)[1] for line in lines] == [
        *(f"{level} polyhead.somewhere {level}" for level in expected),
        *(f"{level} another.library {level}" for level in expected[1:]),
    ]
    names = ("polyhead.somewhere", "another.library")
    assert console == [*(f"{name} {level}" for name in names for level in expected[1:]), "after"]


def test_a_console_that_was_set_to_show_more_goes_on_to_show_more(tmp_path: Path, console: list[str]) -> None:
    logging.getLogger().setLevel(logging.DEBUG)
    with log_to(tmp_path / "run.log"):
        OURS.debug("detail")
    assert console == ["detail"]
    assert (tmp_path / "run.log").read_text() == ""


def test_what_another_process_wrote_stays_and_a_line_that_was_cut_off_is_ended(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text("whole\ncut o")
    for message in ("one", "two"):
        with log_to(tmp_path / "run.log"):
            OURS.info(message)
    lines = (tmp_path / "run.log").read_text().split("\n")
    assert lines[:2] == ["whole", "cut o"]
    assert [line[-3:] for line in lines[2:]] == ["one", "two", ""]


def test_a_record_is_a_line_whatever_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What pytest captures goes from its worker to its parent, which a lone surrogate cannot.
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])
    with log_to(tmp_path / "run.log"):
        OURS.warning("site %s", "a\n2020-01-01T00:00:00Z INFO forged\r\x1b[2J\u2028\ud800é")
    raw = (tmp_path / "run.log").read_bytes()
    assert raw.count(b"\n") == 1
    assert not set(b"\r\x1b") & set(raw)
    assert raw.decode().endswith("WARNING site a\\n2020-01-01T00:00:00Z INFO forged\\r\\x1b[2J\\u2028\\ud800é\n")


def test_only_an_exception_has_its_traceback_below_it_indented(tmp_path: Path) -> None:
    with log_to(tmp_path / "run.log"):
        try:
            print(1 / 0)
        except ZeroDivisionError:
            OURS.error("plain")
            OURS.exception("with more")
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split("Z ")[1] for line in lines[:2]] == ["ERROR plain", "ERROR with more"]
    assert all(line.startswith("    ") for line in lines[2:])
    assert lines[-1] == "    ZeroDivisionError: division by zero"


def test_the_time_is_utc(tmp_path: Path) -> None:
    with log_to(tmp_path / "run.log"):
        OURS.handle(logging.makeLogRecord({"name": OURS.name, "levelno": 20, "levelname": "INFO", "created": 0.0}))
    assert (tmp_path / "run.log").read_text().startswith("1970-01-01T00:00:00Z INFO")


def test_a_full_disk_is_said_once_and_stops_nothing(
    tmp_path: Path, console: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def full(descriptor: int, raw: bytes) -> int:
        if full_now:
            raise OSError(28, "No space left on device")
        return write(descriptor, raw)

    full_now = True
    monkeypatch.setattr(os, "write", full)
    with log_to(tmp_path / "run.log"):
        for number in range(3):
            OURS.info("line %d", number)
        full_now = False
        OURS.info("room again")
    assert len(console) == 1
    assert "run.log: cannot be written (No space left on device); lines of the log are lost" in console[0]
    assert capfd.readouterr() == ("", "")
    assert (tmp_path / "run.log").read_text().endswith("INFO room again\n")


def test_half_a_line_on_a_full_disk_does_not_spoil_the_next(
    tmp_path: Path, console: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    lengths = iter([10, 1000, 1000])
    monkeypatch.setattr(os, "write", lambda descriptor, raw: write(descriptor, raw[: next(lengths)]))
    with log_to(tmp_path / "run.log"):
        OURS.info("one")
        OURS.info("two")
    assert len(console) == 1
    first, second, third = (tmp_path / "run.log").read_text().splitlines()
    assert len(first) == 10
    assert "the disk is full" in second
    assert third.endswith("INFO two")


def link(path: Path) -> None:
    path.with_name("elsewhere").write_text("precious")
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("make", [link, Path.mkdir, os.mkfifo])
def test_what_is_no_plain_file_is_refused_and_not_written_through(tmp_path: Path, make) -> None:
    make(tmp_path / "run.log")
    with pytest.raises(RunError, match=r"run\.log: .*[Rr]emove it"), log_to(tmp_path / "run.log"):
        pass
    if make is link:
        assert (tmp_path / "elsewhere").read_text() == "precious"


def test_where_nothing_is_set_up_warnings_are_still_shown_and_infos_are_not(tmp_path: Path) -> None:
    code = (
        "import logging, sys\nfrom pathlib import Path\nfrom polyhead.run_log import log_to\n"
        "with log_to(Path(sys.argv[1])):\n"
        "  logging.getLogger('polyhead.x').info('quiet')\n  logging.getLogger('polyhead.x').warning('loud')\n"
        "assert logging.getLogger().handlers == []"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run.log")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == "loud\n"
    assert (tmp_path / "run.log").read_text().count("\n") == 2


def test_a_message_that_does_not_fit_its_arguments_stops_nothing(tmp_path: Path) -> None:
    code = (
        "import logging, sys\nfrom pathlib import Path\nfrom polyhead.run_log import log_to\n"
        "with log_to(Path(sys.argv[1])):\n"
        "  logging.getLogger('polyhead.x').info('%d', 'no number')\n  logging.getLogger('polyhead.x').info('next')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run.log")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "--- Logging error ---" in done.stderr
    assert (tmp_path / "run.log").read_text().endswith("INFO next\n")
