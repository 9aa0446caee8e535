"""Which files a finished part of a run consists of: ``done.json``, sizes and hashes, written after all of them.

A file that was cut off or changed afterwards is found by its hash, before a wrong number is computed from it.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from polyhead.atomic import write_atomically
from polyhead.errors import RunError
from polyhead.json_file import read_object
from polyhead.limited_file import limited_file, may_pass

__all__ = ["check_finished", "check_predictions_of", "damage_to_finished", "write_finished"]

_REMEDY = "`polyhead run` with the same study and --out makes it again."
_MOST_BYTES = 2**36  # more than the predictions of a hundred million images take


def write_finished(done: Path, run: Path, files: Iterable[Path]) -> None:
    """Declare a part of a run finished: `files`, below `run`, are whole."""
    hashes = {file.relative_to(run).as_posix(): _hash(file) for file in sorted(files)}
    write_atomically(done, json.dumps(hashes, indent=2) + "\n")


def check_finished(done: Path, run: Path, files: Iterable[Path]) -> None:
    """Hold the files of a finished part against their hashes.

    Raises
    ------
    RunError
        Naming the file that is absent, or is not what was written.
    """
    hashes = _read(done)
    for file in files:
        name = file.relative_to(run).as_posix()
        if name not in hashes:
            raise RunError(f"{done}: does not list {name}. Remove it. {_REMEDY}")
        _check(file, hashes[name])


def damage_to_finished(done: Path, run: Path, files: Iterable[Path]) -> str | None:
    """Return what `check_finished` finds wrong, so that it can be made again; None if all is whole.

    Raises
    ------
    RunError
        If a file only cannot be read now: that is no reason to make anything again.
    """
    try:
        check_finished(done, run, files)
    except RunError as problem:
        if may_pass(problem):
            raise
        return str(problem)
    return None


def check_predictions_of(run: Path) -> None:
    """Hold the predictions of a run against their hashes, as far as its parts are finished.

    A changed digit in a score would be read as another score: nothing else in the file tells.

    Raises
    ------
    RunError
        Naming the file that is absent, or is not what was written.
    """
    for done in sorted(run.glob("state/*/*/done.json")):
        for name, wanted in _read(done).items():
            if name.endswith(".parquet"):
                _check(run / name, wanted)


def _read(done: Path) -> dict[str, str]:
    content = read_object(done, f"Remove it. {_REMEDY}")
    if not all(_is_inside(name) for name in content):
        raise RunError(f"{done}: is no list of the run's files. Remove it. {_REMEDY}")
    return {name: str(value) for name, value in content.items()}


def _check(file: Path, wanted: str) -> None:
    if _hash(file) != wanted:
        raise RunError(f"{file}: is not what the run wrote: it was cut off or changed. {_REMEDY}")


def _is_inside(name: str) -> bool:
    return bool(name) and "\0" not in name and not Path(name).is_absolute() and ".." not in Path(name).parts


def _hash(file: Path) -> str:
    with limited_file(file, RunError, _MOST_BYTES, _REMEDY) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
