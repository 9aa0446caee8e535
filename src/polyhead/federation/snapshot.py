"""The state of a federation on disk, so that an interrupted run goes on where it was.

=============================  ====================================================================================
``SITE/private-R.safetensors``  each site's private state after round R
``shared-R.safetensors``        the shared entries after round R
``round-R.json``                the manifest: size and hash of each of these files. Written last
=============================  ====================================================================================

Every file is flushed to disk and renamed into place before the manifest that names it, so a snapshot whose manifest is
there is whole, or it was damaged later, which its hashes tell; the manifest has one of itself. The last two snapshots
and the best by validation are kept: a damaged one is not the end.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from polyhead.atomic import write_atomically
from polyhead.errors import RunError
from polyhead.federation.private_state import PrivateFile, private_path
from polyhead.training.tensor_file import Stored, check_stored, limited_file, read_tensors, write_tensors

__all__ = [
    "KEPT",
    "Snapshot",
    "Store",
    "best_snapshot",
    "load_snapshot",
    "remove_snapshots",
    "save_snapshot",
    "snapshot_files",
]

_log = logging.getLogger(__name__)
_MOST_BYTES = 2**20

KEPT = 2
"""How many of the last snapshots are kept, beside the best."""


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
    validation
        Mean AUROC of this state over the sites' validation images; None where it was not measured.
    """

    rounds_done: int
    shared: Mapping[str, torch.Tensor]
    private: Mapping[str, PrivateFile]
    validation: float | None = None


def save_snapshot(snapshot: Snapshot, store: Store) -> None:
    """Write a snapshot, whose private files are there already, and remove what is not kept any longer.

    Raises
    ------
    DiskError
        If the disk is full; the snapshots before are untouched.
    """
    shared = write_tensors(_shared_path(store.folder, snapshot.rounds_done), snapshot.shared)
    manifest = {
        "key": store.key,
        "rounds_done": snapshot.rounds_done,
        "validation": snapshot.validation,
        "shared": [shared.bytes, shared.sha256],
        "private": {
            site: [file.rounds_done, file.stored.bytes, file.stored.sha256] for site, file in snapshot.private.items()
        },
    }
    text = json.dumps({**manifest, "sha256": _hash_of(manifest)})
    write_atomically(_manifest_path(store.folder, snapshot.rounds_done), text)
    _remove_others(store)


def load_snapshot(store: Store, sites: Sequence[str]) -> Snapshot | None:
    """Return the last good snapshot, or None if there is none; every damaged one is warned about and given up."""
    found = sorted(_manifests(store.folder), reverse=True)
    for rounds_done in found:
        try:
            return _load(store, rounds_done, sites)
        except RunError as problem:
            _log.warning("the snapshot after round %d cannot be used; going back. %s", rounds_done, problem)
            # Its rounds will be done again, and must not be taken for older than it is.
            _manifest_path(store.folder, rounds_done).unlink()
    if found:
        _log.warning("%s: none of its snapshots can be used; this federation begins anew.", store.folder)
    return None


def best_snapshot(store: Store, sites: Sequence[str]) -> Snapshot:
    """Return the snapshot with the highest validation, the earliest of equals.

    Raises
    ------
    RunError
        If none was validated, or the best is damaged.
    """
    best = _best(_readable(store))
    if best is None:
        raise RunError(f"{store.folder}: no state has a validation AUROC, so none is the best. Set select = 'last'.")
    try:
        return _load(store, best, sites)
    except RunError as problem:
        raise RunError(
            f"the best state, after round {best}, is damaged. {problem} Or train anew, with --restart."
        ) from problem


def remove_snapshots(store: Store) -> None:
    """Remove all snapshots, and the sites' folders in the store with them."""
    for file in snapshot_files(store):
        file.unlink()
    for folder in store.folder.glob("*/"):
        # What a round under way left there goes before the next round.
        with suppress(OSError):
            folder.rmdir()


def snapshot_files(store: Store) -> list[Path]:
    """Return the files of all snapshots, whole or not: manifests first, since none may outlive what it names."""
    manifests = [_manifest_path(store.folder, rounds_done) for rounds_done in _manifests(store.folder)]
    return [*manifests, *_state_files(store.folder)]


def _load(store: Store, rounds_done: int, sites: Sequence[str]) -> Snapshot:
    manifest = _read_manifest(store, rounds_done)
    private: dict[str, PrivateFile] = manifest["private"]
    if sorted(private) != sorted(sites):
        raise RunError(f"{_manifest_path(store.folder, rounds_done)}: is of other sites.")
    for site, file in private.items():
        path = private_path(store.folder, site, file.rounds_done)
        with limited_file(path, RunError, file.stored.bytes) as opened:
            check_stored(path, RunError, opened, file.stored)
    stored: Stored = manifest["shared"]
    shared = read_tensors(_shared_path(store.folder, rounds_done), RunError, most_bytes=stored.bytes, stored=stored)
    return Snapshot(rounds_done, shared, private, manifest["validation"])


def _read_manifest(store: Store, rounds_done: int) -> dict[str, Any]:
    """Read a manifest into the types that `Snapshot` wants; it names no paths, so none can lead out of the folder."""
    path = _manifest_path(store.folder, rounds_done)
    with limited_file(path, RunError, _MOST_BYTES) as file:
        raw = file.read()
    try:
        content = json.loads(raw)
        said = content.pop("sha256")
        if said != _hash_of(content):
            raise ValueError("its hash is another")
        manifest: dict[str, Any] = {
            "private": {site: _private_file(*about) for site, about in content["private"].items()}
        }
        manifest |= {"key": content["key"], "shared": _stored(*content["shared"])}
        manifest["validation"] = _validation(content["validation"])
        same = content["rounds_done"] == rounds_done and content["key"] == store.key
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise RunError(f"{path}: is damaged ({type(problem).__name__}: {str(problem)[:200]}).") from problem
    if not same:
        raise RunError(f"{path}: belongs to another study, or to other data.")
    return manifest


def _hash_of(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _private_file(rounds_done: object, size: object, sha256: object) -> PrivateFile:
    return PrivateFile(_count(rounds_done), _stored(size, sha256))


def _stored(size: object, sha256: object) -> Stored:
    return Stored(_count(size), str(sha256))


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise ValueError("a count is none")
    return value


def _validation(value: object) -> float | None:
    if value is not None and not (isinstance(value, float) and math.isfinite(value)):
        raise ValueError("the validation is no number")
    return value


def _readable(store: Store) -> Iterator[tuple[int, dict[str, Any]]]:
    for rounds_done in sorted(_manifests(store.folder)):
        try:
            yield rounds_done, _read_manifest(store, rounds_done)
        except RunError as problem:
            _log.info("passed over: %s", problem)


def _best(manifests: Iterator[tuple[int, dict[str, Any]]]) -> int | None:
    validated = [(m["validation"], -rounds_done) for rounds_done, m in manifests if m["validation"] is not None]
    return -max(validated)[1] if validated else None


def _remove_others(store: Store) -> None:
    """Remove every snapshot but the last ones and the best, and every file that none of these names."""
    readable = dict(_readable(store))
    kept = set(sorted(readable)[-KEPT:]) | {_best(iter(readable.items()))}
    wanted = {_shared_path(store.folder, rounds_done) for rounds_done in kept if rounds_done is not None}
    for rounds_done in set(readable) & kept:
        private: dict[str, PrivateFile] = readable[rounds_done]["private"]
        wanted |= {private_path(store.folder, site, file.rounds_done) for site, file in private.items()}
    # Manifests first: one must never outlive its files.
    for rounds_done in set(_manifests(store.folder)) - kept:
        _manifest_path(store.folder, rounds_done).unlink()
    for file in set(_state_files(store.folder)) - wanted:
        file.unlink()


def _state_files(folder: Path) -> list[Path]:
    return [*folder.glob("shared-*.safetensors"), *folder.glob("*/private-*.safetensors")]


def _manifests(folder: Path) -> Iterator[int]:
    for file in folder.glob("round-*.json"):
        number = file.stem.removeprefix("round-")
        if number.isascii() and number.isdigit() and str(int(number)) == number:
            yield int(number)


def _manifest_path(folder: Path, rounds_done: int) -> Path:
    return folder / f"round-{rounds_done}.json"


def _shared_path(folder: Path, rounds_done: int) -> Path:
    return folder / f"shared-{rounds_done}.safetensors"
