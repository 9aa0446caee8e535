"""The manifest of a snapshot, ``round-R.json`` after R rounds: what the state is, and size and hash of its files.

It names sites and rounds, not paths; whoever reads it holds the names against those of the study's sites.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from polyhead.atomic import write_atomically
from polyhead.errors import RunError
from polyhead.federation.outliers import Distance
from polyhead.federation.private_state import PrivateFile, private_path
from polyhead.limited_file import read_limited
from polyhead.training.tensor_file import Stored

__all__ = [
    "Best",
    "Manifest",
    "manifest_path",
    "manifest_rounds",
    "moments_path",
    "names_in",
    "read_manifest",
    "shared_path",
    "stored_files",
    "write_manifest",
]

_MOST_BYTES = 2**24
# As `manifest_path` writes it, and no other way: no leading zeros.
_ROUND = re.compile(r"round-(0|[1-9][0-9]{0,17})\.json")


@dataclass(frozen=True)
class Best:
    """The state under which a site's AUROC on its validation images was highest so far; of equals, the earliest.

    Attributes
    ----------
    rounds_done
        Number of rounds that went into it.
    auroc
        The site's mean over its findings, 0 to 1.
    shared, private
        Its files.
    """

    rounds_done: int
    auroc: float
    shared: Stored
    private: PrivateFile


@dataclass(frozen=True)
class Manifest:
    """What ``round-R.json`` says.

    Attributes
    ----------
    key
        Whose state it is; see `polyhead.federation.snapshot.Store`.
    rounds_done
        Number of rounds that went into it.
    shared, private
        Its files: the shared entries, and each site's private state.
    best
        By site; none of a site that was not validated.
    usual
        How far updates usually lie from the backbone; None before a round had enough to tell.
    moments
        The file of what the server's rule keeps; None without one.
    """

    key: str
    rounds_done: int
    shared: Stored
    private: Mapping[str, PrivateFile]
    best: Mapping[str, Best]
    usual: Distance | None
    moments: Stored | None = None


def manifest_path(folder: Path, rounds_done: int) -> Path:
    """Return where the manifest of the state after so many rounds lies."""
    return folder / f"round-{rounds_done}.json"


def shared_path(folder: Path, rounds_done: int) -> Path:
    """Return where the shared entries after so many rounds lie."""
    return folder / f"shared-{rounds_done}.safetensors"


def moments_path(folder: Path, rounds_done: int) -> Path:
    """Return where lies what the server's rule keeps after so many rounds."""
    return folder / f"server-{rounds_done}.safetensors"


def manifest_rounds(folder: Path) -> list[int]:
    """Return after how many rounds there are manifests, the latest first.

    Raises
    ------
    RunError
        If the folder cannot be read.
    """
    found = (_ROUND.fullmatch(name) for name in names_in(folder))
    return sorted((int(name[1]) for name in found if name), reverse=True)


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder; none if there is no such folder.

    Raises
    ------
    RunError
        If it cannot be read. `Path.glob` would take that for an empty one.
    """
    try:
        return os.listdir(folder)  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as problem:
        raise RunError(
            f"{folder}: cannot be read ({problem.strerror}). Check its permissions and the disk, then give the same "
            "command again; nothing was changed."
        ) from problem


def stored_files(folder: Path, manifest: Manifest) -> dict[Path, Stored]:
    """Return every file here that a snapshot consists of beside its manifest, those of the best states included."""
    files = {shared_path(folder, manifest.rounds_done): manifest.shared}
    files |= {shared_path(folder, best.rounds_done): best.shared for best in manifest.best.values()}
    files |= {moments_path(folder, manifest.rounds_done): manifest.moments} if manifest.moments else {}
    private = [*manifest.private.items(), *((site, best.private) for site, best in manifest.best.items())]
    return files | {private_path(folder, site, own.rounds_done): own.stored for site, own in private if own.stored}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a manifest, with a hash of itself.

    Raises
    ------
    DiskError
        If the disk is full.
    """
    content = asdict(manifest)
    write_atomically(manifest_path(folder, manifest.rounds_done), json.dumps({**content, "sha256": _hash_of(content)}))


def read_manifest(folder: Path, rounds_done: int, key: str) -> Manifest:
    """Read the manifest of the state after so many rounds.

    Raises
    ------
    RunError
        If it cannot be read, is damaged, or is of another study or other data.
    """
    path = manifest_path(folder, rounds_done)
    raw = read_limited(path, RunError, _MOST_BYTES)
    try:
        content = json.loads(raw)
        said = content.pop("sha256")
        if said != _hash_of(content):
            raise ValueError("its hash is another")
        manifest = _manifest(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise RunError(f"{path}: is damaged ({type(problem).__name__}: {str(problem)[:200]}).") from problem
    if (manifest.rounds_done, manifest.key) != (rounds_done, key):
        raise RunError(f"{path}: belongs to another study, or to other data.")
    return manifest


def _hash_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _manifest(content: Mapping[str, Any]) -> Manifest:
    usual, moments = content["usual"], content.get("moments")
    return Manifest(
        str(content["key"]),
        _count(content["rounds_done"]),
        _stored(**content["shared"]),
        {site: _private_file(**file) for site, file in content["private"].items()},
        {site: _best(**best) for site, best in content["best"].items()},
        None if usual is None else Distance(*(_number(part) for part in usual)),
        None if moments is None else _stored(**moments),
    )


def _best(rounds_done: object, auroc: object, shared: Mapping[str, Any], private: Mapping[str, Any]) -> Best:
    return Best(_count(rounds_done), _number(auroc), _stored(**shared), _private_file(**private))


def _private_file(rounds_done: object, stored: Mapping[str, Any] | None) -> PrivateFile:
    return PrivateFile(_count(rounds_done), None if stored is None else _stored(**stored))


def _stored(bytes: object, sha256: object) -> Stored:
    return Stored(_count(bytes), str(sha256))


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise ValueError("a count is none")
    return value


def _number(value: object) -> float:
    if not (isinstance(value, float) and math.isfinite(value) and value >= 0):
        raise ValueError("a number is none")
    return value
