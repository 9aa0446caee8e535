"""The study file."""

from pathlib import Path

import pytest

from polyhead.config import StudyConfig, load_study, parse_study
from polyhead.errors import StudyError

SITE = '[[site]]\nname = "a"\nmanifest = "a/manifest.csv"\n'


def parse(text: str) -> StudyConfig:
    return parse_study(text, Path("/studies"), "study.toml")


def test_defaults_and_paths_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(f'name = "x"\n{SITE}[model]\nweights = "w.safetensors"\n')
    study = load_study(tmp_path / "study.toml")
    assert study.site[0].manifest == tmp_path / "a/manifest.csv"
    assert study.model.weights == tmp_path / "w.safetensors"
    assert study.cache is None
    assert study.training.augment.flip == 0
    assert study.federation.weighting == "equal"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'name = "x"\n{SITE}train_imges = 3\n', "unknown key 'site.1.train_imges'; closest: train_images"),
        (f'name = "x"\n{SITE}[federation]\nround = 3\n', "unknown key 'federation.round'; closest: rounds"),
        (f'name = "x"\n{SITE}[training.augment]\nrotate = 3\n', "'training.augment.rotate'; closest: rotation"),
        (f'name = "x"\n{SITE}[federation]\nrounds = 0\n', "key 'federation.rounds': found 0"),
        (f'name = "x"\n{SITE}[federation]\nweighting = "size"\n', "'equal' or 'examples'"),
        (f'name = "x"\n{SITE}{SITE.replace(chr(34) + "a" + chr(34), chr(34) + "A" + chr(34))}', "'a' stands twice"),
        (f'name = "x"\nmethods = ["ffl", "ffl"]\n{SITE}', "'ffl' stands twice"),
        (f'name = "x"\n{SITE}shard = "3/2"\n', "the first number must not exceed the second"),
        ('name = "x"\n[[site]]\nname = "../up"\nmanifest = "m.csv"\n', "key 'site.1.name': found '../up'"),
        ('name = "x"\n', "key 'site' is missing"),
        ("name = x\n", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(text: str, message: str) -> None:
    with pytest.raises(StudyError) as problem:
        parse(text)
    assert message in str(problem.value)
    assert str(problem.value).startswith("study.toml: ")


def test_a_missing_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"absent\.toml: cannot be read"):
        load_study(tmp_path / "absent.toml")
