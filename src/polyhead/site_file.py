"""``site.toml``, beside a manifest: where the images are, and how the labels were made.

The file stays at the site, but ``[source]`` goes into a run and its report: no patient belongs there.

Without the file, images lie below the manifest's own folder. An example::

    images = "/data/CheXpert-v1.0"      # images are named relative to this folder, and none may lie outside it

    [source]                            # the choices behind the labels; every report of a study repeats them
    adapter = "chexpert"
    uncertain = "blank"
"""

import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from polyhead.atomic import write_atomically
from polyhead.errors import ManifestError
from polyhead.findings import closest
from polyhead.toml_file import read_toml

__all__ = ["SiteFile", "read_site_file", "write_site_file"]

_NAME = "site.toml"


@dataclass(frozen=True)
class SiteFile:
    """What stands in ``site.toml``.

    Attributes
    ----------
    images
        Folder that the manifest's images are relative to; None is the manifest's own.
    source
        Choices behind the labels, by name; empty if none are on record.
    """

    images: Path | None = None
    source: Mapping[str, str] = field(default_factory=dict)


def read_site_file(folder: Path) -> SiteFile:
    """Read a folder's ``site.toml``; an absent file is an empty one. Relative paths are relative to the folder.

    Raises
    ------
    ManifestError
        The file is no TOML, or holds an unknown key or a value of another type.
    """
    path = folder / _NAME
    if not path.exists():
        return SiteFile()
    content = read_toml(path, ManifestError)
    known = {"images": str, "source": dict}
    for key, value in content.items():
        if key not in known:
            raise ManifestError(f"{path}: unknown key {key!r}; {closest(key, known)}.")
        if not isinstance(value, known[key]):
            allowed = "text" if key == "images" else "a table"
            raise ManifestError(f"{path}: key {key!r}: found {reprlib.repr(value)}; allowed is {allowed}.")
    source = content.get("source", {})
    for key, value in source.items():
        if isinstance(value, dict | list):
            raise ManifestError(
                f"{path}: key 'source.{key}': found {reprlib.repr(value)}; allowed is text or a number."
            )
    choices = {key: str(value) for key, value in source.items()}
    return SiteFile(folder / content["images"] if "images" in content else None, choices)


def write_site_file(folder: Path, contents: SiteFile) -> None:
    """Write a folder's ``site.toml``, atomically.

    Raises
    ------
    ManifestError
        The images' folder has a name that is no text, which TOML cannot hold.
    """
    lines = [f"images = {_quoted(str(contents.images))}"] if contents.images else []
    if contents.source:
        choices = [f"{_quoted(key)} = {_quoted(value)}" for key, value in contents.source.items()]
        lines += ["", "[source]", *choices]
    try:
        write_atomically(folder / _NAME, "\n".join(lines).lstrip("\n") + "\n")
    except UnicodeEncodeError as problem:
        raise ManifestError(f"{folder / _NAME}: the name of the images' folder is not UTF-8. Rename it.") from problem


def _quoted(text: str) -> str:
    # A JSON string is a TOML string too, but for the one character that only TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
