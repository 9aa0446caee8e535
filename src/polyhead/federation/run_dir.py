"""The run directory: where everything is that a study leaves on disk.

==================================================  ===============================================================
``study.toml``                                      exact copy of the study file
``settings.json``                                   what every setting was when the run began; see `polyhead.begun`
``environment.json``                                versions, device, seeds, commit
``inputs.json``                                     hashes of the sites' tables and of the initial weights
``sources.json``                                    the choices behind the sites' labels, where they are on record
``sites.csv``                                       images and labels a site, split and finding
``rounds.csv``                                      a row a method, seed, round and site
``run.log``                                         what was done and what went wrong, with times
``models/METHOD/seed-N/SITE/``                      ``backbone.safetensors head.safetensors model.json``
``predictions/METHOD/seed-N/SITE/{val,test}.parquet``
``union/METHOD/seed-N/``                            the model of released heads, as above, and
                                                    ``predictions/SITE/test.parquet``; see `polyhead.union`
``state/METHOD/seed-N/``                            the last snapshots of a federation (``round-R.json``,
                                                    ``shared-R.safetensors``, ``sites/SITE/private-R.safetensors``;
                                                    with a rule of the server ``server-R.safetensors``);
                                                    after its end ``done.json``, the hashes of what it left
``metrics.csv comparisons.csv report.html``         written by evaluation and report; with released heads
                                                    ``cross_site.csv``, too
``.lock``                                           locked while a process runs here; names it
==================================================  ===============================================================

With ``--restart`` the whole directory becomes ``RUN.before-1``, or the next number that is free.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from polyhead.atomic import flush, remove_leftovers, write_atomically
from polyhead.begun import keep_settings, study_as_begun
from polyhead.config import StudyConfig
from polyhead.errors import PolyheadError, RunError, StudyError
from polyhead.federation.run_lock import Lock, locked, signed, wait_for_orphans
from polyhead.limited_file import read_limited
from polyhead.study_file import MOST_BYTES, changed_settings, parse_study, read_study_text

__all__ = ["Opened", "model_folder", "open_run", "predictions_folder", "refuse_folders", "state_folder", "union_folder"]

_MOST_NAMED = 5
_FILES = (
    *("settings.json", "environment.json", "inputs.json", "sources.json", "sites.csv", "rounds.csv"),
    *("metrics.csv", "comparisons.csv", "cross_site.csv", "report.html"),
)
_REMEDY = "Choose another --out, or begin anew with --restart, which keeps this run beside the new one."
_SAY_IT = f"Write into the study file what it was, {_REMEDY[0].lower()}{_REMEDY[1:]}"
_PUT_BACK = f"Put a copy of the study file that the run began with in its place. {_REMEDY}"


@dataclass(frozen=True)
class Opened:
    """What was found where a run was to be opened.

    Attributes
    ----------
    study
        As its file was read for this run.
    known
        Whether the run was there before, with the same study.
    moved_to
        Where `restart` moved what was there; None if nothing was.
    unfinished
        A text about the process that ran there last, if that did not end by itself; None otherwise.
    """

    study: StudyConfig
    known: bool
    moved_to: Path | None
    unfinished: str | None


def model_folder(run: Path, method: str, seed: int, site: str) -> Path:
    """Return where a site's trained model lies."""
    return run / "models" / method / f"seed-{seed}" / site


def predictions_folder(run: Path, method: str, seed: int, site: str) -> Path:
    """Return where a site's predictions lie."""
    return run / "predictions" / method / f"seed-{seed}" / site


def union_folder(run: Path, method: str, seed: int) -> Path:
    """Return where the model of released heads lies."""
    return run / "union" / method / f"seed-{seed}"


def state_folder(run: Path, method: str, seed: int) -> Path:
    """Return where a federation's snapshots lie, and afterwards the note that it is done."""
    return run / "state" / method / f"seed-{seed}"


def refuse_folders(files: Iterable[Path]) -> None:
    """Refuse a folder that stands where a file is to be written, before there is work to lose.

    Raises
    ------
    RunError
        Naming the first.
    """
    for file in files:
        if file.is_dir():
            raise RunError(f"{file}: is a folder, where a file belongs. Remove it, then give the same command again.")


@contextmanager
def open_run(run: Path, study_file: Path, restart: bool = False) -> Iterator[Opened]:
    """Make or reopen a run directory and keep other processes out of it meanwhile.

    Parameters
    ----------
    run
        The directory.
    study_file
        Its bytes are copied into a new run. A run goes on with any study file of the same settings, however it is
        written.
    restart
        Begin anew; what was there is kept under another name.

    Raises
    ------
    RunError
        If the directory cannot be written, is in use, is no run, or belongs to another study (what changed).
    DiskError
        If the disk is full.
    """
    _refuse_strangers(run)
    moved: list[Path] = []
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(_locked_and_quiet(run))
            unfinished = lock.unfinished
            # More than once only if others begin and end a run there in between.
            while restart and os.path.lexists(run / "study.toml"):
                moved.append(_rename(run.resolve(), study_file.resolve()))
                flush(moved[-1].parent)
                stack.close()
                lock = stack.enter_context(_locked_and_quiet(run))
            study, known = _claim(run, study_file)
            stack.enter_context(signed(lock))
        except (PolyheadError, OSError) as problem:
            if not moved:
                raise
            raise _with_place(problem, run, moved[0]) from problem
        yield Opened(study, known, moved[0] if moved else None, unfinished)


@contextmanager
def _locked_and_quiet(run: Path) -> Iterator[Lock]:
    """Hold the lock, once nobody works in the directory any more.

    Before it is signed: who gives up waiting leaves the trace by which the next one waits, too. Before it is moved away
    by `restart`: what works by its path would go on in the new one.
    """
    with locked(run) as lock:
        if lock.unfinished:
            wait_for_orphans(run)
        yield lock


def _refuse_strangers(run: Path) -> None:
    """Refuse a folder that holds anything but is no run, before a file of ours is put there."""
    try:
        strangers = [path.name for path in run.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return
    except OSError as problem:
        raise RunError(f"{run}: cannot be read ({problem.strerror}). Choose another --out.") from problem
    if strangers and "study.toml" not in strangers:
        raise RunError(f"{run}: is no run directory, but holds {min(strangers)!r}. Choose another --out.")


def _rename(run: Path, study_file: Path) -> Path:
    """Move a run, whose lock is held, out of the way; return where it is now."""
    for inside, what in ((study_file, "the study file lies"), (Path.cwd(), "this command was started")):
        if inside.is_relative_to(run):
            raise RunError(f"{run}: {what} inside the run that --restart moves away. Choose another place for it.")
    number = 1
    while os.path.lexists(to := run.with_name(f"{run.name}.before-{number}")):
        number += 1
    try:
        run.rename(to)
    except OSError as problem:
        raise RunError(f"{run}: cannot be moved to {to} ({problem.strerror}). Choose another --out.") from problem
    return to


def _with_place(problem: PolyheadError | OSError, run: Path, moved_to: Path) -> PolyheadError:
    """Return an error that says, too, where a run is that was moved before it."""
    error = type(problem) if isinstance(problem, PolyheadError) else RunError
    text = str(problem) if isinstance(problem, PolyheadError) else f"{run}: no run can be begun here ({problem})."
    return error(f"{text} What was there before lies in {moved_to}.")


def _claim(run: Path, study_file: Path) -> tuple[StudyConfig, bool]:
    """Make the directory, whose lock is held, the run of a study; return the study, and whether it was before."""
    _check_writable(run)
    refuse_folders(run / name for name in _FILES)
    remove_leftovers(run)
    text, copy = read_study_text(study_file), run / "study.toml"
    study, known = parse_study(text, study_file.parent, str(study_file)), os.path.lexists(copy)
    if known:
        _refuse_lost_settings(run)
        _check_same(run, study, text.encode(), study_file.parent)
    else:
        write_atomically(copy, text.encode())
    # Also of a run that ended between these two files.
    keep_settings(run / "settings.json", study)
    return study, known


def _check_writable(run: Path) -> None:
    """Find out by writing: permissions, a read-only mount and a server's own rules all show in that alone."""
    for folder in (run, *(run / name for name in ("state", "models", "predictions", "union"))):
        if folder == run or os.path.lexists(folder):
            try:
                with tempfile.TemporaryFile(dir=folder):
                    pass
            except OSError as problem:
                raise RunError(
                    f"{folder}: cannot be written ({problem.strerror}). Make it writable, or choose another --out."
                ) from problem


def _refuse_lost_settings(run: Path) -> None:
    """Refuse a run that has trained when nothing tells any longer what its study file's blanks stood for."""
    settings = run / "settings.json"
    if not os.path.lexists(settings) and any(file.is_file() for file in (run / "state").glob("*/*/*")):
        raise RunError(
            f"{settings}: is missing. It tells what the study file's blanks stood for when the training here began. "
            f"Put a copy of it in its place. {_REMEDY}"
        )


def _check_same(run: Path, study: StudyConfig, raw: bytes, folder: Path) -> None:
    """Refuse a study, its file's bytes and that file's folder, whose settings are not those that the run began with."""
    copy = run / "study.toml"
    copied = read_limited(copy, RunError, MOST_BYTES, _PUT_BACK)
    try:
        # As if it lay beside the other, so that relative paths mean the same in both.
        old = study_as_begun(run, copied.decode(), folder)
    except (StudyError, UnicodeDecodeError) as problem:
        raise RunError(
            # Of a list of faults the first is enough: the copy is not to be mended by hand.
            f"{copy}: the run's own copy of its study is damaged. {str(problem).splitlines()[0]} {_PUT_BACK}"
        ) from problem
    if changed := changed_settings(old, study):
        more = f"; and {len(changed) - _MOST_NAMED} more" if len(changed) > _MOST_NAMED else ""
        named = "; ".join(changed[:_MOST_NAMED])
        if copied == raw:
            raise RunError(
                f"{run}: began when the study file's blanks stood for something else. {named}{more}. {_SAY_IT}"
            )
        raise RunError(f"{run}: belongs to another study. {named}{more}. {_REMEDY}")
