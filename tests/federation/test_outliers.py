"""Distances by hand, and who is the odd one out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyhead.errors import UpdateError
from polyhead.federation.outliers import Distance, distance, finite_distance, too_far, usual_distance
from polyhead.federation.update import SiteUpdate

CURRENT = {
    "w": torch.tensor([1.0, 1.0]),
    "bn.running_mean": torch.tensor([0.0]),
    "bn.running_var": torch.tensor([4.0]),
    "bn.num_batches_tracked": torch.tensor(5),
}


def state(w: list[float], mean: float = 0.0, var: float = 4.0, count: int = 5) -> dict[str, torch.Tensor]:
    values = (torch.tensor(w), torch.tensor([mean]), torch.tensor([var]), torch.tensor(count))
    return dict(zip(CURRENT, values, strict=True))


def update(w: list[float], mean: float = 0.0) -> SiteUpdate:
    return SiteUpdate("a", 0, 1, 0.5, state(w, mean))


def weights(*values: float) -> dict[str, Distance]:
    return {name: Distance(value, 0.0) for name, value in zip("abcdefghi", values, strict=False)}


def test_the_distance_by_hand_parts_statistics_from_weights_and_counts_no_counters() -> None:
    # A mean of -2 is one deviation away, a deviation of 6 two: the root of (1 + 4) / 2; but for a thousandth.
    found = distance(state([4.0, 5.0], mean=-2.0, var=36.0, count=1000), CURRENT)
    assert found == (5.0, pytest.approx(math.sqrt((1 + 4) / 2 / 1.001), rel=1e-8))
    assert distance(CURRENT, CURRENT) == (0.0, 0.0)


@pytest.mark.parametrize("size", [1, 2**16 - 1, 2**16, 2**16 + 1, 200_001])
def test_the_distance_of_large_tensors_is_numpys(size: int) -> None:
    rng = np.random.default_rng(size)
    a, b = rng.normal(size=(2, size)).astype(np.float32)
    ours = distance({"w": torch.from_numpy(a)}, {"w": torch.from_numpy(b)}).weights
    assert ours == pytest.approx(float(np.linalg.norm((a - b).astype(np.float64))), rel=1e-8)


@given(st.permutations(range(4)))
def test_how_tensors_lie_in_memory_does_not_change_the_distance(order: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 7, 5, 3, 3, generator=generator)
    lying = a.permute(order).contiguous().permute([order.index(axis) for axis in range(4)])
    assert distance({"w": lying}, {"w": b}) == distance({"w": a}, {"w": b})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floating_types_are_measured_too(dtype: torch.dtype) -> None:
    assert distance({"w": torch.full((4,), 300.0, dtype=dtype)}, {"w": torch.zeros(4, dtype=dtype)}).weights == 600


def test_a_difference_beyond_half_precision_is_measured() -> None:
    far = torch.full((4,), 6e4, dtype=torch.float16)
    assert distance({"w": far}, {"w": -far}).weights == pytest.approx(2.4e5, rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 2**16, 2**17])
def test_one_value_that_is_not_finite_is_found_wherever_it_is(bad: float, at: int) -> None:
    weights = torch.zeros(2**17 + 1)
    weights[at] = bad
    with pytest.raises(UpdateError, match=r"^site a, round 0: w holds a value that is not finite"):
        finite_distance(
            SiteUpdate("a", 0, 1, 0.5, {"w": weights, "v": torch.zeros(1)}), {"w": weights * 0, "v": torch.zeros(1)}
        )


def test_a_finite_update_has_its_distance() -> None:
    assert finite_distance(update([4.0, 5.0], 2.0), CURRENT) == distance(state([4.0, 5.0], 2.0), CURRENT)


def test_a_distance_that_overflows_is_too_far() -> None:
    far = {"w": torch.tensor([3e38])}
    with pytest.raises(UpdateError, match="too far: the distance from the current backbone is not finite"):
        finite_distance(SiteUpdate("a", 0, 1, 0.5, far), {"w": torch.tensor([-3e38])})
    # Within float32, and beyond every weight: for the rule to judge.
    assert distance({"w": torch.tensor([1e30])}, {"w": torch.tensor([0.0])}).weights == pytest.approx(1e30)


def judged(distances: dict[str, Distance], factor: float) -> dict[str, float]:
    return too_far(distances, usual_distance(distances.values()), factor)


def test_too_far_by_hand() -> None:
    assert judged(weights(1.0, 2.0, 3.0, 62.4), 10) == {"d": 62.4 / 2.5}
    assert judged(weights(1.0, 2.0, 20.0), 10) == {}
    assert judged(weights(1.0, 2.0, 20.1), 10) == {"c": 20.1 / 2}


def test_weights_that_went_far_do_not_hide_behind_statistics_and_the_other_way_round() -> None:
    # In a distance over both, 40 beside 100 would be nothing.
    honest = {"a": Distance(1.0, 100.0), "b": Distance(1.1, 90.0)}
    assert judged({**honest, "c": Distance(40.0, 95.0)}, 10) == {"c": 40.0 / 1.1}
    assert judged({**honest, "c": Distance(1.0, 2000.0)}, 10) == {"c": 2000.0 / 100.0}
    assert judged({**honest, "c": Distance(22.0, 3000.0)}, 10) == {"c": 30.0}


def test_one_deviation_is_never_too_far() -> None:
    settled = {"a": Distance(1.0, 0.001), "b": Distance(1.0, 0.001)}
    assert judged({**settled, "c": Distance(1.0, 0.99)}, 10) == {}
    assert judged({**settled, "c": Distance(1.0, 1.01)}, 10) == {"c": pytest.approx(10.1)}
    assert judged({**settled, "c": Distance(1.0, 1.01)}, 2) == {"c": pytest.approx(2.02)}


@pytest.mark.parametrize("values", [(), (9.0,), (1e-9, 1e9), (0.0, 0.0, 5.0)])
def test_without_a_scale_nobody_is_too_far(values: tuple[float, ...]) -> None:
    assert judged(weights(*values), 10) == {}
    assert judged(weights(*values), 1.5) == {}


def test_one_of_two_is_judged_by_what_was_usual_before() -> None:
    assert too_far(weights(1.0, 30.0), Distance(2.0, 0.0), 10) == {"b": 15.0}
    assert too_far(weights(30.0), Distance(2.0, 0.0), 10) == {"a": 15.0}


PARTS = st.floats(0, 1e300)


@given(st.dictionaries(st.text(max_size=3), st.builds(Distance, PARTS, st.just(0.0)), max_size=9), st.floats(1.01, 1e6))
def test_at_least_half_always_stay(distances: dict[str, Distance], factor: float) -> None:
    far = judged(distances, factor)
    assert len(far) * 2 <= len(distances)
    assert all(medians >= factor for medians in far.values())


@given(st.dictionaries(st.text(max_size=3), st.builds(Distance, PARTS, PARTS), max_size=9), st.floats(1.01, 1e6))
def test_of_each_distance_at_least_half_are_near(distances: dict[str, Distance], factor: float) -> None:
    far = judged(distances, factor)
    found = set()
    for part in range(2):
        alone = {site: Distance(*(found * (n == part) for n, found in enumerate(d))) for site, d in distances.items()}
        found |= judged(alone, factor).keys()
        assert 2 * len(judged(alone, factor)) <= len(distances)
    assert far.keys() == found


def test_the_scale_by_hand() -> None:
    first = [Distance(3.0, 10.0), Distance(1.0, 30.0), Distance(2.0, 20.0)]
    assert usual_distance(first, Distance(9.0, 9.0)) == (2.0, 20.0)
    for two in ([], first[:1], first[:2]):
        assert usual_distance(two) is None
        assert usual_distance(two, Distance(9.0, 9.0)) == (9.0, 9.0)


@pytest.mark.parametrize("start", [0.0, 5.0])
@pytest.mark.parametrize("gap", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("noise", [0.001, 0.1, 0.3])
def test_a_hospital_of_other_patients_is_not_shut_out_when_the_others_statistics_have_settled(
    start: float, gap: float, noise: float
) -> None:
    """Seven sites of one population and an eighth of another, whose statistics always move; 30 rounds of 5 steps."""
    generator = torch.Generator().manual_seed(0)
    share, usual = 1 - 0.9**5, None
    ours = {"running_mean": torch.full((32,), start), "running_var": torch.ones(32)}
    for _ in range(30):
        means = [noise * torch.randn(32, generator=generator) + (gap if site == 7 else 0.0) for site in range(8)]
        sent = [{**ours, "running_mean": torch.lerp(ours["running_mean"], mean, share)} for mean in means]
        distances = {str(site): distance(state, ours) for site, state in enumerate(sent)}
        usual = usual_distance(distances.values(), usual)
        assert too_far(distances, usual, 10) == {}
        ours["running_mean"] = torch.stack([state["running_mean"] for state in sent]).mean(0)


@pytest.mark.parametrize("entry", ["running_mean", "running_var"])
def test_statistics_a_thousand_deviations_away_are_too_far_however_settled_the_others_are(entry: str) -> None:
    current = {"running_mean": torch.zeros(32), "running_var": torch.full((32,), 4.0)}
    near = {"running_mean": torch.full((32,), 0.01), "running_var": torch.full((32,), 4.1)}
    spoiled = {**near, entry: near[entry] + 2000.0 ** (2 if entry == "running_var" else 1)}
    distances = {name: distance(state, current) for name, state in {"a": near, "b": near, "c": spoiled}.items()}
    (times,) = judged(distances, 10).values()
    assert times == pytest.approx(10 * 1000 / math.sqrt(2), rel=1e-2)


def test_a_running_mean_of_a_layer_without_variance_is_measured_as_weights_are() -> None:
    alone = {"layer.running_mean": torch.zeros(4)}
    assert distance({"layer.running_mean": torch.ones(4)}, alone) == (2.0, 0.0)
    with pytest.raises(UpdateError, match="not finite"):
        finite_distance(SiteUpdate("a", 0, 1, 0.5, {"layer.running_mean": torch.full((4,), math.nan)}), alone)


def test_a_silent_channel_that_wakes_is_measured_by_the_deviations_of_its_layer() -> None:
    current = {"running_mean": torch.zeros(4), "running_var": torch.tensor([0.0, 1.0, 1.0, 1.0])}
    woken = {**current, "running_var": torch.ones(4)}
    found = distance(woken, current).statistics
    assert found == pytest.approx(math.sqrt(1 / (0.75 / 1000) / 8), rel=1e-6)
    assert distance({**current, "running_var": torch.zeros(4)}, {**current, "running_var": torch.zeros(4)}) == (0, 0)
