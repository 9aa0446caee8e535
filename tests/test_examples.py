"""The studies beside the package: every one is a study that would run if its images were there."""

import importlib.util
from pathlib import Path

import pytest

from polyhead.config import StudyConfig
from polyhead.federation.methods import choose_methods
from polyhead.study_file import load_study, parse_study

EXAMPLES = Path(__file__).parents[1] / "examples"
_SPEC = importlib.util.spec_from_file_location("evidence_studies", EXAMPLES / "evidence" / "studies.py")
assert _SPEC is not None
assert _SPEC.loader is not None
EVIDENCE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(EVIDENCE)


def choose(study: StudyConfig) -> list[str]:
    findings = {site.name: site.findings for site in study.site if site.findings is not None}
    assert len(findings) == len(study.site)
    return [method.name for method in choose_methods(study.methods, findings, study.findings)]


@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("a_no_overlap", ["local", "ffl"]),
        ("b_partial_overlap", ["local", "conventional", "ffl"]),
        ("c_five_sites", ["local", "ffl"]),
    ],
)
def test_the_papers_studies_could_run(name: str, methods: list[str]) -> None:
    study = load_study(EXAMPLES / "paper" / f"{name}.toml")
    assert choose(study) == methods
    assert (study.model.backbone, study.model.image_size, study.training.batch_size) == ("resnet50", 512, 8)
    assert all(site.train_images for site in study.site)


@pytest.mark.parametrize("name", EVIDENCE.STUDIES)
def test_studies_of_the_evidence_are_equal_but_for_what_they_ask(name: str) -> None:
    study = parse_study(EVIDENCE.study_text(name), Path("/runs"), f"{name}.toml")
    assert study.federation.rounds * study.federation.local_steps == EVIDENCE.STEPS
    assert len(study.seeds) >= 5
    assert study.model == parse_study(EVIDENCE.study_text("size-150"), Path("/runs"), "size-150.toml").model
