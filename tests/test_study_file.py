"""The study file: what is read, what is refused, and what changed since."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.config import StudyConfig, StudySite
from polyhead.errors import StudyError
from polyhead.study_file import changed_settings, load_study, parse_study

SITE = '[[site]]\nname = "a"\nmanifest = "a/manifest.csv"\n'

# What every setting may become that is not its default; sites apart.
OTHER: dict[str, Any] = {
    "name": "y",
    "seeds": [0, 1],
    "methods": ["ffl"],
    "cache": "/cache",
    "bad_images": 0.5,
    "findings.aliases.Oedema": "Edema",
    "findings.common": ["Edema"],
    "pixels.recipe": "paper",
    "pixels.aspect": "crop",
    "pixels.intensity": "robust",
    "pixels.equalize": "clahe",
    "pixels.frames": "first",
    "pixels.colour": "refuse",
    "model.backbone": "resnet50",
    "model.width": 0.5,
    "model.image_size": 64,
    "model.weights": "/w.safetensors",
    "model.norm": "group",
    "federation.rounds": 3,
    "federation.local_steps": 2,
    "federation.weighting": "examples",
    "federation.batch_norm": "private",
    "federation.finetune": "head",
    "federation.finetune_steps": 7,
    "federation.min_sites": 2,
    "federation.round_attempts": 1,
    "federation.aggregation": "median",
    "federation.trim": 0.1,
    "federation.distance_rule": "clip",
    "federation.distance_factor": 3.0,
    "federation.validate_every": 10,
    "federation.select": "best",
    "federation.transfer": "half",
    "federation.proximal": 0.1,
    "federation.server_momentum": 0.5,
    "federation.server_learning_rate": 0.5,
    "federation.server_adam_learning_rate": 0.1,
    "federation.server_adam_epsilon": 1e-2,
    "training.batch_size": 8,
    "training.learning_rate": 0.01,
    "training.weight_decay": 0.0,
    "training.schedule": "constant",
    "training.optimizer_state": "reset",
    "training.device": "cpu",
    "training.augment.rotation": 1.0,
    "training.augment.shift": 0.0,
    "training.augment.scale": 0.0,
    "training.augment.contrast": 0.0,
    "training.augment.noise": 0.0,
    "training.augment.flip": 0.5,
    "privacy.noise": 1.0,
    "privacy.clip": 0.5,
    "privacy.delta": 1e-6,
    "evaluation.replicates": 200,
}
OTHER_OF_SITE: dict[str, Any] = {
    "manifest": "/elsewhere.csv",
    "findings": ["Edema"],
    "train_images": 3,
    "shard": "1/2",
    "shuffle_labels": True,
    "release_head": True,
}


def parse(text: str) -> StudyConfig:
    return parse_study(text, Path("/studies"), "study.toml")


def study_with(settings: dict[str, Any], sites: dict[str, dict[str, Any]]) -> StudyConfig:
    nested: dict[str, Any] = {
        "name": "x",
        "site": [{"name": name, "manifest": f"/{name}.csv", **site} for name, site in sites.items()],
    }
    for key, value in settings.items():
        *sections, last = key.split(".")
        section = nested
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    return StudyConfig.model_validate(nested)


def keys_of(settings: dict[str, Any], prefix: str = "") -> set[str]:
    parts = (keys_of(v, f"{prefix}{k}.") if isinstance(v, dict) else {prefix + k} for k, v in settings.items())
    return set().union(*parts)


def some_of(table: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.sets(st.sampled_from(sorted(table))).map(lambda keys: {key: table[key] for key in sorted(keys)})


def that_agree(settings: dict[str, Any]) -> dict[str, Any]:
    excluded = set()
    if "federation.weighting" in settings:
        excluded.add("federation.aggregation")
    if "federation.validate_every" not in settings:
        excluded.add("federation.select")
    if "federation.weighting" in settings or "model.norm" not in settings:
        excluded.add("privacy.noise")
    return {key: value for key, value in settings.items() if key not in excluded}


SETTINGS = some_of(OTHER).map(that_agree)
SITES = st.dictionaries(st.sampled_from("abcd"), some_of(OTHER_OF_SITE), min_size=1)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(f'name = "x"\n{SITE}[model]\nweights = "w.safetensors"\n')
    study = load_study(tmp_path / "study.toml")
    assert study.site[0].manifest == tmp_path / "a/manifest.csv"
    assert study.model.weights == tmp_path / "w.safetensors"
    assert study.cache is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'name = "x"\n{SITE}train_imges = 3\n', "unknown key 'site.1.train_imges'; closest: train_images"),
        (f'name = "x"\n{SITE}[federation]\nround = 3\n', "unknown key 'federation.round'; closest: rounds"),
        (f'name = "x"\n{SITE}[training.augment]\nrotate = 3\n', "'training.augment.rotate'; closest: rotation"),
        (f'name = "x"\n{SITE}[federation]\nrounds = 0\n', "key 'federation.rounds': found 0"),
        (f'name = "x"\nseeds = [0x{"f" * 5000}]\n{SITE}', "key 'seeds.1': found a number of thousands of digits"),
        (f'name = "x"\n{SITE}[federation]\nweighting = "size"\n', "'equal' or 'examples'"),
        (f'name = "x"\n{SITE}[federation]\ntrim = 0.5\n', "key 'federation.trim': found 0.5"),
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


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        ('aggregation = "median"\nweighting = "examples"', ("aggregation = 'median'", "weighting = 'examples'")),
        ('select = "best"\nrounds = 77', ("select = 'best'", "validate_every = 0")),
    ],
)
def test_two_keys_that_disagree_are_both_named_and_nothing_else(settings: str, keys: tuple[str, str]) -> None:
    with pytest.raises(StudyError) as problem:
        parse(f'name = "x"\n{SITE}[federation]\n{settings}\n')
    said = str(problem.value)
    assert said.startswith("study.toml: section [federation]: ")
    assert all(key in said for key in keys)
    assert "77" not in said
    assert "\n" not in said


def test_a_missing_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"absent\.toml: cannot be read"):
        load_study(tmp_path / "absent.toml")


def test_the_table_of_other_values_has_every_setting() -> None:
    study = study_with({"findings.aliases.Oedema": "Edema"}, {"a": {}})
    assert keys_of(study.model_dump(exclude={"site", "recipe"})) == set(OTHER)
    assert set(StudySite.model_fields) == {"name", *OTHER_OF_SITE}


@given(SETTINGS, SETTINGS, SITES, SITES)
def test_every_changed_setting_is_named_and_no_other(
    old: dict[str, Any], new: dict[str, Any], old_sites: dict[str, Any], new_sites: dict[str, Any]
) -> None:
    texts = changed_settings(study_with(old, old_sites), study_with(new, new_sites))
    expected = old.keys() ^ new.keys()
    expected |= {f"site {name}" for name in old_sites.keys() ^ new_sites.keys()}
    for name in old_sites.keys() & new_sites.keys():
        expected |= {f"site {name}: {key}" for key in old_sites[name].keys() ^ new_sites[name].keys()}
    assert {text.rpartition(": ")[0] for text in texts} == expected
    assert len(texts) == len(expected)
    assert texts == sorted(texts)


@given(SETTINGS, SITES, st.randoms(use_true_random=False))
def test_equal_studies_have_no_changes_in_whatever_order_their_sites_stand(
    settings: dict[str, Any], sites: dict[str, Any], random: Any
) -> None:
    names = list(sites)
    random.shuffle(names)
    assert changed_settings(study_with(settings, sites), study_with(settings, {n: sites[n] for n in names})) == []


def test_a_change_reads_as_a_person_would_say_it() -> None:
    old = study_with({"training.learning_rate": 0.001}, {"a": {}, "b": {"train_images": 3}, "c": {}})
    new = study_with(
        {"training.learning_rate": 0.01, "cache": "/cache", "findings.aliases.Oedema": "Edema"},
        {"d": {}, "b": {"findings": ["Edema"]}, "a": {"manifest": "/other.csv"}},
    )
    assert changed_settings(old, new) == [
        "cache: was not set, is '/cache'",
        "findings.aliases.Oedema: was not set, is 'Edema'",
        "site a: manifest: was '/a.csv', is '/other.csv'",
        "site b: findings: was not set, is ['Edema']",
        "site b: train_images: was 3, is not set",
        "site c: removed",
        "site d: added",
        "training.learning_rate: was 0.001, is 0.01",
    ]
