"""Whole synthetic sites: patients, their images and the manifest of what the site annotates."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from polyhead.errors import UsageError
from polyhead.manifest import SPLITS, Manifest, write_manifest
from polyhead.phantom.acquisition import Acquisition
from polyhead.phantom.body import Body, draw_body
from polyhead.phantom.draw import check_findings, draw_phantom
from polyhead.phantom.pathology import Illness, draw_illness, visit
from polyhead.seeds import derive_seed

__all__ = ["write_site"]

_IMAGES_PER_PATIENT = (0.60, 0.25, 0.15)
_BLANK_SHARE = 0.04
_JPEG_QUALITY = 85


@dataclass(frozen=True)
class _Task:
    """One image to draw: `index` within the site, `patient` within the site."""

    index: int
    patient: int
    split: str


def write_site(
    folder: Path,
    *,
    site: str,
    findings: Sequence[str],
    train: int,
    val: int,
    test: int,
    acquisition: Acquisition,
    seed: int,
    size: int = 96,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Draw a site's images into ``folder/images`` and write ``folder/manifest.csv``.

    Every finding occurs in the images; the manifest has a column only for those the site annotates. A patient has one
    to three images, all in one split. A few percent of the labels of the last finding are blank.

    Parameters
    ----------
    folder
        Made if need be; an existing manifest or image of the same name is replaced.
    site
        The site's name; with `seed` it decides what is drawn.
    findings
        What the site annotates, some of `FINDINGS`, in the order of the manifest's columns.
    train, val, test
        Numbers of images, each at least 1.
    acquisition
        How the site takes its radiographs.
    seed
        The same seed gives the same bytes. An image depends on the seed, the site and its place in the table only.
    size
        Width and height of the images, in pixels.
    progress
        Called with the number of images done and the number in all, after each image.

    Raises
    ------
    UsageError
        A finding that cannot be drawn, none at all, or a split without images.
    """
    _check(findings, {"train": train, "val": val, "test": test})
    (folder / "images").mkdir(parents=True, exist_ok=True)
    tasks = list(_deal(np.random.default_rng(derive_seed("phantom deal", seed, site)), (train, val, test)))
    rows = []
    for task in tasks:
        rows.append(_draw_image(folder, task, site, findings, acquisition, seed, size))
        if progress:
            progress(len(rows), len(tasks))
    return write_manifest(pl.DataFrame(rows, infer_schema_length=None), folder / "manifest.csv")


def _check(findings: Sequence[str], images: Mapping[str, int]) -> None:
    check_findings(tuple(findings))
    if not findings:
        raise UsageError("phantom: no finding to annotate. Name at least one.")
    for split, count in images.items():
        if count < 1:
            raise UsageError(f"phantom: {count} images in {split!r}; every split needs at least 1.")


def _deal(rng: np.random.Generator, images: Sequence[int]) -> Iterator[_Task]:
    """Deal exactly as many images a split as asked for to patients of one to three images."""
    index, patient = 0, 0
    for split, count in zip(SPLITS, images, strict=True):
        left = count
        while left:
            own = min(left, int(rng.choice([1, 2, 3], p=_IMAGES_PER_PATIENT)))
            for _ in range(own):
                yield _Task(index, patient, split)
                index += 1
            left -= own
            patient += 1


def _draw_image(
    folder: Path, task: _Task, site: str, findings: Sequence[str], acquisition: Acquisition, seed: int, size: int
) -> dict[str, str | int | None]:
    """Draw and save one image; return its row of the manifest."""
    illness, body = _patient(np.random.default_rng(derive_seed("phantom patient", seed, site, task.patient)))
    rng = np.random.default_rng(derive_seed("phantom image", seed, site, task.index))
    severities = visit(illness, rng)
    view = "AP" if rng.random() < acquisition.portable * _urgency(severities) else "PA"
    pixels = draw_phantom(rng, severities, acquisition, size, view=view, body=body)
    image = f"images/{task.index:05d}.{acquisition.file_format}"
    Image.fromarray(pixels).save(folder / image, quality=_JPEG_QUALITY)
    labels: dict[str, int | None] = {name: int(name in severities) for name in findings}
    if rng.random() < _BLANK_SHARE:
        labels[findings[-1]] = None
    who = {"patient_id": f"{site}-{task.patient:05d}", "split": task.split, "view": view}
    return {"image": image, **who, "sex": "F" if body.female else "M", "age": str(body.age), **labels}


def _patient(rng: np.random.Generator) -> tuple[Illness, Body]:
    illness = draw_illness(rng)
    age = int(np.clip(rng.normal(56 + 7 * illness.congestion, 14), 18, 95))
    return illness, draw_body(rng, age)


def _urgency(severities: Mapping[str, float]) -> float:
    """How much likelier than usual a patient is too ill to stand, from 0.6 to 1.6."""
    return 0.6 + max(severities.values(), default=0.0)
