"""The normal chest, drawn from the build of a patient as soft-edged shapes on one grid.

Densities are in arbitrary units in which air is 0, aerated lung about 0.25, soft tissue 0.6 and bone over the
mediastinum about 1; every array is float32 of shape ``(size, size)``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from polyhead.phantom.body import Body, Pose

__all__ = ["Chest", "Field", "blob", "draw_chest", "ramp", "smooth_noise"]

Field = npt.NDArray[np.floating[Any]]

_EDGE = 0.018
_CAGE_BASE = 0.45
_HILA = {-1: (-0.20, 0.02), 1: (0.19, -0.03)}


@dataclass(frozen=True)
class Chest:
    """A chest before exposure.

    Attributes
    ----------
    body
        Whose it is.
    x, y
        The pixels' places in the body's own frame; x is positive on the patient's left.
    wall
        Distance to the inside of the rib cage; negative outside.
    floor
        Distance to the diaphragm; negative below it.
    lung
        How much lung a pixel shows, 0 to 1; little where heart or mediastinum lies in front.
    tissue
        Density of everything but the lungs' vessels.
    vessels
        Density of the lungs' vessels.
    opacity
        Density that findings add to the lungs, or take away.
    """

    body: Body
    x: Field
    y: Field
    wall: Field
    floor: Field
    lung: Field
    tissue: Field
    vessels: Field
    opacity: Field


def draw_chest(body: Body, pose: Pose, size: int, rng: np.random.Generator) -> Chest:
    """Draw a chest without findings other than those that changed the build of `body`."""
    x, y = _grid(pose, size)
    wall = _wall_distance(body, x, y)
    floor = _floor_distance(body, pose, x, y)
    lung = ramp(wall) * ramp(floor) * ramp(np.abs(x - body.shift) - 0.06)
    # What lies in front moves when the patient turns; the spine and the posterior ribs stay.
    front = x - body.shift - pose.turn
    tissue = _soft_tissue(body, x, y) + (0.16 + 0.06 * body.habitus) * ramp(-floor, 0.03) * ramp(wall + 0.03, 0.05)
    tissue -= (0.40 + body.lucency) * lung
    mediastinum = _mediastinum(body, front, y)
    tissue += (0.36 * lung + 0.10) * mediastinum * ramp(floor + 0.25, 0.1)
    tissue += _bones(body, x, x - pose.turn, y, wall) * (1 - 0.4 * mediastinum) + _gas(body, front, y)
    tissue += 0.012 * smooth_noise(rng, size, 9) + 0.010 * lung * smooth_noise(rng, size, max(9, size // 3))
    seen = lung * (1 - 0.85 * mediastinum)
    vessels = body.markings * seen * _vessels(pose, size, rng)
    return Chest(body, x, y, wall, floor, seen, tissue, vessels, np.zeros_like(x))


def ramp(distance: Field, soft: float = _EDGE) -> Field:
    """Return a soft step: 0 where `distance` is well below 0, 1 well above; `soft` is half its width."""
    return np.asarray(0.5 + 0.5 * np.tanh(distance / soft), dtype=np.float32)


def blob(x: Field, y: Field, centre: tuple[float, float], radii: tuple[float, float], tilt: float = 0.0) -> Field:
    """Return the distance, roughly, to the inside of an ellipse; negative outside. `tilt` is in radians, clockwise."""
    across, down = x - np.float32(centre[0]), y - np.float32(centre[1])
    cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    along, aside = (cos * across + sin * down) / radii[0], (cos * down - sin * across) / radii[1]
    # np.hypot guards against overflow, which cannot happen here, and takes six times as long.
    radius = np.sqrt(along * along + aside * aside)
    return np.asarray((1 - radius) * np.float32(min(radii)), dtype=np.float32)


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Return noise of mean 0 and deviation of roughly 1 that varies over ``size / cells`` pixels."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def _grid(pose: Pose, size: int) -> tuple[Field, Field]:
    axis = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(2 / size) - 1
    across, down = axis[None, :] - np.float32(pose.right), axis[:, None] - np.float32(pose.down)
    cos, sin = np.float32(np.cos(pose.tilt) / pose.zoom), np.float32(np.sin(pose.tilt) / pose.zoom)
    return cos * across + sin * down, cos * down - sin * across


def _wall_distance(body: Body, x: Field, y: Field) -> Field:
    """A superellipse whose upper half is long: the inside of the rib cage."""
    height = _CAGE_BASE - body.apex
    up = np.clip((_CAGE_BASE - y) / height, 0, None)
    out = np.abs(x) / body.half_width
    level = 1 - out**2.4 - up**3
    slope = np.sqrt((2.4 * out**1.4 / body.half_width) ** 2 + (3 * up**2 / height) ** 2)
    return np.asarray(level / np.maximum(slope, 0.8), dtype=np.float32)


def _floor_distance(body: Body, pose: Pose, x: Field, y: Field) -> Field:
    right, left = body.domes
    dome = right + (left - right) * ramp(x, 0.08) + pose.inspiration
    sag = (np.abs(x) - 0.36) / body.half_width
    # Towards the spine the diaphragm falls less than towards the costophrenic angle.
    return np.asarray(
        dome + body.dome_curve * np.where(sag > 0, np.float32(1), np.float32(0.35)) * sag**2 - y, dtype=np.float32
    )


def _soft_tissue(body: Body, x: Field, y: Field) -> Field:
    """The trunk with neck and shoulders, and the breasts."""
    out = np.abs(x)
    flank = body.half_width + 0.13 + 0.16 * body.habitus + 0.8 * ramp(-0.36 - y, 0.10)
    shoulder = -1.02 + 0.42 * np.clip(out - 0.24, 0, None) - 0.8 * ramp(0.2 - out, 0.06)
    thickness = 0.42 + 0.16 * np.sqrt(np.clip(1 - (out / (flank + 0.05)) ** 2, 0, None))
    trunk = thickness * (0.92 + 0.22 * body.habitus) * ramp(flank - out, 0.03) * ramp(y - shoulder, 0.03)
    if not body.female:
        return np.asarray(trunk, dtype=np.float32)
    breast = blob(out, y, (0.42, 0.30), (0.30, 0.24 + 0.08 * body.habitus))
    return np.asarray(trunk + (0.05 + 0.05 * body.habitus) * ramp(breast, 0.05), dtype=np.float32)


def _mediastinum(body: Body, x: Field, y: Field) -> Field:
    """Heart, great vessels and hila as one shadow, 0 to 1."""
    width = 2 * body.heart * body.half_width
    left, right = body.heart_shape * width, (1 - body.heart_shape) * width
    middle = max(body.domes) - 0.06
    # The left ventricle points down and to the patient's left; 0.91 of its long axis is what it adds to the width.
    long = 0.5 * (left + 0.13) / 0.91
    ventricle = ramp(blob(x, y, (left - 0.91 * long, middle - 0.11), (long, 0.80 * long), 0.62), 0.022)
    atrium = ramp(blob(x, y, (0.03, middle - 0.14), (right + 0.03, 0.27)), 0.022)
    waist = ramp(blob(x, y, (0.03, middle - 0.30), (0.09 + 0.22 * width, 0.26)), 0.03)
    upper = ramp(0.120 + 0.020 * body.habitus + 0.06 * np.clip(-y - 0.5, 0, None) - np.abs(x - 0.005), 0.025)
    trunk = upper * ramp(middle + 0.1 - y, 0.05)
    knob = ramp(blob(x, y, (0.10, -0.33), (body.aorta, body.aorta)))
    artery = 0.85 * ramp(blob(x, y, (0.09, -0.12), (0.10, 0.13)), 0.03)
    hila = [0.5 * ramp(blob(x, y, centre, (0.075, 0.11), -0.35 * side), 0.05) for side, centre in _HILA.items()]
    return np.asarray(np.maximum.reduce([ventricle, atrium, waist, trunk, knob, artery, *hila]), dtype=np.float32)


def _bones(body: Body, back: Field, front: Field, y: Field, wall: Field) -> Field:
    """Spine, ribs, clavicles and the heads of the humeri, less the windpipe's air."""
    spacing, first, slope = body.ribs
    out = np.abs(back)
    reach = out / body.half_width
    behind = _bars((y - slope * reach**2) / spacing + first) * ramp(out - 0.07, 0.03)
    before = _bars((y + 0.55 * out) / (1.05 * spacing) + first + 0.3) * ramp(out - 0.34, 0.08)
    caged = ramp(wall + 0.02, 0.03) * ramp(body.domes[0] + 0.25 - y, 0.10)
    spine = ramp(0.075 - out, 0.015) * (0.8 + 0.2 * np.sin(y * np.float32(2 * np.pi / 0.13)))
    beam = np.abs(front)
    line = -0.60 - 0.22 * (beam - 0.1) + 0.035 * np.sin(7 * beam)
    clavicle = ramp(0.028 + 0.008 * reach - np.abs(y - line)) * ramp(beam - 0.07) * ramp(0.92 - beam)
    humerus = ramp(blob(out, y, (1.02, -0.60), (0.16, 0.15)), 0.03)
    windpipe = ramp(0.035 - np.abs(front - 0.01), 0.015) * ramp(-0.20 - y, 0.05)
    bone = body.bone * (behind + 0.65 * before) * caged + 0.07 * spine + 1.4 * body.bone * (clavicle + humerus)
    return np.asarray(bone - 0.11 * windpipe, dtype=np.float32)


def _bars(phase: Field) -> Field:
    """Ribs at whole numbers of `phase`: bands with brighter edges, as cortical bone shows."""
    off = np.abs(phase - np.round(phase))
    return np.asarray(ramp(0.22 - off, 0.06) * (0.75 + 1.3 * off), dtype=np.float32)


def _gas(body: Body, x: Field, y: Field) -> Field:
    if not body.gas:
        return np.zeros_like(x)
    centre = (0.36, body.domes[1] + 0.07 + body.gas)
    return np.asarray(-0.22 * ramp(blob(x, y, centre, (1.5 * body.gas, body.gas)), 0.03), dtype=np.float32)


def _vessels(pose: Pose, size: int, rng: np.random.Generator) -> Field:
    """Vessels that branch from both hila and taper, 0 to 1."""
    branches, steps = 15, 7
    sides = np.repeat([-1, 1], branches)
    angle = np.linspace(-1.5, 1.45, branches)[None, :] + rng.normal(0, 0.15, (2, branches))
    bend = np.cumsum(rng.normal(0, 0.22, (2 * branches, steps)), axis=1) + angle.reshape(-1, 1)
    stride = rng.uniform(0.06, 0.12, (2 * branches, 1))
    x = np.cumsum(stride * np.cos(bend), axis=1) * sides[:, None]
    y = np.cumsum(stride * np.sin(bend), axis=1)
    starts = np.array([_HILA[side] for side in sides.tolist()])
    path = np.stack([np.insert(x, 0, 0, axis=1), np.insert(y, 0, 0, axis=1)], axis=-1) + starts[:, None, :]
    return _trace(path, pose, size)


def _trace(path: npt.NDArray[np.float64], pose: Pose, size: int) -> Field:
    """Draw tapering lines through `path`, of shape ``(lines, points, 2)`` in the body's frame, at twice the size."""
    cos, sin = np.cos(pose.tilt) * pose.zoom, np.sin(pose.tilt) * pose.zoom
    across = cos * path[..., 0] - sin * path[..., 1] + pose.right
    down = sin * path[..., 0] + cos * path[..., 1] + pose.down
    pixels = ((np.stack([across, down], axis=-1) + 1) * size).tolist()
    canvas = Image.new("L", (2 * size, 2 * size))
    pen = ImageDraw.Draw(canvas)
    steps = path.shape[1] - 1
    for step in reversed(range(steps)):
        shade, width = 255 - 26 * step, max(1, round(size * (0.034 - 0.0045 * step)))
        for line in pixels:
            pen.line((*line[step], *line[step + 1]), fill=shade, width=width)
    return np.asarray(canvas.reduce(2), dtype=np.float32) / np.float32(255)
