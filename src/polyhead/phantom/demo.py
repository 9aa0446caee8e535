"""Three hospitals for a demonstration: different findings, different machines, one finding in common."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from polyhead.manifest import Manifest
from polyhead.phantom.acquisition import Acquisition
from polyhead.phantom.site import write_site

__all__ = ["write_demo_sites"]


@dataclass(frozen=True)
class _Hospital:
    """What a site annotates, how many images it has to train, validate and test, and how it takes them."""

    findings: tuple[str, ...]
    images: tuple[int, int, int]
    size: int
    acquisition: Acquisition


_HOSPITALS = {
    "harbour": _Hospital(
        ("Pleural Effusion", "Cardiomegaly", "Edema", "Atelectasis"), (800, 120, 400), 80, Acquisition(portable=0.25)
    ),
    "valley": _Hospital(
        ("Pleural Effusion", "Consolidation", "Nodule", "Pneumothorax"),
        (500, 120, 400),
        96,
        Acquisition(
            portable=0.05,
            exposure=0.04,
            contrast=0.9,
            gamma=0.85,
            noise=0.025,
            blur=0.013,
            marker="R",
            file_format="jpg",
        ),
    ),
    "island": _Hospital(
        ("Pleural Effusion", "Cardiomegaly", "Consolidation"),
        (150, 100, 400),
        112,
        Acquisition(
            portable=0.45, exposure=-0.03, drift=0.06, contrast=1.1, gamma=1.15, blur=0.006, collimation=0.16, marker=""
        ),
    ),
}


def write_demo_sites(
    folder: Path, seed: int, progress: Callable[[int, int], None] | None = None
) -> dict[str, Manifest]:
    """Draw the three sites, each into ``folder/NAME``, and return their manifests by name.

    Only pleural effusion is annotated by all three. Some 2,900 images of 80 to 112 pixels; the same seed gives the same
    bytes.

    Parameters
    ----------
    folder
        Made if need be.
    seed
        Decides what is drawn.
    progress
        Called with the number of images done and the number in all, after each image.
    """
    total = sum(sum(hospital.images) for hospital in _HOSPITALS.values())
    done = 0
    manifests = {}
    for name, hospital in _HOSPITALS.items():
        train, val, test = hospital.images
        manifests[name] = write_site(
            folder / name,
            site=name,
            findings=hospital.findings,
            train=train,
            val=val,
            test=test,
            acquisition=hospital.acquisition,
            seed=seed,
            size=hospital.size,
            progress=_after(done, total, progress),
        )
        done += sum(hospital.images)
    return manifests


def _after(before: int, total: int, progress: Callable[[int, int], None] | None) -> Callable[[int, int], None] | None:
    """Report a site's progress as that of the whole."""
    if progress is None:
        return None
    return lambda done, _: progress(before + done, total)
