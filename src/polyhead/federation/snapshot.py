"""The state of a federation on disk, so that an interrupted run goes on where it was.

===================================  ==============================================================================
``sites/SITE/private-R.safetensors``  each site's private state after R rounds
``shared-R.safetensors``              the shared entries after R rounds
``server-R.safetensors``              what the server's own rule keeps, under a method that has one
``round-R.json``                      the manifest: size and hash of each of these files. Written last
===================================  ==============================================================================

Every file is flushed to disk and renamed into place before the manifest that names it, so a snapshot whose manifest is
there is whole, or it was damaged later, which its hashes tell; the manifest has one of itself. The last two snapshots
are kept, and with them the states that were best by validation: a damaged one is not the end.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from polyhead.errors import RunError
from polyhead.federation.outliers import Distance
from polyhead.federation.private_state import PrivateFile
from polyhead.federation.snapshot_manifest import (
    Best,
    Manifest,
    manifest_path,
    manifest_rounds,
    moments_path,
    names_in,
    read_manifest,
    shared_path,
    stored_files,
    write_manifest,
)
from polyhead.limited_file import limited_file, may_pass
from polyhead.training.tensor_file import Stored, check_stored, read_tensors, write_tensors

__all__ = [
    "KEPT",
    "Snapshot",
    "Store",
    "load_shared",
    "load_snapshot",
    "remove_snapshots",
    "save_snapshot",
    "snapshot_files",
]

_log = logging.getLogger(__name__)

KEPT = 2
"""How many of the last snapshots are kept."""


@dataclass(frozen=True)
class Store:
    """Where a federation's state is kept, and whose it is: `key` is a hash of the study and its data."""

    folder: Path
    key: str


@dataclass(frozen=True)
class Snapshot:
    """State between two rounds.

    Attributes
    ----------
    rounds_done
        Number of rounds that went into it.
    shared
        The shared entries of the sites' models.
    private
        Each site's private state, as a file in the store: in memory there is never more than one.
    best
        By site, the state that is best for it by validation; of no site before `save_snapshot` was told of one.
    usual
        How far updates usually lie from the backbone; None before a round had enough to tell.
    moments
        What the server's rule keeps; see `polyhead.federation.server_rule`. Empty without one.
    """

    rounds_done: int
    shared: Mapping[str, torch.Tensor]
    private: Mapping[str, PrivateFile]
    best: Mapping[str, Best] = field(default_factory=dict)
    usual: Distance | None = None
    moments: Mapping[str, torch.Tensor] = field(default_factory=dict)


def save_snapshot(snapshot: Snapshot, store: Store, validation: Mapping[str, float] | None = None) -> Snapshot:
    """Write a snapshot, whose private files are there already, and remove what is not kept any longer.

    Parameters
    ----------
    validation
        AUROC of this state on each site's validation images: it becomes the best of the sites where it is highest.

    Returns
    -------
    Snapshot
        With its `best` brought up to date.

    Raises
    ------
    DiskError
        If the disk is full; the snapshots before are untouched.
    """
    rounds_done = snapshot.rounds_done
    shared = write_tensors(shared_path(store.folder, rounds_done), snapshot.shared)
    moments = None
    if snapshot.moments:
        moments = write_tensors(moments_path(store.folder, rounds_done), snapshot.moments)
    better = {
        site: Best(rounds_done, auroc, shared, snapshot.private[site])
        for site, auroc in (validation or {}).items()
        if site not in snapshot.best or auroc > snapshot.best[site].auroc
    }
    saved = replace(snapshot, best={**snapshot.best, **better})
    manifest = Manifest(store.key, rounds_done, shared, saved.private, saved.best, saved.usual, moments)
    write_manifest(store.folder, manifest)
    _remove_others(store)
    return saved


def load_snapshot(store: Store, sites: Sequence[str]) -> Snapshot | None:
    """Return the last good snapshot; None if no round was finished yet.

    A damaged one is warned about, and its manifest put aside under another name.

    Raises
    ------
    RunError
        If all are damaged or their manifests gone, or one cannot be read now, though it may be whole. Nothing is
        removed or changed then.
    """
    damaged: list[int] = []
    for rounds_done in manifest_rounds(store.folder):
        try:
            manifest = _sound_manifest(store, rounds_done, sites)
        except RunError as problem:
            if may_pass(problem):
                raise _unreadable(rounds_done, problem) from problem
            _log.warning("the state after %d rounds cannot be used; going back. %s", rounds_done, problem)
            damaged.append(rounds_done)
        else:
            return _load(store, manifest, damaged)
    if damaged != [0] and (damaged or _holds_a_round(store)):
        after = " and ".join(map(str, damaged)) or "earlier"
        raise RunError(
            f"{store.folder}: none of the states after {after} rounds can be used (the log says why; or a manifest is "
            "gone). Nothing was removed. Restore the files; or remove this folder, and what was trained in it is "
            "trained anew."
        )
    return None


def load_shared(store: Store, rounds_done: int, stored: Stored) -> dict[str, torch.Tensor]:
    """Read the shared entries after so many rounds.

    Raises
    ------
    RunError
        If the file is not the one that was written.
    """
    path = shared_path(store.folder, rounds_done)
    return read_tensors(path, RunError, most_bytes=stored.bytes, stored=stored)


def remove_snapshots(store: Store) -> None:
    """Remove all snapshots, and the sites' folders in the store with them."""
    for file in snapshot_files(store):
        file.unlink()
    sites = store.folder / "sites"
    for folder in (*_matching(sites, "*"), sites):
        with suppress(OSError):
            folder.rmdir()


def snapshot_files(store: Store) -> list[Path]:
    """Return the files of all snapshots, whole or not: manifests first, since none may outlive what it names."""
    manifests = [manifest_path(store.folder, rounds_done) for rounds_done in manifest_rounds(store.folder)]
    return [*manifests, *_matching(store.folder, "round-*.json.damaged"), *_state_files(store.folder)]


def _sound_manifest(store: Store, rounds_done: int, sites: Sequence[str]) -> Manifest:
    """Read a manifest and hold every file that it names against it."""
    manifest = read_manifest(store.folder, rounds_done, store.key)
    if sorted(manifest.private) != sorted(sites) or manifest.best.keys() - set(sites):
        raise RunError(f"{manifest_path(store.folder, rounds_done)}: is of other sites.")
    for path, stored in stored_files(store.folder, manifest).items():
        with limited_file(path, RunError, stored.bytes) as opened:
            check_stored(path, RunError, opened, stored)
    return manifest


def _load(store: Store, manifest: Manifest, damaged: Sequence[int]) -> Snapshot:
    """Read a snapshot whose files are whole, and put the manifests of later, damaged ones aside."""
    try:
        shared = load_shared(store, manifest.rounds_done, manifest.shared)
        moments = _load_moments(store, manifest)
    except RunError as problem:
        # Its hash was right a moment ago: out of memory, or of open files, in a library that says neither.
        raise _unreadable(manifest.rounds_done, problem) from problem
    # Their rounds will be done again; who wants to know what happened finds them under this name.
    for rounds_done in damaged:
        path = manifest_path(store.folder, rounds_done)
        path.replace(path.with_name(f"{path.name}.damaged"))
    return Snapshot(manifest.rounds_done, shared, manifest.private, manifest.best, manifest.usual, moments)


def _load_moments(store: Store, manifest: Manifest) -> dict[str, torch.Tensor]:
    if manifest.moments is None:
        return {}
    path = moments_path(store.folder, manifest.rounds_done)
    return read_tensors(path, RunError, most_bytes=manifest.moments.bytes, stored=manifest.moments)


def _unreadable(rounds_done: int, problem: RunError) -> RunError:
    return RunError(
        f"the state after {rounds_done} rounds cannot be read now. {problem} Nothing was changed. When it can be read, "
        "give the same command again."
    )


def _holds_a_round(store: Store) -> bool:
    """Tell whether anything is there of a round that was finished; what is there of round 0 is soon made again."""
    return any(not file.stem.endswith("-0") for file in snapshot_files(store))


def _remove_others(store: Store) -> None:
    """Remove every snapshot but the last ones, and every file that none of these names."""
    kept = manifest_rounds(store.folder)[:KEPT]
    wanted: set[Path] = set()
    for rounds_done in kept:
        try:
            wanted |= stored_files(store.folder, read_manifest(store.folder, rounds_done, store.key)).keys()
        except RunError as problem:
            # What it names is unknown, and stays.
            _log.info("nothing is removed: %s", problem)
            return
    others = set(_state_files(store.folder)) - wanted
    # Manifests first: one must never outlive its files.
    for rounds_done in set(manifest_rounds(store.folder)) - set(kept):
        manifest_path(store.folder, rounds_done).unlink()
    for file in others:
        file.unlink()


def _state_files(folder: Path) -> list[Path]:
    private = [_matching(site, "private-*.safetensors") for site in _matching(folder / "sites", "*")]
    of_server = (*_matching(folder, "shared-*.safetensors"), *_matching(folder, "server-*.safetensors"))
    return [*of_server, *(file for files in private for file in files)]


def _matching(folder: Path, pattern: str) -> list[Path]:
    return [folder / name for name in names_in(folder) if fnmatchcase(name, pattern)]
