"""Which method trains which findings."""

from contextlib import nullcontext
from typing import Any

import pytest

from polyhead.config import Federation, Findings, StudyConfig
from polyhead.errors import StudyError
from polyhead.federation.methods import METHODS, check_methods, choose_methods
from polyhead.federation.sharing import NOTHING, Sharing
from polyhead.findings import canonical_name

SITES = {"a": ["Effusion", "Mass", "Atelectasis"], "b": ["atelectasis", "Nodule", "Pleural_Effusion"]}


def test_conventional_trains_what_all_sites_annotate_in_one_order() -> None:
    chosen = METHODS["conventional"].findings(SITES, Findings())
    assert chosen == {"a": ("Atelectasis", "Effusion"), "b": ("atelectasis", "Pleural_Effusion")}


def test_a_head_of_all_findings_is_in_one_order_under_each_sites_names() -> None:
    for method in ("surgical", "masked", "central"):
        chosen = METHODS[method].findings(SITES, Findings(common=["Effusion"]))
        assert chosen == {
            "a": ("Atelectasis", "Mass", "Nodule", "Effusion"),
            "b": ("atelectasis", "Mass", "Nodule", "Pleural_Effusion"),
        }


def test_a_site_whose_own_name_another_finding_has_is_told() -> None:
    # At a "Mass" means Nodule, and elsewhere "Lump" leads to Mass and no further.
    sites = {"a": ["Mass"], "b": ["Tumour"]}
    aliases = {"Mass": "Nodule", "Tumour": "Swelling", "Swelling": "Mass"}
    assert canonical_name("Tumour", aliases) == "Mass"
    choose_methods(["local"], sites, Findings(aliases=aliases))
    with pytest.raises(
        StudyError, match=r"^site a: its finding 'Mass' means 'Nodule', and what .* 'Tumour' means 'Mass'"
    ):
        choose_methods(["masked"], sites, Findings(aliases=aliases))


STUDY = {"name": "s", "site": [{"name": "a", "manifest": "a.csv"}], "model": {"norm": "group"}}


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("surgical", {"federation": {"aggregation": "median"}}, r"'federation\.aggregation': 'median' .* 'surgical'"),
        ("surgical", {"federation": {"aggregation": "trimmed_mean"}}, "Set aggregation = 'mean', or leave the method"),
        (
            "surgical",
            {"privacy": {"noise": 1.0}},
            r"'privacy\.noise': does not go with 'surgical', .* annotated images",
        ),
        ("central", {"privacy": {"noise": 1.0}}, "with 'central', for which all images leave .* Set noise = 0"),
        ("masked", {"federation": {"aggregation": "median"}}, None),
        ("central", {"federation": {"aggregation": "median"}}, None),
        ("masked", {"privacy": {"noise": 1.0}}, None),
        ("surgical", {}, None),
        ("nobody's", {"privacy": {"noise": 1.0}}, None),
    ],
)
def test_settings_that_do_not_go_with_a_method_are_refused(
    method: str, settings: dict[str, Any], words: str | None
) -> None:
    study = StudyConfig.model_validate({**STUDY, "methods": ["local", "ffl", method], **settings})
    with pytest.raises(StudyError, match=words) if words else nullcontext():
        check_methods(study)


def test_the_others_train_every_finding_in_alphabetical_order_of_the_canonical_name() -> None:
    for method in ("local", "ffl"):
        chosen = METHODS[method].findings(SITES, Findings())
        assert chosen == {"a": ("Atelectasis", "Mass", "Effusion"), "b": ("atelectasis", "Nodule", "Pleural_Effusion")}


def test_the_order_of_findings_and_sites_does_not_matter() -> None:
    turned = {site: names[::-1] for site, names in reversed(SITES.items())}
    for method in METHODS.values():
        assert method.findings(turned, Findings()) == method.findings(SITES, Findings())


def test_conventional_without_a_common_finding_says_what_each_site_has() -> None:
    with pytest.raises(StudyError, match="a: Normal; b: No Finding, Edema"):
        choose_methods(["conventional"], {"a": ["Normal"], "b": ["No Finding", "Edema"]}, Findings())


def test_aliases_of_the_study_make_findings_match() -> None:
    sites = {"a": ["Normal"], "b": ["No Finding"]}
    chosen = METHODS["conventional"].findings(sites, Findings(aliases={"Normal": "No Finding"}))
    assert chosen == {"a": ("Normal",), "b": ("No Finding",)}


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(StudyError, match="closest: local"):
        choose_methods(["locale"], SITES, Findings())


def test_what_each_method_shares() -> None:
    federation = Federation()
    assert METHODS["local"].sharing(federation) == NOTHING
    assert METHODS["conventional"].sharing(federation).head
    assert METHODS["ffl"].sharing(federation).backbone
    assert not METHODS["ffl"].sharing(federation).head
    assert not METHODS["ffl"].sharing(Federation(batch_norm="private")).batch_norm
    assert METHODS["masked"].sharing(federation) == METHODS["conventional"].sharing(federation)
    assert METHODS["surgical"].sharing(federation) == Sharing(backbone=True, batch_norm=True, head=True, rows=True)
    assert METHODS["central"].sharing(federation) == NOTHING
    assert [name for name, method in METHODS.items() if method.pooled] == ["central"]


def test_a_shared_head_has_the_findings_that_the_study_names() -> None:
    for common in (["effusion", "Atelectasis"], ["ATELECTASIS", "Pleural-Effusion"]):
        chosen = METHODS["conventional"].findings(SITES, Findings(common=common))
        assert chosen == {"a": ("Atelectasis", "Effusion"), "b": ("atelectasis", "Pleural_Effusion")}
    assert METHODS["conventional"].findings(SITES, Findings(common=["Effusion"])) == {
        "a": ("Effusion",),
        "b": ("Pleural_Effusion",),
    }


def test_what_the_study_names_changes_nothing_of_the_others() -> None:
    for method in ("local", "ffl"):
        chosen = METHODS[method].findings(SITES, Findings(common=["Effusion"]))
        assert chosen == METHODS[method].findings(SITES, Findings())


def test_a_site_without_a_finding_that_the_study_names_is_named_with_it() -> None:
    with pytest.raises(StudyError, match=r"site b: does not annotate 'Mass'.*findings\.common"):
        choose_methods(["conventional"], SITES, Findings(common=["Effusion", "Mass"]))


def test_one_finding_named_twice_is_refused() -> None:
    with pytest.raises(StudyError, match=r"key 'findings\.common'.*both mean 'Pleural Effusion'"):
        choose_methods(["conventional"], SITES, Findings(common=["effusion", "Pleural Effusion"]))
