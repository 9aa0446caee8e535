"""A data set's own files become a site: ``manifest.csv`` and ``site.toml``, and nothing else."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from rich.console import Console
from rich.table import Table
from rich.text import Text

from polyhead.adapters.chestxray14 import import_chestxray14
from polyhead.adapters.chexpert import import_chexpert
from polyhead.adapters.column_map import ColumnMap, read_column_map
from polyhead.adapters.imported import Imported, Options
from polyhead.adapters.mimic_cxr import import_mimic_cxr
from polyhead.adapters.padchest import import_padchest
from polyhead.adapters.table import import_table
from polyhead.adapters.table_columns import find_table
from polyhead.adapters.vindr_cxr import import_vindr_cxr
from polyhead.errors import ManifestError, SourceError, UsageError
from polyhead.findings import closest
from polyhead.manifest import SPLITS, Manifest, label_counts, write_manifest
from polyhead.printable import printable
from polyhead.site_file import SiteFile

__all__ = ["PUBLIC", "import_site", "print_import"]

PUBLIC: Mapping[str, Callable[[Path, Options], Imported]] = MappingProxyType(
    {
        "chexpert": import_chexpert,
        "mimic-cxr": import_mimic_cxr,
        "chestxray14": import_chestxray14,
        "vindr-cxr": import_vindr_cxr,
        "padchest": import_padchest,
    }
)
"""Adapters of public data sets; ``table`` is the one for all others."""

_READ_BY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "uncertain": ("table", "chexpert", "mimic-cxr", "vindr-cxr"),
        "not_mentioned": ("table", "chexpert", "mimic-cxr"),
        "views": ("table", "chexpert", "mimic-cxr", "chestxray14", "padchest"),
        "seed": ("table", "chexpert", "chestxray14", "vindr-cxr", "padchest"),
        "validation": ("table", "chexpert", "chestxray14", "vindr-cxr"),
        "min_positives": ("padchest",),
        "labels": ("padchest",),
        "allow_missing": ("table", *PUBLIC),
    }
)


def import_site(
    adapter: str,
    root: Path,
    out: Path,
    options: Options,
    map_file: Path | None = None,
    *,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Manifest, Imported]:
    """Write a site for a data set; images stay where they are, and nothing is written elsewhere.

    Parameters
    ----------
    adapter
        A key of `PUBLIC`, or ``table``.
    root
        The data set's folder.
    out
        The site's folder.
    options
        What a person chose.
    map_file
        The map of the columns, for ``table``.
    force
        Replace a manifest that is there.
    progress
        Called with the numbers of files done and of all, where an adapter opens every file.

    Returns
    -------
    Manifest
        As written and read back.
    Imported
        With the choices and notes.

    Raises
    ------
    UsageError
        There is no such adapter, the map or an option does not go with it, or a manifest is there.
    SourceError
        As the adapter's; or what it gave is no sound manifest. What was there before stays.
    """
    if adapter not in (*PUBLIC, "table"):
        raise UsageError(f"no adapter {adapter!r}; {closest(adapter, (*PUBLIC, 'table'))}.")
    if map_file is not None and adapter != "table":
        raise UsageError(f"--map goes with the adapter 'table'; {adapter!r} knows its own columns.")
    _refuse_unread(adapter, options)
    _refuse_replacing(out, force)
    if adapter == "table":
        imported = _import_table(root, out, options, map_file, progress)
    else:
        imported = PUBLIC[adapter](root, options)
    site = SiteFile(_images_for(out, imported.images), imported.choices)
    try:
        return write_manifest(imported.frame, out / "manifest.csv", site), imported
    except ManifestError as problem:
        raise SourceError(f"{root}: gives no sound manifest, so none was written.\n{problem}") from problem


def print_import(manifest: Manifest, imported: Imported, console: Console) -> None:
    """Say what was imported, by which choices, what was left out, and what to do next."""
    images = Table("split", "images", "patients")
    for split in SPLITS:
        part = manifest.split(split)
        images.add_row(split, f"{part.height:,}", f"{part['patient_id'].n_unique():,}")
    console.print(images)
    console.print(_label_table(manifest))
    for name, value in imported.choices.items():
        console.print(Text(printable(f"{name}: {value}")))
    for note in imported.notes:
        console.print(Text(printable(f"note: {note}")))
    # Not wrapped: a person copies these.
    for line in (f"Written: {manifest.path}", f"Next: polyhead check {shlex.quote(str(manifest.path.parent))}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _label_table(manifest: Manifest) -> Table:
    table = Table("finding", *SPLITS, title="Labels: present / absent / not annotated", title_justify="left")
    counts = {(row["finding"], row["split"]): row for row in label_counts(manifest).iter_rows(named=True)}
    for finding in manifest.findings:
        rows = [counts[finding, split] for split in SPLITS]
        cells = [f"{row['positives']:,} / {row['negatives']:,} / {row['blank']:,}" for row in rows]
        table.add_row(Text(finding), *cells)
    return table


def _import_table(
    root: Path, out: Path, options: Options, map_file: Path | None, progress: Callable[[int, int], None] | None
) -> Imported:
    columns = read_column_map(map_file) if map_file is not None else ColumnMap()
    path = find_table(root, columns)
    if path.resolve() == (out / "manifest.csv").resolve():
        raise UsageError(f"--out {out}: {path} is the table to import; it must not be replaced. Choose another --out.")
    return import_table(root, options, columns, progress)


def _refuse_unread(adapter: str, options: Options) -> None:
    """Refuse a choice that would change nothing: a person who made it would report it."""
    for name, adapters in _READ_BY.items():
        if adapter not in adapters and getattr(options, name) != getattr(Options(), name):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{flag} changes nothing for {adapter!r}; it goes with {', '.join(adapters)}. Leave it out."
            )


def _refuse_replacing(out: Path, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is not a folder.")
    for name in ("manifest.csv", "site.toml"):
        if (out / name).exists() and not force:
            raise UsageError(f"{out / name}: is there already. Choose another --out, or replace it with --force.")


def _images_for(out: Path, images: Path) -> Path | None:
    """Return the images' folder as ``site.toml`` should hold it: relative if the site can move together with it."""
    site, folder = out.resolve(), images.resolve()
    if folder == site:
        return None
    # Links are kept as the person wrote them, so that they may later lead elsewhere.
    return folder.relative_to(site) if folder.is_relative_to(site) else images.absolute()
