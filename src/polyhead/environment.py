"""What a run was computed with and from: ``environment.json``, ``inputs.json`` and ``sources.json``."""

import hashlib
import json
import logging
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from polyhead.atomic import write_atomically
from polyhead.config import StudyConfig
from polyhead.errors import RunError
from polyhead.imaging.cache_files import fingerprint
from polyhead.json_file import read_object
from polyhead.manifest import Manifest, read_manifest
from polyhead.site_file import read_site_file
from polyhead.training.device import Device, describe_device

__all__ = ["keep_environment", "keep_inputs", "keep_sources"]

_log = logging.getLogger(__name__)

_PACKAGES = ("polyhead", "torch", "monai", "numpy", "polars", "pillow", "imagecodecs", "scikit-learn", "safetensors")
_MOST_NAMED = 5
_ANEW = "choose another --out, or begin anew with --restart, which keeps this run beside the new one."


def keep_environment(path: Path, study: StudyConfig, device: Device) -> None:
    """Write what a run begins with; what it goes on with later is added under ``resumed``, with a warning.

    Versions, device, threads, seeds and the commit of the source; nothing that names a person or machine.

    Raises
    ------
    RunError
        If what an earlier process wrote there is damaged.
    """
    environment = {
        "versions": {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}},
        "system": f"{platform.system()} {platform.machine()}",
        **describe_device(device),
        "seeds": study.seeds,
        "commit": _commit(),
    }
    if path.exists():
        remedy = "Remove it: it is written again, and only what it told of earlier versions is lost."
        first = read_object(path, remedy)
        others = first.pop("resumed", [])
        if not isinstance(others, list):
            raise RunError(f"{path}: is damaged: 'resumed' is no list. {remedy}")
        if environment in (first, *others):
            return
        _log.warning("%s: this run was begun with other versions or another device; see 'resumed' there.", path)
        environment = {**first, "resumed": [*others, environment]}
    write_atomically(path, json.dumps(environment, indent=2) + "\n")


def keep_inputs(path: Path, study: StudyConfig, manifests: Mapping[str, Manifest]) -> None:
    """Write hashes of every site's table, images and ``site.toml``, and of the initial weights; refuse any others.

    Of an image its name and size in bytes are taken, not its time of change: data may be copied while a run rests.

    Raises
    ------
    RunError
        Naming each site and what of it is no longer what the run began with, up to five; or that the file is damaged.
    """
    inputs = {}
    for name, manifest in manifests.items():
        inputs[f"site {name}"] = _hash(manifest.frame.write_csv().encode())
        inputs[f"images of site {name}"] = _hash(json.dumps(_image_sizes(manifest)).encode())
        choices = dict(read_site_file(manifest.path.parent).source)
        if any(site.release_head for site in study.site):
            # Heads of other sites are tested on whatever it annotates, also on what it does not train.
            inputs[f"whole table of site {name}"] = _hash(read_manifest(manifest.path).frame.write_csv().encode())
        inputs[f"choices behind the labels of site {name}"] = _hash(json.dumps(choices).encode())
    if study.model.weights:
        inputs["model.weights"] = _hash(study.model.weights.read_bytes())
    if path.exists():
        began = read_object(
            path, f"If you are sure that nothing of the sites has changed, remove it: it is written again. Else {_ANEW}"
        )
        if changes := _changes(began, inputs):
            more = f", and {len(changes) - _MOST_NAMED} more things" if len(changes) > _MOST_NAMED else ""
            named = ", ".join(changes[:_MOST_NAMED])
            raise RunError(f"{path.parent}: {named}{more} since the run began. Put it back, or {_ANEW}")
    write_atomically(path, json.dumps(inputs, indent=2) + "\n")


def keep_sources(path: Path, study: StudyConfig) -> None:
    """Write the choices behind the labels of every site whose ``site.toml`` has them on record; no file if none has.

    Raises
    ------
    ManifestError
        If a ``site.toml`` is faulty.
    """
    found = {site.name: dict(read_site_file(site.manifest.parent).source) for site in study.site}
    sources = {name: choices for name, choices in found.items() if choices}
    if sources:
        write_atomically(path, json.dumps(sources, indent=2) + "\n")


def _changes(began: Mapping[str, Any], now: Mapping[str, str]) -> list[str]:
    """Say what differs; of a site that is new or gone only that."""
    fates = dict.fromkeys(now.keys() - began.keys(), "is new")
    fates |= dict.fromkeys(began.keys() - now.keys(), "is gone")
    fates |= {name: "has changed" for name in began.keys() & now.keys() if began[name] != now[name]}
    whole = tuple(f" {name}" for name, fate in fates.items() if name.startswith("site ") and fate != "has changed")
    told = [name for name in fates if name.startswith("site ") or not name.endswith(whole)]
    # Tables first: what else changes often follows from them.
    return [f"{name} {fates[name]}" for name in sorted(told, key=lambda name: (not name.startswith("site "), name))]


def _image_sizes(manifest: Manifest) -> list[tuple[str, int | None]]:
    stamps = ((name, fingerprint(manifest.root / name)) for name in manifest.frame["image"])
    return [(name, stamp and stamp[0]) for name, stamp in stamps]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _commit() -> str | None:
    """Return the commit of the checkout that this code lies in, or None where it was installed from a package."""
    tracked = ["git", "ls-files", "--error-unmatch", __file__]
    describe = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    folder = Path(__file__).parent
    try:
        for command in (tracked, describe):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
