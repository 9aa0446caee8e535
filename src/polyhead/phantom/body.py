"""Who is on the plate: the build of a synthetic patient and how the patient stands.

Lengths are in half image widths: x runs from -1 (image left, the patient's right) to 1, y from -1 (top) to 1.
"""

from dataclasses import dataclass, replace

import numpy as np

__all__ = ["Body", "Pose", "draw_body", "draw_pose", "seen_from_front"]


@dataclass(frozen=True)
class Body:
    """The build of one patient.

    Attributes
    ----------
    female, age
        Sex, and age in years.
    habitus
        Soft tissue, from 0 (slim) to 1 (obese).
    half_width
        Inner half width of the rib cage at its base.
    apex
        y of the lung apices.
    domes
        y of the right and of the left dome of the diaphragm.
    dome_curve
        How deep the costophrenic angles lie below the domes; small is flat.
    heart
        Cardiothoracic ratio: width of the heart over the inner width of the rib cage.
    heart_shape
        Share of the heart's width that lies left of the midline.
    aorta
        Radius of the aortic knob.
    ribs
        Distance between ribs, where the first one lies (0 to 1 of that distance), and their slope.
    bone
        Brightness of bone over lung.
    markings
        Brightness of the lungs' vessels.
    lucency
        How much darker than usual the lungs are.
    shift
        How far the mediastinum is displaced to the image's right.
    gas
        Radius of the gastric bubble; 0 for none.
    """

    female: bool
    age: int
    habitus: float
    half_width: float
    apex: float
    domes: tuple[float, float]
    dome_curve: float
    heart: float
    heart_shape: float
    aorta: float
    ribs: tuple[float, float, float]
    bone: float
    markings: float
    lucency: float
    shift: float
    gas: float


@dataclass(frozen=True)
class Pose:
    """How the patient stands on one exposure: `tilt` in radians, `turn` as the sideways shift of what lies in front."""

    tilt: float
    zoom: float
    right: float
    down: float
    turn: float
    inspiration: float


def draw_body(rng: np.random.Generator, age: int) -> Body:
    """Draw a patient of `age` years."""
    female = bool(rng.random() < 0.5)
    habitus = float(rng.beta(2.0, 2.6))
    right_dome = float(rng.normal(0.46, 0.04))
    return Body(
        female=female,
        age=age,
        habitus=habitus,
        half_width=float(rng.normal(0.76 if female else 0.80, 0.03)),
        apex=float(rng.normal(-0.80, 0.03)),
        domes=(right_dome, right_dome + float(rng.normal(0.06, 0.02))),
        dome_curve=float(rng.normal(0.95, 0.16)),
        heart=float(rng.normal(0.435 + 0.03 * habitus + 0.0004 * (age - 55), 0.030)),
        heart_shape=float(rng.normal(0.69, 0.025)),
        aorta=float(rng.normal(0.075 + 0.0006 * (age - 55), 0.008)),
        ribs=(float(rng.normal(0.165, 0.01)), float(rng.random()), float(rng.normal(0.22, 0.04))),
        bone=float(rng.normal(0.085, 0.012)),
        markings=float(rng.normal(0.17, 0.035)),
        lucency=float(rng.normal(0.0, 0.03)),
        shift=0.0,
        gas=float(rng.uniform(0.05, 0.12)) if rng.random() < 0.6 else 0.0,
    )


def draw_pose(rng: np.random.Generator) -> Pose:
    """Draw how the patient stands on one exposure."""
    tilt, zoom, right, down, turn, inspiration = rng.standard_normal(6).tolist()
    return Pose(0.03 * tilt, 0.97 + 0.03 * zoom, 0.03 * right, 0.03 * down, 0.02 * turn, 0.03 * inspiration)


def seen_from_front(body: Body) -> Body:
    """Return the body as an AP exposure in bed shows it: the heart magnified, the breath shallow, vessels fuller."""
    right, left = body.domes
    return replace(body, heart=1.1 * body.heart, domes=(right - 0.06, left - 0.06), markings=1.15 * body.markings)
