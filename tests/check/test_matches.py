"""Which names match, how that was decided, and which only look alike."""

import pytest

from polyhead.check.matches import Matches, NearMiss, find_matches
from polyhead.errors import StudyError
from polyhead.findings import explain_name


@pytest.mark.parametrize(
    ("name", "aliases", "canonical", "decided_by"),
    [
        ("Pleural Effusion", {}, "Pleural Effusion", "as written"),
        ("pleural_effusion", {}, "Pleural Effusion", "spelling"),
        ("Effusion", {}, "Pleural Effusion", "built-in alias"),
        ("Erguss", {"erguss": "Effusion"}, "Pleural Effusion", "study's alias"),
        ("Effusion", {"Effusion": "Effusion"}, "Effusion", "study's alias"),
    ],
)
def test_a_decision_is_explained(name: str, aliases: dict[str, str], canonical: str, decided_by: str) -> None:
    assert explain_name(name, aliases) == (canonical, decided_by)


def test_matches_hold_each_sites_spelling_and_its_reason() -> None:
    found = find_matches({"a": ["Effusion", "Mass"], "b": ["pleural-effusion"]}, {})
    assert [(match.canonical, list(match.spellings)) for match in found.matches] == [
        ("Mass", ["a"]),
        ("Pleural Effusion", ["a", "b"]),
    ]
    spellings = found.matches[1].spellings
    assert (spellings["a"].name, spellings["a"].decided_by) == ("Effusion", "built-in alias")
    assert (spellings["b"].name, spellings["b"].decided_by) == ("pleural-effusion", "spelling")


def near(one: list[str], other: list[str], aliases: dict[str, str] | None = None) -> Matches:
    return find_matches({"a": one, "b": other}, aliases or {})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Pneumonia", "Viral Pneumonia"),
        ("Pleural Effusion", "Pleural Effusion Left"),
        ("Cardiomegaly", "Cardiomegally"),
        ("Atelectasis", "Atelectases"),
    ],
)
def test_names_that_look_alike_are_shown(one: str, other: str) -> None:
    assert near([one], [other]).near_misses == (NearMiss("a", one, "b", other),)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Pneumonia", "Pneumothorax"),
        ("Lung Lesion", "Lung Opacity"),
        ("Mass", "Edema"),
        ("Effusion", "pleural effusion"),
    ],
)
def test_names_that_differ_or_match_are_not(one: str, other: str) -> None:
    assert near([one], [other]).near_misses == ()


def test_a_name_with_a_partner_is_no_near_miss() -> None:
    assert near(["Pneumonia"], ["Pneumonia", "Viral Pneumonia"]).near_misses == ()


def test_an_alias_turns_a_near_miss_into_a_match() -> None:
    found = near(["Cardiomegaly"], ["Cardiomegally"], {"Cardiomegally": "Cardiomegaly"})
    assert found.near_misses == ()
    assert len(found.matches) == 1


def test_two_names_of_one_site_that_mean_the_same_are_refused() -> None:
    with pytest.raises(StudyError, match="both mean 'Pleural Effusion'"):
        near(["Effusion", "Pleural Effusion"], [])
