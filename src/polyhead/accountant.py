"""How much of a patient's privacy is spent: epsilon of steps of DP-SGD, composed.

The bounds are Opacus', by Rényi differential privacy of the Poisson-subsampled Gaussian mechanism (Mironov, Talwar and
Zhang, 2019), turned into epsilon as Balle et al. (AISTATS 2020) do. Neighbours differ by one patient, added or removed.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from polyhead.errors import StudyError

__all__ = ["Steps", "epsilon_of", "most_repeats"]

# Any order gives a bound; the best of many gives a close one.
_ORDERS = [*(1 + tenth / 10 for tenth in range(1, 100)), *map(float, range(11, 64)), 72.0, 96.0, 128.0, 256.0, 512.0]


@dataclass(frozen=True)
class Steps:
    """Steps of one site, alike.

    Attributes
    ----------
    noise
        Standard deviation of the noise, in units of the bound of a patient's gradient; above 0.
    rate
        Probability of each patient to take part in a step, above 0 and at most 1.
    steps
        How many.
    """

    noise: float
    rate: float
    steps: int


def epsilon_of(spent: Iterable[Steps], delta: float) -> float:
    """Return epsilon, at least 0, of all steps together, such that they are (epsilon, delta) differentially private.

    Raises
    ------
    StudyError
        If the library that computes it is not installed.
    """
    totals: Counter[tuple[float, float]] = Counter()
    for one in spent:
        totals[one.noise, one.rate] += one.steps
    if not any(totals.values()):
        return 0.0
    rdp = _library()
    renyi = np.zeros(len(_ORDERS))
    for (noise, rate), steps in sorted(totals.items()):
        renyi += steps * np.array(_renyi(noise, rate))
    # An order at either end that nothing can choose: the library warns where the best is the first or the last.
    orders, bounds = [1.0001, *_ORDERS, 1024.0], [np.inf, *renyi, np.inf]
    return max(0.0, float(rdp.get_privacy_spent(orders=orders, rdp=bounds, delta=delta)[0]))


def most_repeats(one: Steps, repeats: int, delta: float, limit: float) -> int:
    """Return how often, at most `repeats` times, steps can be taken until epsilon is beyond a limit."""
    low, high = 0, repeats
    while low < high:
        middle = (low + high + 1) // 2
        if epsilon_of([replace(one, steps=middle * one.steps)], delta) <= limit:
            low = middle
        else:
            high = middle - 1
    return low


@cache
def _renyi(noise: float, rate: float) -> tuple[float, ...]:
    """Return the bound of one step at each order; of several steps it is the sum."""
    return tuple(_library().compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=_ORDERS))


def _library() -> Any:
    try:
        from opacus.accountants.analysis import rdp  # Here: it takes seconds, and not everybody needs it.
    except ImportError as problem:
        raise StudyError(
            "key 'privacy.noise': what it costs is computed by an extra: pip install '.[privacy]' in Polyhead's folder "
            f"({problem})."
        ) from problem
    return rdp
