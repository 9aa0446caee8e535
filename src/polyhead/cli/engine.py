"""What commands of a deployed federation share."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import typer

from polyhead.cli.app import console, errors
from polyhead.errors import UsageError

__all__ = ["needs_engine", "say", "stoppable", "warn_of_expiry"]

_SOON = 30


@contextmanager
def needs_engine() -> Iterator[None]:
    """Say how to install the engine where its import fails."""
    # Read at the import of a library below the engine, which writes to the terminal by itself.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        yield
    except ModuleNotFoundError as problem:
        if (problem.name or "").partition(".")[0] not in ("nvflare", "cryptography", "psutil"):
            raise
        raise UsageError(
            "NVIDIA FLARE is not installed here: pip install '.[nvflare]' in Polyhead's folder"
        ) from problem


@contextmanager
def stoppable() -> Iterator[None]:
    """Let Ctrl-C be an end like any other."""
    try:
        yield
    except KeyboardInterrupt:
        errors.print("stopped.")
        raise typer.Exit(130) from None


def say(text: str) -> None:
    """Print a line as it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def warn_of_expiry(days_left: int, until: datetime) -> None:
    """Warn a month before a kit's certificates expire."""
    if days_left < _SOON:
        text = f"this kit's certificates expire in {days_left} days, on {until:%Y-%m-%d}: ask for new kits."
        errors.print(f"[yellow]warning:[/] {text}", soft_wrap=True, highlight=False)
