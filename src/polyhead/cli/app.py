"""What every command shares: the application, its two consoles, and how it ends."""

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from polyhead.errors import PolyheadError
from polyhead.printable import printable

__all__ = ["app", "console", "errors", "main", "resumable"]

app = typer.Typer(
    name="polyhead",
    help="Train one backbone together when every hospital has labelled different findings.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _is_one_terminal() -> bool:
    return os.isatty(1) and os.isatty(2) and os.path.sameopenfile(1, 2)


console = Console(emoji=False)
# On one terminal one console: bars are drawn by one, and what the other writes there would be drawn over.
errors = console if _is_one_terminal() else Console(stderr=True, emoji=False)


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; goes with any command.")
    ] = False,
) -> None:
    # Read by main(), which sees the error; declared here for --help.
    """Train one backbone together when every hospital has labelled different findings."""


@contextmanager
def resumable() -> Iterator[None]:
    """Say after Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        errors.print("interrupted; the same command goes on where it stopped.")
        raise typer.Exit(130) from None


def main() -> None:
    """Run a command; a user's mistake becomes a message and an exit code, never a traceback.

    Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted, 143 terminated.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    handler = RichHandler(console=errors, show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.captureWarnings(True)
    try:
        app(arguments)
    except Exception as problem:
        if "--debug" in sys.argv:
            raise
        errors.print(f"[bold red]error:[/] {escape(printable(_explain(problem)))}", soft_wrap=True, highlight=False)
        sys.exit(problem.exit_code if isinstance(problem, PolyheadError) else 1)


def _explain(problem: Exception) -> str:
    if isinstance(problem, PolyheadError):
        return str(problem)
    if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
        place = problem.filename or "the disk"
        return f"{place}: no space is left. Free some; then the same command goes on where it stopped."
    if isinstance(problem, OSError) and problem.strerror:
        # Of two names the second is the file that was to be; the first may be a temporary one.
        place = problem.filename2 or problem.filename or "the disk"
        return f"{place}: {problem.strerror}. What was finished before is kept; mend this, then give the command again."
    kind = type(problem).__name__
    return f"{kind}: {problem}. This is a fault of Polyhead, not yours; --debug shows where. Please report it."
