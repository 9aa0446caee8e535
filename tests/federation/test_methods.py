"""Which method trains which findings."""

import pytest

from polyhead.config import Federation
from polyhead.errors import StudyError
from polyhead.federation.methods import METHODS, choose_methods
from polyhead.federation.sharing import NOTHING

SITES = {"a": ["Effusion", "Mass", "Atelectasis"], "b": ["atelectasis", "Nodule", "Pleural_Effusion"]}


def test_conventional_trains_what_all_sites_annotate_in_one_order() -> None:
    chosen = METHODS["conventional"].findings(SITES, {})
    assert chosen == {"a": ("Atelectasis", "Effusion"), "b": ("atelectasis", "Pleural_Effusion")}


def test_the_others_train_every_finding_in_alphabetical_order_of_the_canonical_name() -> None:
    for method in ("local", "ffl"):
        chosen = METHODS[method].findings(SITES, {})
        assert chosen == {"a": ("Atelectasis", "Mass", "Effusion"), "b": ("atelectasis", "Nodule", "Pleural_Effusion")}


def test_the_order_of_findings_and_sites_does_not_matter() -> None:
    turned = {site: names[::-1] for site, names in reversed(SITES.items())}
    for method in METHODS.values():
        assert method.findings(turned, {}) == method.findings(SITES, {})


def test_conventional_without_a_common_finding_says_what_each_site_has() -> None:
    with pytest.raises(StudyError, match="a: Normal; b: No Finding, Edema"):
        choose_methods(["conventional"], {"a": ["Normal"], "b": ["No Finding", "Edema"]}, {})


def test_aliases_of_the_study_make_findings_match() -> None:
    sites = {"a": ["Normal"], "b": ["No Finding"]}
    chosen = METHODS["conventional"].findings(sites, {"Normal": "No Finding"})
    assert chosen == {"a": ("Normal",), "b": ("No Finding",)}


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(StudyError, match="closest: local"):
        choose_methods(["locale"], SITES, {})


def test_what_each_method_shares() -> None:
    federation = Federation()
    assert METHODS["local"].sharing(federation) == NOTHING
    assert METHODS["conventional"].sharing(federation).head
    assert METHODS["ffl"].sharing(federation).backbone
    assert not METHODS["ffl"].sharing(federation).head
    assert not METHODS["ffl"].sharing(Federation(batch_norm="private")).batch_norm
