"""The settings of a study: their defaults, their ranges, and which of them exclude each other."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from polyhead.config import Federation, Findings, Privacy, StudyConfig
from polyhead.errors import StudyError
from polyhead.study_file import parse_study

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
    assert (study.privacy.noise, study.privacy.clip, study.privacy.delta) == (0, 1.0, 1e-5)
    assert study.model.norm == "batch"


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
        ("proximal", [0, 0.01, 1e6], [-0.1, 1e39, float("inf"), float("nan"), True]),
        ("server_momentum", [0, 0.99], [-0.1, 1.0, float("nan")]),
        ("server_learning_rate", [0.1, 1, 2.0], [0, -1.0, float("inf")]),
        ("server_adam_learning_rate", [1e-3, 1], [0, float("inf")]),
        ("server_adam_epsilon", [1e-12, 1e-2, 1e6], [0, 1e-13, -1e-3, 1e20, 1e200]),
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


@pytest.mark.parametrize(
    ("key", "allowed", "refused"),
    [
        ("noise", [0, 0.5, 1000], [-0.1, 1001, float("nan"), True]),
        ("clip", [0.001, 1], [0, -1.0, float("inf")]),
        ("delta", [1e-9, 0.01], [0, 0.1, 1]),
    ],
)
def test_a_setting_of_privacy_has_a_range(key: str, allowed: list[Any], refused: list[Any]) -> None:
    for value in allowed:
        assert getattr(Privacy.model_validate({key: value}), key) == value
    for value in refused:
        with pytest.raises(ValidationError, match=key):
            Privacy.model_validate({key: value})


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("", "key 'privacy.noise' does not go with BatchNorm.*norm = 'group' under \\[model\\]"),
        (
            "[model]\nnorm = 'group'\n[federation]\nweighting = 'examples'",
            "key 'privacy.noise' .*weighting = 'equal' under \\[federation\\]",
        ),
    ],
)
def test_noise_does_not_go_with_what_it_would_not_cover(rest: str, words: str) -> None:
    text = f"name = 'x'\n[[site]]\nname = 'a'\nmanifest = 'a.csv'\n[privacy]\nnoise = 1.0\n{rest}"
    with pytest.raises(StudyError, match=f"^study.toml: {words}"):
        parse_study(text, Path(), "study.toml")
    assert parse_study(text.replace("noise = 1.0", "noise = 0"), Path(), "study.toml").privacy.noise == 0
