"""What a person at a terminal reads while bars are drawn there: every line that was said, whoever said it."""

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress

import pytest

DRAW = """
import logging
from polyhead.cli.app import console, errors
from polyhead.progress import progress_bar
from rich.logging import RichHandler
handler = RichHandler(console=errors, show_time=False, show_path=False, show_level=False)
logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
with progress_bar({on}) as progress:
    bars = [progress.add_task(name, total=2) for name in ("one", "two")]
    for what in ("first", "second"):
        progress.refresh()
        console.print(f"{{what}} said")
        logging.warning("%s warning", what)
        for bar in bars:
            progress.advance(bar)
"""


def screen(written: str) -> list[str]:
    """Return the lines that a terminal shows after all of this was written to it."""
    lines, row = [""], 0
    for up, end, text in re.findall(
        r"\x1b\[(\d*)A|(\x1b\[2K|\n)|([^\x1b\r\n]+)", re.sub(r"\x1b\[[\d;?]*[hlm]", "", written)
    ):
        if text:
            # Bars are drawn from the first column on, over what is there.
            lines[row] = text + lines[row][len(text) :]
        elif end == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif end:
            lines[row] = ""
        else:
            row -= int(up or 1)
    return [line.rstrip() for line in lines if line.strip()]


def test_the_screen_of_this_test_is_one() -> None:
    assert screen("a\r\nbars\r\x1b[2K\x1b[1A\x1b[2Kb\r\nlong\rsh\r\n") == ["b", "shng"]


@pytest.mark.parametrize("on", ["console", "errors"])
def test_no_line_is_drawn_over_by_bars_on_the_same_terminal(on: str) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", DRAW.format(on=on)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "30"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written = b""
    # When nobody has it open any more, a terminal ends with an error.
    with suppress(OSError):
        while part := os.read(ours, 4096):
            written += part
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert "one" in written.decode()
    assert screen(written.decode()) == ["first said", "first warning", "second said", "second warning"]


@pytest.mark.parametrize("on", ["console", "errors"])
def test_without_a_terminal_words_and_warnings_go_their_own_ways(on: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRAW.format(on=on)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["first", "said", "second", "said"]
    assert re.findall(r"\w+ warning", done.stderr) == ["first warning", "second warning"]
