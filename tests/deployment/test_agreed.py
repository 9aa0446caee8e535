"""What hospitals in houses of their own cannot agree on is refused before there is an agreement on it."""

from pathlib import Path

import pytest

from polyhead.deployment.agreed import Agreed, agreement_of, plan_of, read_agreement, study_at
from polyhead.errors import StudyError
from polyhead.study_file import parse_study

STUDY = 'name = "s"\n{}\n[[site]]\nname = "a"\nmanifest = "a.csv"\n{}'


@pytest.mark.parametrize(
    ("top", "rest", "words"),
    [
        ('methods = ["local", "conventional"]', "", "'conventional' shares a head"),
        ('methods = ["conventional"]', '[findings]\ncommon = ["Effusion", "pleural effusion"]', "both mean"),
        ('methods = ["best"]', "", "'best' is unknown"),
        (
            'methods = ["ffl", "masked"]',
            '[findings]\ncommon = ["Edema"]',
            "'masked' trains one head for",
        ),
        ('methods = ["surgical"]', "", "see neither each other's images nor findings. Choose 'ffl', or 'conventional'"),
        ('methods = ["central"]', "", "'central' pools their images"),
        ("", "[federation]\nvalidate_every = 2", "select = 'best'"),
        ("", "[federation]\nmin_sites = 2", "found 2, but there are 1 sites"),
        ("", "release_head = true", "'site.release_head': between houses every head stays in its own"),
    ],
)
def test_it_is_refused_with_the_key_and_what_to_do(top: str, rest: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="key '") as refusal:
        agreement_of(parse_study(STUDY.format(top, rest), tmp_path, "study.toml"))
    assert words in str(refusal.value)


@pytest.mark.parametrize("method", ["surgical", "masked", "central"])
def test_a_kit_that_asks_for_the_findings_of_others_is_refused_at_the_site(method: str) -> None:
    settings = parse_study(STUDY.format("", ""), Path(), "study.toml").model_dump(mode="json")
    agreed = Agreed({**settings, "methods": [method, "ffl"]}, ("a",), "0" * 64)
    assert plan_of(agreed, "ffl", 0).sharing.backbone
    with pytest.raises(StudyError, match=f"'{method}' .* see neither each other's images nor findings.* Make new kits"):
        plan_of(agreed, method, 0)


def test_the_usual_methods_are_agreed_on(tmp_path: Path) -> None:
    assert '"local"' in agreement_of(
        parse_study(STUDY.format('methods = ["local", "ffl"]', ""), tmp_path, "study.toml")
    )


def test_a_hospital_cannot_ask_for_its_head_to_leave(tmp_path: Path) -> None:
    """It would wait in vain: nothing between houses reads the key."""
    study = parse_study(STUDY.format("", ""), tmp_path, "study.toml")
    (tmp_path / "agreement.json").write_text(agreement_of(study))
    agreed = read_agreement(tmp_path / "agreement.json")
    own = {"manifest": "a.csv", "release_head": False}
    assert study_at(agreed, "a", own, tmp_path, "ours.toml").site[0].name == "a"
    with pytest.raises(StudyError, match=r"ours\.toml: key 'release_head': between houses every head stays"):
        study_at(agreed, "a", {**own, "release_head": True}, tmp_path, "ours.toml")
