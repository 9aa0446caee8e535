"""The run directory: where everything is that a study leaves on disk.

==================================================  ===============================================================
``study.toml``                                      exact copy of the study file
``environment.json``                                versions, device, seeds, commit
``inputs.json``                                     hashes of the sites' tables and of the initial weights
``sources.json``                                    the choices behind the sites' labels, where they are on record
``sites.csv``                                       images and labels a site, split and finding
``rounds.csv``                                      a row a method, seed, round and site
``models/METHOD/seed-N/SITE/``                      ``backbone.safetensors head.safetensors model.json``
``predictions/METHOD/seed-N/SITE/{val,test}.parquet``
``state/METHOD/seed-N/``                            snapshot of a federation that is not finished yet
``metrics.csv comparisons.csv report.html``         written by evaluation and report
==================================================  ===============================================================
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polyhead.atomic import write_atomically
from polyhead.errors import RunError

__all__ = ["model_folder", "open_run", "predictions_folder", "state_folder"]


def model_folder(run: Path, method: str, seed: int, site: str) -> Path:
    """Return where a site's trained model lies."""
    return run / "models" / method / f"seed-{seed}" / site


def predictions_folder(run: Path, method: str, seed: int, site: str) -> Path:
    """Return where a site's predictions lie."""
    return run / "predictions" / method / f"seed-{seed}" / site


def state_folder(run: Path, method: str, seed: int) -> Path:
    """Return where snapshots of an unfinished federation lie."""
    return run / "state" / method / f"seed-{seed}"


@contextmanager
def open_run(run: Path, study_file: Path) -> Iterator[bool]:
    """Make or reopen a run directory and keep other processes out of it meanwhile.

    Yields
    ------
    bool
        Whether it was there before with the same study.

    Raises
    ------
    RunError
        If the directory cannot be written, is in use, or belongs to another study.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        # Never through a link, and never emptied: the file may not be ours.
        lock = os.fdopen(os.open(run / ".lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o644), "r+")
    except OSError as problem:
        raise RunError(f"{run}: cannot be written ({problem.strerror}). Choose another --out.") from problem
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise RunError(
                f"{run}: another process is running in it. Wait for it, or choose another --out."
            ) from problem
        yield _claim(run, study_file.read_bytes())


def _claim(run: Path, study: bytes) -> bool:
    copy = run / "study.toml"
    if not copy.exists():
        if strangers := [path.name for path in run.iterdir() if not path.name.startswith(".")]:
            raise RunError(f"{run}: is no run directory, but holds {strangers[0]!r}. Choose another --out.")
        write_atomically(copy, study)
        return False
    if copy.read_bytes() != study:
        raise RunError(f"{run}: belongs to another study; compare {copy} with yours. Choose another --out.")
    return True
