"""Which method trains which findings."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch

from polyhead.config import Federation, Findings, Model, Privacy, StudyConfig, Training
from polyhead.errors import StudyError
from polyhead.federation import methods as methods_module
from polyhead.federation.methods import METHODS, choose_methods, plan_for, refuse_settings
from polyhead.federation.server_rule import ServerRule
from polyhead.federation.sharing import NOTHING, Sharing
from polyhead.federation.site import Plan
from polyhead.findings import canonical_name

FFL_LIKE = ("ffl", "fedbn", "fedprox", "fedbabu", "fedavgm", "fedadam")
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
        (
            "surgical",
            {"federation": {"aggregation": "median"}},
            r"^method 'surgical': .*'federation\.aggregation' is 'median'",
        ),
        ("surgical", {"federation": {"aggregation": "trimmed_mean"}}, "Set aggregation = 'mean', or leave the method"),
        (
            "surgical",
            {"privacy": {"noise": 1.0}},
            r"^method 'surgical': .*'privacy\.noise': .* annotated images",
        ),
        ("central", {"privacy": {"noise": 1.0}}, "^method 'central': .* all images leave .* Set noise = 0"),
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
        refuse_settings(study.methods, study)


def test_the_others_train_every_finding_in_alphabetical_order_of_the_canonical_name() -> None:
    for method in ("local", *FFL_LIKE):
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
    for method in ("local", *FFL_LIKE):
        chosen = METHODS[method].findings(SITES, Findings(common=["Effusion"]))
        assert chosen == METHODS[method].findings(SITES, Findings())


def test_a_site_without_a_finding_that_the_study_names_is_named_with_it() -> None:
    with pytest.raises(StudyError, match=r"site b: does not annotate 'Mass'.*findings\.common"):
        choose_methods(["conventional"], SITES, Findings(common=["Effusion", "Mass"]))


def test_one_finding_named_twice_is_refused() -> None:
    with pytest.raises(StudyError, match=r"key 'findings\.common'.*both mean 'Pleural Effusion'"):
        choose_methods(["conventional"], SITES, Findings(common=["effusion", "Pleural Effusion"]))


def plan_of(method: str, federation: Federation) -> Plan:
    return plan_for(METHODS[method], 3, federation, Training(), Privacy(noise=0.5))


def test_a_method_becomes_a_plan_with_what_the_study_says() -> None:
    federation = Federation(
        proximal=0.5, server_momentum=0.25, server_learning_rate=0.75, server_adam_learning_rate=0.1
    )
    sharing = Sharing(backbone=True, batch_norm=True, head=False)
    plain = Plan(3, federation, Training(), sharing, Privacy(noise=0.5))
    changes = {
        "ffl": {},
        "fedbn": {"sharing": Sharing(backbone=True, batch_norm=False, head=False)},
        "fedprox": {"proximal": 0.5},
        "fedbabu": {"sharing": Sharing(backbone=True, batch_norm=True, head=False, fixed_head=True)},
        "fedavgm": {"rule": ServerRule("momentum", 0.75, 0.25)},
        "fedadam": {"rule": ServerRule("adam", 0.1, 0.25, 1e-3)},
    }
    assert set(changes) == set(FFL_LIKE)
    for method, change in changes.items():
        assert plan_of(method, federation) == replace(plain, **change), method
    for method in ("local", "conventional"):
        plan = plan_of(method, federation)
        assert (plan.sharing, plan.proximal, plan.rule) == (METHODS[method].sharing(federation), 0.0, None)


@pytest.mark.parametrize("method", FFL_LIKE)
def test_private_batch_norm_is_kept_by_all_that_share_a_backbone(method: str) -> None:
    assert not plan_of(method, Federation(batch_norm="private")).sharing.batch_norm


def study(methods: list[str], model: Model | None = None, **federation: object) -> StudyConfig:
    settings = {"name": "x", "methods": methods, "site": [{"name": "a", "manifest": "a.csv"}], "federation": federation}
    return StudyConfig.model_validate(settings).model_copy(update={"model": model or Model(backbone="resnet10")})


@pytest.mark.parametrize(
    ("refused", "allowed", "told"),
    [
        (
            study(["ffl", "fedbabu"]),
            study(["ffl", "fedbabu"], finetune="head"),
            r"method 'fedbabu': trains no head.*'federation\.finetune' is 'none'.*finetune = 'head' or 'full'",
        ),
        (
            study(["fedbn"], Model(backbone="resnet10", norm="group")),
            study(["fedbn"]),
            r"method 'fedbn': .*has none \(norm = 'group'.*it would be 'ffl'",
        ),
        (
            study(["ffl", "fedbn"], batch_norm="private"),
            study(["local", "fedbn"], batch_norm="private"),
            r"method 'fedbn': is 'ffl' under batch_norm = 'private'.*Leave one out, or set batch_norm = 'shared'",
        ),
        (
            study(["fedprox"], local_steps=1),
            study(["fedprox"], local_steps=2),
            r"method 'fedprox': .*'federation\.local_steps' at 1.*it would be 'ffl'.*2 or more",
        ),
    ],
)
def test_settings_under_which_a_method_is_another_are_refused(
    refused: StudyConfig, allowed: StudyConfig, told: str
) -> None:
    with pytest.raises(StudyError, match=told):
        refuse_settings(refused.methods, refused)
    refuse_settings(allowed.methods, allowed)
    # Nor is a method asked for that the study may not have.
    refuse_settings(["ffl"], refused)


def test_a_backbone_without_batch_norm_is_found_by_its_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        methods_module, "build_backbone", lambda model, seed: torch.nn.Sequential(torch.nn.LayerNorm(4))
    )
    with pytest.raises(StudyError, match=r"the backbone has none \(resnet10\)"):
        refuse_settings(["fedbn"], study(["fedbn"]))
