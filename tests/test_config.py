"""The settings of a study: their defaults, their ranges, and which of them exclude each other."""

from typing import Any

import pytest
from pydantic import ValidationError

from polyhead.config import Federation, Findings, StudyConfig

SITE = {"name": "a", "manifest": "a/manifest.csv"}


def test_defaults() -> None:
    study = StudyConfig.model_validate({"name": "x", "site": [SITE]})
    assert study.cache is None
    assert study.training.augment.flip == 0
    federation = study.federation
    assert (federation.weighting, federation.aggregation, federation.trim) == ("equal", "mean", 0.2)
    assert (federation.min_sites, federation.round_attempts) == (None, 3)
    assert (federation.distance_rule, federation.distance_factor) == ("reject", 10.0)
    assert (federation.validate_every, federation.select) == (0, "last")


@pytest.mark.parametrize(
    ("key", "allowed", "refused"),
    [
        ("min_sites", [1, 500], [0, 1.5, True]),
        ("round_attempts", [1, 100], [0, 101]),
        ("aggregation", ["mean", "median", "trimmed_mean"], ["krum"]),
        ("trim", [0.0, 0, 0.49], [-0.1, 0.5, float("nan")]),
        ("distance_rule", ["reject", "clip", "off"], ["none", False]),
        ("distance_factor", [1.01, 2], [1, 0.5, float("inf"), float("nan")]),
        ("validate_every", [0, 1], [-1, 0.5]),
        ("select", ["last"], ["first"]),
    ],
)
def test_a_setting_of_the_federation_has_a_range(key: str, allowed: list[Any], refused: list[Any]) -> None:
    for value in allowed:
        assert getattr(Federation.model_validate({key: value}), key) == value
    for value in refused:
        with pytest.raises(ValidationError, match=key):
            Federation.model_validate({key: value})


def test_common_findings_have_names_of_which_none_stands_twice() -> None:
    assert Findings().common is None
    assert Findings.model_validate({"common": ["Edema", "Mass"]}).common == ["Edema", "Mass"]
    for refused in ([], [""], ["Edema", "Edema"], "Edema", [1]):
        with pytest.raises(ValidationError, match="common"):
            Findings.model_validate({"common": refused})


@pytest.mark.parametrize("aggregation", ["median", "trimmed_mean"])
def test_a_robust_mean_does_not_go_with_weights(aggregation: str) -> None:
    with pytest.raises(ValidationError, match=rf"aggregation = '{aggregation}' .* weighting = 'examples'"):
        Federation.model_validate({"aggregation": aggregation, "weighting": "examples"})
    assert Federation.model_validate({"aggregation": aggregation, "weighting": "equal"}).aggregation == aggregation
    assert Federation(aggregation="mean", weighting="examples").weighting == "examples"


def test_the_best_round_cannot_be_chosen_without_validation() -> None:
    with pytest.raises(ValidationError, match=r"select = 'best' .* validate_every = 0"):
        Federation(select="best")
    assert Federation(select="best", validate_every=1).select == "best"
