"""``rounds.csv``: what every site did in every round."""

import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from polyhead.atomic import write_atomically
from polyhead.errors import RunError

__all__ = ["RoundRow", "append_round", "trim_rounds"]


@dataclass(frozen=True)
class RoundRow:
    """One site's part of one round.

    Attributes
    ----------
    round
        From 0; fine-tuning after the last round counts as one more.
    loss
        Mean training loss of its steps.
    seconds
        Time that the site took.
    bytes_up, bytes_down
        Size of the tensors that the site sent and received.
    status
        ``averaged``: the update entered the mean; ``alone``: nothing was sent; ``no training images``: the site took no
        part, and its loss is not a number.
    """

    round: int
    site: str
    loss: float
    seconds: float
    bytes_up: int
    bytes_down: int
    status: str


_COLUMNS = ("method", "seed", *(field.name for field in fields(RoundRow)))


def append_round(run: Path, method: str, seed: int, row: RoundRow) -> None:
    """Add a line to ``rounds.csv``."""
    file = run / "rounds.csv"
    header = not file.exists()
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerow({"method": method, "seed": seed, **asdict(row)})
    with file.open("a") as opened:
        opened.write(text.getvalue())


def trim_rounds(run: Path, method: str, seed: int, rounds_done: int) -> None:
    """Drop the rounds of a federation that will be done again, and a line that was cut off."""
    file = run / "rounds.csv"
    if not file.exists():
        return
    lines = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
    rows = csv.DictReader(lines)
    kept = io.StringIO()
    writer = csv.DictWriter(kept, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    try:
        for row in rows:
            if (row["method"], row["seed"]) != (method, str(seed)) or int(row["round"]) < rounds_done:
                writer.writerow(row)
    except (KeyError, ValueError, TypeError) as problem:
        raise RunError(
            f"{file}: is broken ({problem!r}). Remove it; what it told of earlier rounds is lost."
        ) from problem
    write_atomically(file, kept.getvalue())
