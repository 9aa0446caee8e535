"""``rounds.csv``: what every site did in every round."""

import csv
import io
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from polyhead.atomic import append_durably, write_atomically
from polyhead.errors import RunError
from polyhead.limited_file import read_limited
from polyhead.printable import printable

__all__ = ["RoundRow", "append_rounds", "mend_rounds", "sort_rounds", "trim_rounds"]

_log = logging.getLogger(__name__)
_MOST_BYTES = 2**30  # some ten million rows
_REMEDY = "Remove the file: what it told of earlier rounds is lost, results are not. Then give the same command again."


@dataclass(frozen=True)
class RoundRow:
    """One site's part of one round.

    Attributes
    ----------
    round
        From 0; fine-tuning after the last round counts as one more.
    loss
        Mean training loss of its steps; not a number where there were none, or a study with noise keeps it.
    seconds
        Time that the site took.
    bytes_up, bytes_down
        Size of the tensors that the site sent and received.
    status
        ``averaged``: the update entered the mean; ``clipped: REASON``: it did, made smaller; ``left out: REASON``: it
        did not; ``failed: REASON``: there was none; ``repeated: N of M sites``: it was good, but too few others were,
        and the round was begun again; ``alone``: nothing was sent; ``no training images``: the site took no part.
    validation
        Mean AUROC of the averaged state on the site's validation images; blank where it was not measured.
    """

    round: int
    site: str
    loss: float
    seconds: float
    bytes_up: int
    bytes_down: int
    status: str
    validation: float | None = None


_COLUMNS = ("method", "seed", *(field.name for field in fields(RoundRow)))


def append_rounds(run: Path, method: str, seed: int, rows: Sequence[RoundRow]) -> None:
    """Add the rows of a round to ``rounds.csv``, all in one write; on return they are on disk.

    Raises
    ------
    DiskError
        If the disk is full.
    """
    file = run / "rounds.csv"
    text, writer = _writer()
    # A power cut may leave the new file without its first line.
    if not file.exists() or file.stat().st_size == 0:
        writer.writeheader()
    for row in rows:
        # A line break in a reason would make two lines of the row, and the second could be lost alone.
        status = printable(row.status).replace("\n", " ")
        writer.writerow({"method": method, "seed": seed, **asdict(row), "status": status})
    append_durably(file, text.getvalue())


def trim_rounds(run: Path, method: str, seed: int, rounds_done: int) -> None:
    """Drop the rounds of a federation that will be done again, and a line that was cut off; warn if others are missing.

    A file of an older version, without the last column, gets it, blank.

    Raises
    ------
    RunError
        If the file is damaged, with the line and what to do.
    """
    _mend(run, (method, str(seed)), rounds_done, lambda round_: round_ < rounds_done)


def mend_rounds(run: Path, method: str, seed: int, rounds: int) -> None:
    """Drop a line that was cut off, and begin a file that is gone; warn if rounds of a finished federation are missing.

    Raises
    ------
    RunError
        If the file is damaged, with the line and what to do.
    """
    _mend(run, (method, str(seed)), rounds, lambda _: True)


def sort_rounds(run: Path, federations: Sequence[tuple[str, int]]) -> None:
    """Bring the rows into the order of federations, (method, seed), whichever were trained at the same time.

    Rows of one federation keep their order; those of others come last.

    Raises
    ------
    RunError
        If the file is damaged, with the line and what to do.
    """
    ranks = {(method, str(seed)): rank for rank, (method, seed) in enumerate(federations)}
    rows = _read(run / "rounds.csv")
    _replace(run / "rounds.csv", sorted(rows, key=lambda row: ranks.get((row["method"], row["seed"]), len(ranks))))


def _mend(run: Path, federation: tuple[str, str], rounds_done: int, is_kept: Callable[[int], bool]) -> None:
    file = run / "rounds.csv"
    rows = _read(file) if os.path.lexists(file) else []
    ours = {int(row["round"]) for row in rows if (row["method"], row["seed"]) == federation}
    if set(range(rounds_done)) - ours:
        _log.warning(
            "%s: rows of earlier rounds of %s, seed %s are lost. Results are whole; the report shows what is left.",
            *(file, *federation),
        )
    kept = [row for row in rows if (row["method"], row["seed"]) != federation or is_kept(int(row["round"]))]
    _replace(file, kept)


def _replace(file: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write the whole file, if that changes it."""
    text, writer = _writer()
    writer.writeheader()
    writer.writerows(rows)
    # A link is replaced, so that no later row goes to where it leads.
    if file.is_symlink() or not file.exists() or file.read_bytes() != text.getvalue().encode():
        write_atomically(file, text.getvalue())


def _writer() -> tuple[io.StringIO, "csv.DictWriter[str]"]:
    text = io.StringIO()
    return text, csv.DictWriter(text, _COLUMNS, lineterminator="\n")


def _read(file: Path) -> list[dict[str, str]]:
    """Return the rows of the file but one that was cut off, each a text for every column."""
    raw = read_limited(file, RunError, _MOST_BYTES, _REMEDY)
    reader, rows = csv.reader(()), []
    try:
        whole = raw[: raw.rfind(b"\n") + 1].decode("utf-8-sig")
        if "\0" in whole:
            raise ValueError("it holds bytes of no text")
        reader = csv.reader(io.StringIO(whole, newline=""), strict=True)
        header = tuple(next(reader, _COLUMNS))
        if header not in (_COLUMNS, _COLUMNS[:-1]):
            raise ValueError("it has other columns")
        for values in reader:
            rows.append(_checked(header, values))
    except (ValueError, csv.Error) as problem:
        where = f", line {reader.line_num}" if reader.line_num else ""
        raise RunError(f"{file}{where}: is damaged ({problem}). {_REMEDY}") from problem
    return rows


def _checked(header: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    if len(values) != len(header):
        raise ValueError(f"{len(values)} fields, but the first line has {len(header)}")
    row = {"validation": "", **dict(zip(header, values, strict=True))}
    for name in ("seed", "round", "bytes_up", "bytes_down"):
        if not (row[name].isascii() and row[name].isdigit()):
            raise ValueError(f"column {name!r}: {row[name]!r} is no whole number")
    for name in ("loss", "seconds", *(["validation"] if row["validation"] else [])):
        float(row[name])
    return row
