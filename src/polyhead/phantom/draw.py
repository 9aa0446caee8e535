"""One synthetic radiograph."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from polyhead.errors import UsageError
from polyhead.findings import closest
from polyhead.phantom.acquisition import Acquisition, expose
from polyhead.phantom.anatomy import draw_chest
from polyhead.phantom.body import Body, draw_body, draw_pose, seen_from_front
from polyhead.phantom.pathology import FINDINGS, add_findings, deform

__all__ = ["check_findings", "draw_phantom"]

_TYPICAL_AGE = 55


def draw_phantom(
    rng: np.random.Generator,
    severities: Mapping[str, float],
    acquisition: Acquisition,
    size: int = 96,
    *,
    view: str = "PA",
    body: Body | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw a frontal chest radiograph.

    Two calls with generators in the same state show the same patient in the same pose and noise, whatever the
    findings: the difference of the images is what the findings do.

    Parameters
    ----------
    rng
        Made by `numpy.random.default_rng`; its children are used.
    severities
        For each finding that is present, how plain it is: above 0 up to 1. See `FINDINGS`.
    acquisition
        How the site takes its radiographs.
    size
        Width and height in pixels, at least 32.
    view
        "PA", or "AP" for an exposure in bed.
    body
        The patient; by default another one each time.

    Returns
    -------
    ndarray
        uint8 of shape ``(size, size)``; dense is bright.

    Raises
    ------
    UsageError
        A finding, severity, view or size that cannot be drawn.
    """
    _check(severities, view, size)
    streams = rng.spawn(4 + len(FINDINGS))
    build, stance, anatomy, exposure = streams[:4]
    sides = dict(zip(FINDINGS, stance.choice([-1, 1], len(FINDINGS)).tolist(), strict=True))
    body = body or draw_body(build, _TYPICAL_AGE)
    body = deform(seen_from_front(body) if view == "AP" else body, severities, sides)
    chest = draw_chest(body, draw_pose(stance), size, anatomy)
    density = add_findings(chest, severities, sides, dict(zip(FINDINGS, streams[4:], strict=True)))
    return expose(density, acquisition, exposure)


def check_findings(names: Mapping[str, float] | tuple[str, ...]) -> None:
    """Refuse findings that cannot be drawn.

    Raises
    ------
    UsageError
        Naming the nearest finding that can be.
    """
    for name in names:
        if name not in FINDINGS:
            raise UsageError(f"phantom: finding {name!r} cannot be drawn; {closest(name, FINDINGS)}.")


def _check(severities: Mapping[str, float], view: str, size: int) -> None:
    check_findings(severities)
    for name, severity in severities.items():
        if not 0 < severity <= 1:
            raise UsageError(
                f"phantom: severity {severity} of {name!r}; allowed: above 0 up to 1. Leave it out if absent."
            )
    if view not in ("PA", "AP"):
        raise UsageError(f"phantom: view {view!r}; allowed: 'PA' or 'AP'.")
    if size < 32:
        raise UsageError(f"phantom: size {size}; at least 32 pixels are needed.")
