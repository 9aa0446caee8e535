"""Epsilon against what can be computed exactly."""

import math

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from polyhead import accountant
from polyhead.accountant import Steps, epsilon_of, most_repeats
from polyhead.errors import StudyError

pytest.importorskip("opacus", reason="needs the extra: pip install '.[privacy]' in Polyhead's folder")


def exact(noise: float, delta: float, steps: int = 1) -> float:
    """Epsilon of some Gaussian mechanisms without sampling (Balle and Wang, ICML 2018, theorem 8)."""
    sigma = noise / steps**0.5
    low, high = 1 / (2 * sigma), sigma

    def excess(epsilon: float) -> float:
        second = math.exp(epsilon + norm.logcdf(-low - epsilon * high))
        return float(norm.cdf(low - epsilon * high) - second - delta)

    return float(brentq(excess, 0, 1000))


@pytest.mark.parametrize("delta", [1e-5, 1e-7])
@pytest.mark.parametrize(("noise", "steps"), [(0.5, 1), (1.0, 1), (3.0, 1), (5.0, 10), (20.0, 100)])
def test_where_everybody_takes_part_it_bounds_the_exact_value_closely(noise: float, steps: int, delta: float) -> None:
    true = exact(noise, delta, steps)
    assert true <= epsilon_of([Steps(noise, 1.0, steps)], delta) <= 1.15 * true


def test_more_steps_and_higher_rates_cost_more_and_more_noise_less() -> None:
    some = epsilon_of([Steps(1.0, 0.05, 100)], 1e-5)
    assert epsilon_of([Steps(1.0, 0.05, 101)], 1e-5) > some
    assert epsilon_of([Steps(1.0, 0.06, 100)], 1e-5) > some
    assert epsilon_of([Steps(1.1, 0.05, 100)], 1e-5) < some
    assert epsilon_of([Steps(1.0, 0.05, 100)], 1e-6) > some
    assert some < epsilon_of([Steps(1.0, 1.0, 100)], 1e-5) / 5, "sampling hides"


def test_alike_steps_add_up_however_they_are_told() -> None:
    whole = epsilon_of([Steps(1.0, 0.05, 100), Steps(2.0, 0.1, 7)], 1e-5)
    parts = [Steps(2.0, 0.1, 3), Steps(1.0, 0.05, 60), Steps(2.0, 0.1, 4), Steps(1.0, 0.05, 40)]
    assert epsilon_of(parts, 1e-5) == whole
    assert epsilon_of([], 1e-5) == 0


@pytest.mark.parametrize("noise", [0.01, 1.0, 1000.0])
@pytest.mark.parametrize("steps", [1, 10**9])
def test_far_ends_are_numbers_without_a_warning(noise: float, steps: int) -> None:
    assert 0 <= epsilon_of([Steps(noise, 0.01, steps)], 1e-9) < math.inf


def test_most_repeats_is_the_last_within_the_limit() -> None:
    one, limit = Steps(1.0, 0.05, 5), 3.0
    most = most_repeats(one, 1000, 1e-5, limit)
    assert 0 < most < 1000
    assert epsilon_of([Steps(1.0, 0.05, 5 * most)], 1e-5) <= limit
    assert epsilon_of([Steps(1.0, 0.05, 5 * most + 5)], 1e-5) > limit
    assert most_repeats(one, 4, 1e-5, limit) == 4
    assert most_repeats(one, 1000, 1e-5, 0.01) == 0


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opacus.accountants.analysis", None)
    accountant._renyi.cache_clear()
    with pytest.raises(StudyError, match=r"\.\[privacy\]"):
        epsilon_of([Steps(1.0, 0.05, 100)], 1e-5)
