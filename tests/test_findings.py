"""When two names mean the same finding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.errors import StudyError
from polyhead.findings import (
    canonical_name,
    check_aliases,
    closest,
    finding_and_site,
    match_findings,
    name_at_site,
    shared_findings,
)


@pytest.mark.parametrize(
    "name", ["Effusion", "Pleural Effusion", "pleural_effusion", "PLEURAL-EFFUSION ", "pleural  effusion"]
)
def test_spellings_of_effusion_are_one(name: str) -> None:
    assert canonical_name(name) == "Pleural Effusion"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Normal", "No Finding"),
        ("Pleural Effusion Left", "Pleural Effusion Right"),
        ("Pleural Effusion Left", "Pleural Effusion"),
        ("Pneumonia", "Viral Pneumonia"),
        ("Mass", "Nodule"),
        ("Cardiomegaly", "Enlarged Cardiomediastinum"),
    ],
)
def test_different_things_stay_apart(one: str, other: str) -> None:
    assert canonical_name(one) != canonical_name(other)


@given(st.text(max_size=30))
def test_a_canonical_name_is_its_own_canonical_name(name: str) -> None:
    once = canonical_name(name)
    assert canonical_name(once) == once


def test_the_study_can_match_and_unmatch() -> None:
    assert canonical_name("Normal", {"normal": "No Finding"}) == canonical_name("No Finding")
    assert canonical_name("Effusion", {"Effusion": "Effusion"}) != canonical_name("Pleural Effusion")


def test_an_alias_may_lead_to_a_name_that_has_one() -> None:
    assert canonical_name("Fluid", {"Fluid": "Effusion"}) == canonical_name("Pleural Effusion")
    assert canonical_name("Normal", {"Normal": "No findings"}) == canonical_name("No Finding")
    assert canonical_name("Fluid", {"Fluid": "Effusion", "Effusion": "Effusion"}) == "Effusion"


@pytest.mark.parametrize(
    ("aliases", "message"), [({"Edma": "x"}, "closest: Edema"), ({"edema": "x", "Edema": "y"}, "twice")]
)
def test_aliases_that_slip_are_refused(aliases: dict[str, str], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        check_aliases({"a": ["Edema"]}, aliases)


def test_matching_lines_spellings_up() -> None:
    sites = {"a": ["Effusion", "Mass"], "b": ["pleural effusion"]}
    assert match_findings(sites) == {
        "Mass": {"a": "Mass"},
        "Pleural Effusion": {"a": "Effusion", "b": "pleural effusion"},
    }
    assert shared_findings(sites) == ("Pleural Effusion",)
    assert shared_findings({"a": ["Mass"], "b": ["Nodule"]}) == ()


def test_two_columns_of_one_site_for_one_finding_are_refused_with_the_remedy() -> None:
    with pytest.raises(StudyError, match=r"site a: findings 'Effusion' and 'Pleural Effusion' both mean"):
        match_findings({"a": ["Effusion", "Pleural Effusion"]})
    aliases = {"Pleural Effusion": "Pleural Effusion", "Effusion": "Effusion"}
    assert len(match_findings({"a": ["Effusion", "Pleural Effusion"]}, aliases)) == 2


def test_closest_names_near_ones_or_all() -> None:
    assert closest("Efusion", ["Effusion", "Mass"]) == "closest: Effusion"
    assert closest("xyz", ["Mass", "Edema"]) == "known: Edema, Mass"
    assert closest("xyz", []) == "known: none"


@given(st.text(min_size=1), st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._ -]*", fullmatch=True))
def test_of_a_name_with_its_site_both_are_known(finding: str, site: str) -> None:
    """Whatever the finding is called: sites have no brackets in their names."""
    assert finding_and_site(name_at_site(finding, site)) == (finding, site)


@pytest.mark.parametrize("name", ["Edema", "", "Edema (", "Edema ()", "(harbour)", "Edema (a) left)", "Edema(harbour)"])
def test_other_names_have_no_site(name: str) -> None:
    assert finding_and_site(name) is None
