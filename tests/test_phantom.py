"""Synthetic radiographs: reproducible to the byte, labelled as asked, and changed by a finding where it belongs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from PIL import Image

from polyhead.errors import UsageError
from polyhead.manifest import Manifest
from polyhead.phantom import FINDINGS, Acquisition, demo, draw_phantom, write_demo_sites, write_site
from polyhead.phantom.pathology import draw_illness, visit

Pixels = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]

# No chance in the exposure, so that the difference of two images is what was drawn.
STILL = Acquisition(drift=0, noise=0, collimation=0, marker="")
SIZE = 96

# From the outer to the inner edge of a lung, and from top to bottom, in half image widths.
APEX: Box = (0.15, 0.45, -0.70, -0.50)
FLANK: Box = (0.50, 0.70, 0.30, 0.60)
HILUM: Box = (0.20, 0.40, -0.10, 0.15)
EDGE: Box = (0.62, 0.80, -0.40, 0.10)
LUNG: Box = (0.20, 0.65, -0.50, 0.35)
BASE: Box = (0.25, 0.55, 0.25, 0.45)
BELLY: Box = (0.00, 0.60, 0.70, 0.95)


def small_site(folder: Path, findings: tuple[str, ...] = ("Edema", "Nodule"), **changes: object) -> Manifest:
    arguments = {"train": 60, "val": 12, "test": 20, "acquisition": Acquisition(), "seed": 3, "size": 48}
    return write_site(folder, site="here", findings=findings, **(arguments | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return small_site(tmp_path_factory.mktemp("site"))


def image_bytes(manifest: Manifest) -> list[bytes]:
    return [(manifest.path.parent / name).read_bytes() for name in manifest.frame["image"]]


def draw(seed: int, severities: dict[str, float], view: str = "PA") -> Pixels:
    return draw_phantom(np.random.default_rng(seed), severities, STILL, SIZE, view=view).astype(float)


def effect(finding: str, severity: float = 1.0, seeds: int = 12) -> Pixels:
    """What a finding does to the grey values of each of several patients: ``(seeds, SIZE, SIZE)``."""
    return np.stack([draw(seed, {finding: severity}) - draw(seed, {}) for seed in range(seeds)])


def sides(images: Pixels, box: Box) -> Pixels:
    """Return the mean within `box` on the image's left and on its right: ``(images, 2)``."""
    x0, x1, top, bottom = (round((value + 1) * SIZE / 2) for value in box)
    left, right = images[:, top:bottom, SIZE - x1 : SIZE - x0], images[:, top:bottom, x0:x1]
    return np.stack([left.mean(axis=(1, 2)), right.mean(axis=(1, 2))], axis=1)


def cardiothoracic_ratio(image: Pixels) -> float:
    """Measure how much of the width of the rib cage is not lung on the rows of the heart."""
    dark = image < np.percentile(image[:, SIZE // 8 : -SIZE // 8], (5, 90)).mean()
    above = np.flatnonzero(dark[round(0.46 * SIZE), round(0.08 * SIZE) : round(0.92 * SIZE)])
    lung = dark[round(0.58 * SIZE) : round(0.66 * SIZE), round(0.08 * SIZE) : round(0.92 * SIZE)].sum(axis=1).mean()
    return float(1 - lung / np.ptp(above))


def test_the_same_seed_gives_the_same_bytes(site: Manifest, tmp_path: Path) -> None:
    again, other = small_site(tmp_path / "again"), small_site(tmp_path / "other", seed=4)
    assert again.path.read_bytes() == site.path.read_bytes()
    assert image_bytes(again) == image_bytes(site)
    assert not set(image_bytes(other)) & set(image_bytes(site))


def test_an_image_does_not_depend_on_how_many_come_after_it(site: Manifest, tmp_path: Path) -> None:
    shorter = small_site(tmp_path, test=5)
    assert image_bytes(shorter)[:72] == image_bytes(site)[:72]
    assert len(set(image_bytes(site))) == 92


def test_what_a_site_annotates_does_not_change_its_images(site: Manifest, tmp_path: Path) -> None:
    """So the findings that are not annotated are there all the same."""
    other = small_site(tmp_path, findings=("Cardiomegaly",))
    assert image_bytes(other) == image_bytes(site)
    assert other.findings == ("Cardiomegaly",)
    assert set(site.frame.columns) == {"image", "patient_id", "split", "view", "sex", "age", "Edema", "Nodule"}


def test_splits_have_exactly_the_images_asked_for(site: Manifest) -> None:
    assert {name: site.split(name).height for name in ("train", "val", "test")} == {"train": 60, "val": 12, "test": 20}
    assert site.frame["image"].n_unique() == 92


def test_a_patient_has_one_to_three_images_in_one_split_and_one_sex_and_age(site: Manifest) -> None:
    patients = site.frame.group_by("patient_id").agg(
        pl.len().alias("images"), *(pl.col(name).n_unique() for name in ("split", "sex", "age"))
    )
    assert set(patients["images"]) == {1, 2, 3}
    assert (patients.select("split", "sex", "age") == 1).to_numpy().all()


def test_only_the_last_finding_has_blank_labels(tmp_path: Path) -> None:
    labels = small_site(tmp_path, train=200, size=32).frame
    assert labels["Edema"].null_count() == 0
    assert 0.01 < labels["Nodule"].null_count() / labels.height < 0.10
    assert set(labels["Edema"]) == {0, 1}


def test_files_are_of_the_format_and_size_asked_for(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    jpeg = small_site(
        tmp_path,
        train=2,
        val=1,
        test=1,
        acquisition=Acquisition(file_format="jpg"),
        progress=lambda done, total: steps.append((done, total)),
    )
    with Image.open(tmp_path / jpeg.frame["image"][0]) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (48, 48), "L")
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_images_are_neither_flat_nor_saturated() -> None:
    images = np.stack([draw_phantom(np.random.default_rng(seed), {}, Acquisition(), SIZE) for seed in range(10)])
    assert images.shape == (10, SIZE, SIZE)
    assert images.dtype == np.uint8
    assert (images.std(axis=(1, 2)) > 30).all()
    assert (np.mean(images == 255, axis=(1, 2)) < 0.02).all()
    chest = images[:, 20:70, 20:76].astype(float)
    assert (np.percentile(chest, 90, axis=(1, 2)) - np.percentile(chest, 10, axis=(1, 2)) > 50).all()


@pytest.mark.parametrize(
    ("finding", "where", "sign", "elsewhere"),
    [
        ("Pleural Effusion", FLANK, 1, APEX),
        ("Edema", HILUM, 1, EDGE),
        ("Consolidation", LUNG, 1, BELLY),
        ("Atelectasis", BASE, 1, APEX),
        ("Pneumothorax", EDGE, -1, BELLY),
        ("Emphysema", BASE, -1, BELLY),
    ],
)
def test_a_finding_changes_its_own_place(finding: str, where: Box, sign: int, elsewhere: Box) -> None:
    change = effect(finding)
    here = np.abs(sides(change, where)).max(axis=1)
    assert sign * sides(change, where).mean() > 2
    assert here.mean() > 2 * np.abs(sides(change, elsewhere)).max(axis=1).mean()


def test_edema_is_on_both_sides_and_pneumothorax_on_one() -> None:
    assert (sides(effect("Edema"), HILUM) > 3).all()
    darker = sides(effect("Pneumothorax"), EDGE) < -3
    assert (darker.sum(axis=1) == 1).all()
    assert darker.any(axis=0).all(), "always the same side"


def test_in_atelectasis_haze_and_plates_lie_over_the_raised_dome() -> None:
    right_minus_left = np.diff(sides(effect("Atelectasis", seeds=20), BASE), axis=1)
    assert (np.abs(right_minus_left) > 10).all()
    assert set(np.sign(right_minus_left).ravel()) == {-1, 1}


def test_a_pneumothorax_is_dark_beyond_a_fine_bright_line() -> None:
    change = effect("Pneumothorax", 0.5)
    assert (change.max(axis=(1, 2)) > 10).all()
    assert (np.mean(change > 10, axis=(1, 2)) < 0.03).all()
    assert (np.mean(change < -10, axis=(1, 2)) > 0.03).all()


def test_a_nodule_is_small_and_in_the_lungs() -> None:
    brighter = effect("Nodule", seeds=20) > 15
    assert (brighter.any(axis=(1, 2))).all()
    assert (brighter.mean(axis=(1, 2)) < 0.05).all()
    rows, columns = np.nonzero(brighter.any(axis=0))
    assert (np.abs((columns + 0.5) * 2 / SIZE - 1) < 0.85).all()
    assert ((rows + 0.5) * 2 / SIZE - 1 < 0.60).all()


def test_cardiomegaly_widens_the_heart_and_emphysema_narrows_it() -> None:
    normal, large, narrow = (
        np.array([cardiothoracic_ratio(draw(seed, severities)) for seed in range(12)])
        for severities in ({}, {"Cardiomegaly": 1.0}, {"Emphysema": 1.0})
    )
    assert 0.38 < normal.mean() < 0.52
    assert (large > normal + 0.05).all()
    assert narrow.mean() < normal.mean() - 0.02


def test_ap_magnifies_the_heart() -> None:
    ratios = [[cardiothoracic_ratio(draw(seed, {}, view)) for seed in range(12)] for view in ("PA", "AP")]
    assert np.mean(ratios[1]) > np.mean(ratios[0]) + 0.045


@pytest.mark.parametrize("finding", FINDINGS)
def test_severity_goes_from_barely_visible_to_plain(finding: str) -> None:
    mild, moderate, plain = (np.abs(effect(finding, severity, seeds=8)).mean() for severity in (0.01, 0.5, 1.0))
    assert 0 < mild < moderate < plain
    assert plain > 2 * mild


def test_findings_occur_together_as_designed() -> None:
    rng = np.random.default_rng(0)
    patients = [visit(draw_illness(rng), rng) for _ in range(4000)]
    present = np.array([[name in severities for name in FINDINGS] for severities in patients])
    related = dict(zip(FINDINGS, np.corrcoef(present.T), strict=True))
    column = {name: number for number, name in enumerate(FINDINGS)}
    assert related["Cardiomegaly"][column["Edema"]] > 0.25
    assert related["Edema"][column["Pleural Effusion"]] > 0.2
    assert related["Consolidation"][column["Pleural Effusion"]] > 0.1
    assert related["Emphysema"][column["Pneumothorax"]] > 0.1
    assert related["Cardiomegaly"][column["Emphysema"]] < -0.05
    assert ((present.mean(axis=0) > 0.15) & (present.mean(axis=0) < 0.36)).all()


def test_a_patient_s_visits_are_alike() -> None:
    rng = np.random.default_rng(0)
    patients = [draw_illness(rng) for _ in range(500)]
    first, second = ([set(visit(each, rng)) for each in patients] for _ in range(2))
    changed = [len(before ^ after) for before, after in zip(first, second, strict=True)]
    assert 0.05 < np.mean(changed) < 0.2 * len(FINDINGS)


def test_the_demo_s_sites_share_one_finding_and_differ_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {name: replace(hospital, images=(12, 4, 4)) for name, hospital in demo._HOSPITALS.items()}
    smallest = min(hospital.images[0] for hospital in demo._HOSPITALS.values())
    monkeypatch.setattr(demo, "_HOSPITALS", small)
    steps: list[tuple[int, int]] = []
    sites = write_demo_sites(tmp_path, 0, lambda done, total: steps.append((done, total)))
    assert smallest == 150
    assert set.intersection(*(set(manifest.findings) for manifest in sites.values())) == {"Pleural Effusion"}
    assert len({manifest.findings for manifest in sites.values()}) == len(sites) == 3
    assert steps == [(done, 60) for done in range(1, 61)]
    assert len({hospital.size for hospital in small.values()}) == 3


def test_the_demo_s_sites_take_the_same_patients_differently() -> None:
    looks = []
    for hospital in demo._HOSPITALS.values():
        images = [draw_phantom(np.random.default_rng(seed), {}, hospital.acquisition, SIZE) for seed in range(20)]
        lungs = np.stack(images)[:, 30:60, 18:36].astype(float)
        looks.append((lungs.mean(), np.abs(np.diff(lungs, axis=2)).mean()))
    brightness, roughness = np.array(looks).T
    assert np.diff(np.sort(brightness)).min() > 4
    assert np.ptp(roughness) > 0.5


@pytest.mark.parametrize(
    ("change", "measure"),
    [
        ({"exposure": 0.1}, lambda image: image[30:60, 18:36].mean()),
        ({"gamma": 0.7}, lambda image: image[30:60, 18:36].mean()),
        ({"contrast": 1.2}, np.std),
        ({"noise": 0.05}, lambda image: np.abs(np.diff(image, 2, axis=1)).mean()),
        ({"blur": 0.05}, lambda image: -np.abs(np.diff(image, 2, axis=1)).mean()),
        ({"collimation": 0.4}, lambda image: (image == 0).mean()),
        ({"marker": "L"}, lambda image: image[4:26, 60:].max() - image[4:26, :36].max()),
        ({"marker": "R"}, lambda image: image[4:26, :36].max() - image[4:26, 60:].max()),
    ],
    ids=["exposure", "gamma", "contrast", "noise", "blur", "collimation", "left marker", "right marker"],
)
def test_each_habit_of_a_site_is_seen(change: dict[str, object], measure: Callable[[Pixels], float]) -> None:
    plain, changed = (
        measure(draw_phantom(np.random.default_rng(5), {}, acquisition, SIZE).astype(float))
        for acquisition in (STILL, replace(STILL, **change))  # type: ignore[arg-type]
    )
    assert changed > plain + 0.02 * abs(plain)


@pytest.mark.parametrize(
    ("severities", "view", "size", "message"),
    [
        ({"Nodul": 0.5}, "PA", 64, "closest: Nodule"),
        ({"Nodule": 0.0}, "PA", 64, "above 0 up to 1"),
        ({"Nodule": 1.5}, "PA", 64, "above 0 up to 1"),
        ({}, "lateral", 64, "'PA' or 'AP'"),
        ({}, "PA", 8, "at least 32"),
    ],
)
def test_what_cannot_be_drawn_is_refused(severities: dict[str, float], view: str, size: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        draw_phantom(np.random.default_rng(0), severities, STILL, size, view=view)


def test_a_site_without_findings_or_with_an_empty_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no finding"):
        small_site(tmp_path, findings=())
    with pytest.raises(UsageError, match="'val'"):
        small_site(tmp_path, val=0)
    with pytest.raises(UsageError, match="closest: Edema"):
        small_site(tmp_path, findings=("Oedema",))
    assert not list(tmp_path.iterdir()), "something was written"
