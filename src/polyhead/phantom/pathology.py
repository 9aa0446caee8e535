"""Findings: how often they occur, which occur together, and what each does to a chest.

Severity runs from just above 0 (barely visible, if at all) to 1 (plain). It comes from a patient's latent illness:
hidden causes push several findings at once, as heart failure brings a large heart, edema and effusions together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from polyhead.phantom.anatomy import Chest, Field, blob, ramp, smooth_noise
from polyhead.phantom.body import Body

__all__ = ["FINDINGS", "Illness", "add_findings", "deform", "draw_illness", "visit"]


@dataclass(frozen=True)
class _Occurrence:
    """How often a finding occurs, and its correlation with congestion, infection and smoking (squares sum below 1)."""

    prevalence: float
    causes: tuple[float, float, float]


_OCCURRENCE = {
    "Atelectasis": _Occurrence(0.25, (0.30, 0.40, 0.10)),
    "Cardiomegaly": _Occurrence(0.32, (0.75, 0.00, -0.10)),
    "Consolidation": _Occurrence(0.25, (0.00, 0.80, 0.00)),
    "Edema": _Occurrence(0.25, (0.80, 0.00, -0.10)),
    "Emphysema": _Occurrence(0.22, (-0.15, 0.00, 0.75)),
    "Nodule": _Occurrence(0.22, (0.00, -0.10, 0.45)),
    "Pleural Effusion": _Occurrence(0.32, (0.65, 0.40, 0.00)),
    "Pneumothorax": _Occurrence(0.18, (-0.20, -0.10, 0.50)),
}
FINDINGS = tuple(_OCCURRENCE)

_VISIT_VARIATION = 0.1
_MILDNESS = 1.4
_MOST_OPACITY = 0.40
_BILATERAL = {"Pleural Effusion": 0.4, "Consolidation": 0.25}


@dataclass(frozen=True)
class Illness:
    """A patient's latent state: a standard normal value a finding, and the value of congestion among its causes."""

    latent: npt.NDArray[np.float64]
    congestion: float


def draw_illness(rng: np.random.Generator) -> Illness:
    """Draw how ill a patient is."""
    causes = rng.standard_normal(3)
    loadings = np.array([occurrence.causes for occurrence in _OCCURRENCE.values()])
    alone = np.sqrt(1 - np.square(loadings).sum(axis=1))
    return Illness(loadings @ causes + alone * rng.standard_normal(len(FINDINGS)), float(causes[0]))


def visit(illness: Illness, rng: np.random.Generator) -> dict[str, float]:
    """Return the severities of the findings on one day, above 0 up to 1; a finding left out is absent."""
    change = np.sqrt(_VISIT_VARIATION) * rng.standard_normal(len(FINDINGS))
    today = np.sqrt(1 - _VISIT_VARIATION) * illness.latent + change
    severities = {}
    for value, (finding, occurrence) in zip(today.tolist(), _OCCURRENCE.items(), strict=True):
        rest = (1 - NormalDist().cdf(value)) / occurrence.prevalence
        if rest < 1:
            severities[finding] = float((1 - rest) ** _MILDNESS)
    return severities


def deform(body: Body, severities: Mapping[str, float], sides: Mapping[str, int]) -> Body:
    """Return the build as those findings change it that change the shape of organs."""
    large, over, loss = (severities.get(name, 0.0) for name in ("Cardiomegaly", "Emphysema", "Atelectasis"))
    tension = severities.get("Pneumothorax", 0.0) ** 2
    domes = [dome + 0.10 * over for dome in body.domes]
    domes[sides["Atelectasis"] > 0] -= _between(0.04, 0.20, loss)
    return replace(
        body,
        heart=body.heart * (1 + _between(0.05, 0.42, large)) * (1 - _between(0.02, 0.14, over)),
        domes=(domes[0], domes[1]),
        dome_curve=body.dome_curve * (1 - _between(0.12, 0.65, over)),
        markings=body.markings * (1 - _between(0.08, 0.45, over)),
        lucency=body.lucency + _between(0.01, 0.06, over),
        shift=_between(0.01, 0.06, loss) * sides["Atelectasis"] - 0.02 * tension * sides["Pneumothorax"],
    )


def add_findings(
    chest: Chest,
    severities: Mapping[str, float],
    sides: Mapping[str, int],
    streams: Mapping[str, np.random.Generator],
) -> Field:
    """Return the chest's density with its findings.

    Parameters
    ----------
    chest
        Drawn from the build that `deform` returned.
    severities
        Above 0 up to 1; a finding left out is absent.
    sides
        For each finding, -1 for the patient's right and 1 for the left; both sides may be affected.
    streams
        For each finding, where its chances come from: one finding never changes how another looks.
    """
    # Air between lung and wall hides what is in the lung, and fluid settles below the air: hence the order.
    for finding, draw in _DRAWN.items():
        if finding in severities:
            chest = draw(chest, severities[finding], sides[finding], streams[finding])
    opacity = np.where(chest.opacity > 0, _MOST_OPACITY * np.tanh(chest.opacity / _MOST_OPACITY), chest.opacity)
    return chest.tissue + chest.vessels + np.asarray(opacity, dtype=np.float32)


def _between(low: float, high: float, severity: float) -> float:
    """Return 0 for an absent finding, else a value from `low` to `high`."""
    return low + (high - low) * severity if severity > 0 else 0.0


def _opaque(chest: Chest, more: Field) -> Chest:
    return replace(chest, opacity=chest.opacity + chest.lung * more)


def _half(chest: Chest, side: int) -> Field:
    return ramp(side * (chest.x - chest.body.shift), 0.04)


def _affected(finding: str, side: int, rng: np.random.Generator) -> tuple[int, ...]:
    return (side, -side) if rng.random() < _BILATERAL[finding] else (side,)


def _atelectasis(chest: Chest, severity: float, side: int, rng: np.random.Generator) -> Chest:
    """Plate-like bands above the raised dome, and crowded, hazy lung at the base."""
    base = chest.body.domes[side > 0]
    more = _between(0.03, 0.14, severity) * ramp(0.14 - np.abs(chest.floor), 0.08) * _half(chest, side)
    for _ in range(int(rng.integers(1, 4))):
        centre = (side * rng.uniform(0.34, 0.55), base - rng.uniform(0.06, 0.26))
        plate = blob(chest.x, chest.y, centre, (rng.uniform(0.14, 0.26), 0.024), side * rng.normal(0.1, 0.2))
        more = more + _between(0.08, 0.26, severity) * ramp(plate, 0.012)
    return _opaque(chest, more)


def _consolidation(chest: Chest, severity: float, side: int, rng: np.random.Generator) -> Chest:
    """Patchy opacity with a soft edge in one lobe, or in one of each side."""
    more = np.zeros_like(chest.x)
    patches = 0.75 + 0.35 * smooth_noise(rng, chest.x.shape[0], 12)
    for each in _affected("Consolidation", side, rng):
        height = (-0.40, 0.04, 0.26)[int(rng.integers(3))] + rng.normal(0, 0.06)
        size = _between(0.10, 0.26, severity)
        radii = (size * rng.uniform(0.9, 1.3), size * rng.uniform(0.8, 1.2))
        place = blob(chest.x, chest.y, (each * rng.uniform(0.32, 0.58), height), radii, rng.normal(0, 0.4))
        more = more + _between(0.14, 0.48, severity) * np.clip(patches, 0, None) * ramp(place, 0.09)
    return _opaque(chest, np.asarray(more, dtype=np.float32))


def _nodule(chest: Chest, severity: float, side: int, rng: np.random.Generator) -> Chest:
    """One to three round opacities anywhere in the lungs."""
    more = np.zeros_like(chest.x)
    for number in range(int(rng.choice([1, 1, 1, 2, 3]))):
        each = side if number == 0 else int(rng.choice([-1, 1]))
        centre = (each * rng.uniform(0.26, 0.60), rng.uniform(-0.50, 0.30))
        radius = _between(0.06, 0.11, severity) * rng.uniform(0.85, 1.15)
        more = more + _between(0.18, 0.42, severity) * ramp(blob(chest.x, chest.y, centre, (radius, radius)))
    return _opaque(chest, np.asarray(more, dtype=np.float32))


def _edema(chest: Chest, severity: float, side: int, rng: np.random.Generator) -> Chest:
    """Haze around both hila, and fuller, blurred vessels; one side may be worse."""
    out = np.abs(chest.x - chest.body.shift)
    wings = np.exp(-0.5 * (((out - 0.28) / 0.20) ** 2 + ((chest.y - 0.06) / 0.30) ** 2))
    uneven = 1 + side * np.sign(chest.x) * rng.uniform(0, 0.3)
    grain = 1 + 0.25 * smooth_noise(rng, chest.x.shape[0], 20)
    haze = _between(0.015, 0.22, severity) * wings * uneven * grain
    fuller = replace(chest, vessels=chest.vessels * (1 + np.float32(_between(0.05, 0.40, severity))))
    return _opaque(fuller, np.asarray(haze, dtype=np.float32))


def _pneumothorax(chest: Chest, severity: float, side: int, rng: np.random.Generator) -> Chest:
    """Black air without markings outside a fine pleural line, widest at the apex."""
    wide = _between(0.07, 0.38, severity) * rng.uniform(0.9, 1.1)
    taper = np.clip(1.15 - 0.75 * (chest.y - chest.body.apex), 0.1, None)
    inside = chest.wall - wide * taper
    gap = chest.lung * ramp(-inside, 0.012) * _half(chest, side)
    line = chest.lung * np.exp(-0.5 * (inside / 0.012) ** 2) * _half(chest, side)
    opacity = chest.opacity * (1 - gap) - np.float32(0.09) * gap + np.float32(0.14) * line
    return replace(chest, vessels=chest.vessels * (1 - gap), opacity=np.asarray(opacity, dtype=np.float32))


def _effusion(chest: Chest, severity: float, side: int, rng: np.random.Generator) -> Chest:
    """Fluid that fills the costophrenic angle first and climbs the wall as a meniscus."""
    more = np.zeros_like(chest.x)
    for each in _affected("Pleural Effusion", side, rng):
        angle = chest.body.domes[each > 0] + 0.18
        level = angle - _between(-0.02, 0.42, severity) * rng.uniform(0.8, 1.2)
        climb = _between(0.05, 0.18, severity) * np.exp(-np.clip(chest.wall, 0, None) / 0.09)
        more = more + 0.5 * ramp(chest.y - level + climb, 0.035) * _half(chest, each)
    return _opaque(chest, np.asarray(more, dtype=np.float32))


_DRAWN = {
    "Atelectasis": _atelectasis,
    "Consolidation": _consolidation,
    "Nodule": _nodule,
    "Edema": _edema,
    "Pneumothorax": _pneumothorax,
    "Pleural Effusion": _effusion,
}
