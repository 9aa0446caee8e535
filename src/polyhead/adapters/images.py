"""Which images of a data set are on disk, found by listing folders rather than by asking for each file."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import polars as pl

from polyhead.adapters.imported import Options
from polyhead.errors import SourceError

__all__ = ["folders_of", "keep_present", "list_images", "say_missing"]

_TOLERATED = 0.01


def folders_of(frame: pl.DataFrame) -> list[str]:
    """Return the folders, relative to the images' own, in which a table's images lie; ``""`` is that folder itself."""
    return frame.select(pl.col("image").str.extract(r"^(.*)/").fill_null("").unique()).to_series().to_list()


def list_images(root: Path, folders: Iterable[str]) -> pl.DataFrame:
    """List the files of some folders.

    Returns
    -------
    polars.DataFrame
        ``image`` (relative to `root`), ``name`` and ``stem`` (the name without its extension), a row for each file; no
        row for a folder that is absent.

    Raises
    ------
    SourceError
        A folder may not be read.
    """
    names: list[str] = []
    images: list[str] = []
    for folder in folders:
        try:
            with os.scandir(root / folder) as entries:
                found = [entry.name for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as problem:
            raise SourceError(
                f"{root / folder}: cannot be listed ({problem.strerror}). Check its permissions."
            ) from problem
        names += found
        images += [f"{folder}/{name}" for name in found] if folder else found
    frame = pl.DataFrame({"image": images, "name": names}, schema={"image": pl.String, "name": pl.String})
    return frame.with_columns(pl.col("name").str.replace(r"\.[^.]*$", "").alias("stem"))


def keep_present(
    frame: pl.DataFrame,
    listing: pl.DataFrame,
    root: Path,
    options: Options,
    page: str = "",
    *,
    remedy: Callable[[pl.DataFrame], str] | None = None,
) -> tuple[pl.DataFrame, list[str]]:
    """Leave rows out whose image is not on disk.

    Parameters
    ----------
    frame
        With ``image``.
    listing
        As `list_images` gives it, of the folders where the images should be.
    root, options, page
        The images' folder, the person's choices, and where a person gets the data set, for the message.
    remedy
        What to do, from the rows whose image is missing; without it, complete the download.

    Returns
    -------
    polars.DataFrame
        The rows whose image is there, in the same order.
    list of str
        A note if any were left out.

    Raises
    ------
    SourceError
        No image is there, or more than 1 % are missing and `options.allow_missing` is not set: half a download must
        not pass for the data set.
    """
    present = frame["image"].is_in(listing["image"].implode())
    missing = frame.filter(~present)
    if not missing.height:
        return frame, []
    count = f"{missing.height:,} of {frame.height:,} images are not on disk"
    everything = missing.height == frame.height
    if everything or (missing.height > _TOLERATED * frame.height and not options.allow_missing):
        way_out = "" if everything else ", or leave the missing images out with --allow-missing"
        first = ", ".join(missing["image"].head(3))
        what_to_do = remedy(missing) if remedy else f"Complete the download ({page})"
        raise SourceError(f"{root}: {count}, first {first}. {what_to_do}{way_out}.")
    return frame.filter(present), [
        f"Images left out because they are not on disk: {missing.height:,} of {frame.height:,}."
    ]


def say_missing(options: Options) -> dict[str, str]:
    """Return the choice on record if any number of images may be missing: what was trained on is not the whole set."""
    return {"missing_images": "left out, however many"} if options.allow_missing else {}
