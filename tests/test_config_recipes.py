"""Recipes: the study's own words win, and a recipe spelled out is the recipe."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.config import StudyConfig
from polyhead.config_recipes import RECIPES, settings_under
from polyhead.deployment.agreed import agreement_of
from polyhead.deployment.house_file import differences
from polyhead.errors import StudyError
from polyhead.federation.run_dir import open_run
from polyhead.study_file import changed_settings, load_study, parse_study
from tests.deployment.houses_by_hand import agreed_in

SITE = '[[site]]\nname = "a"\nmanifest = "a/manifest.csv"\n'
PAPER = f'name = "x"\nrecipe = "paper"\n{SITE}'
SPELLED_OUT = f"""name = "x"
{SITE}
[pixels]
recipe = "paper"
[model]
backbone = "resnet50"
image_size = 512
[federation]
local_steps = 1
weighting = "equal"
batch_norm = "shared"
[training]
batch_size = 8
learning_rate = 5e-5
weight_decay = 0
schedule = "constant"
optimizer_state = "reset"
[training.augment]
rotation = 10
shift = 0
scale = 0
contrast = 0
noise = 0
flip = 0.5
"""


def parse(text: str) -> StudyConfig:
    return parse_study(text, Path("/studies"), "study.toml")


def test_the_papers_recipe_is_what_its_authors_did_and_spelled_out_it_is_the_same() -> None:
    paper, spelled = parse(PAPER), parse(SPELLED_OUT)
    assert changed_settings(paper, spelled) == []
    assert changed_settings(spelled, paper) == []
    assert paper.model_dump(exclude={"recipe"}) == spelled.model_dump(exclude={"recipe"})
    assert paper.recipe == "paper"
    # And it is another study than the defaults.
    assert len(changed_settings(parse(f'name = "x"\n{SITE}'), paper)) == 15


def test_the_study_wins_over_its_recipe_key_by_key() -> None:
    study = parse(f"{PAPER}[training]\nbatch_size = 12\n[training.augment]\nflip = 0.0\n[model]\nimage_size = 64\n")
    assert (study.training.batch_size, study.training.learning_rate) == (12, 5e-5)
    assert (study.training.augment.flip, study.training.augment.rotation) == (0.0, 10.0)
    assert (study.model.image_size, study.model.backbone) == (64, "resnet50")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('recipe = "papr"', "key 'recipe': found 'papr'; Input should be 'standard' or 'paper'"),
        ("recipe = 3", "key 'recipe': found 3"),
        ("recipe = ['paper']", "key 'recipe': found ['paper']"),
        ('recipe = "paper"\nmodel = 3', "key 'model'"),
        ('recipe = "paper"\ntraining = {augment = "none"}', "key 'training.augment'"),
        ('recipe = "paper"\ntraining = {bach_size = 3}', "unknown key 'training.bach_size'; closest: batch_size"),
        ('recipe = "paper"\nprivacy = {noise = 1.0}', "set norm = 'group'"),
    ],
)
def test_what_is_wrong_beside_a_recipe_is_said_as_ever(text: str, message: str) -> None:
    with pytest.raises(StudyError) as problem:
        parse(f'name = "x"\n{text}\n{SITE}')
    assert message in str(problem.value)


TREES = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
).filter(lambda tree: isinstance(tree, dict))


def leaves(tree: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    if not isinstance(tree, dict):
        return {path: tree}
    return {where: value for key, inner in tree.items() for where, value in leaves(inner, (*path, key)).items()}


@given(TREES, TREES)
def test_of_any_two_trees_what_is_said_stays_and_the_rest_is_added(
    said: dict[str, Any], recipe: dict[str, Any]
) -> None:
    before = repr((said, recipe))
    merged = settings_under(said, recipe)
    assert repr((said, recipe)) == before
    assert leaves(said).items() <= leaves(merged).items() <= leaves(recipe).items() | leaves(said).items()
    assert merged.keys() == said.keys() | recipe.keys()
    assert settings_under(merged, recipe) == merged
    assert (settings_under({}, recipe), settings_under(said, {})) == (recipe, said)


def test_a_run_goes_on_with_its_recipe_spelled_out(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(PAPER)
    with open_run(tmp_path / "run", tmp_path / "study.toml"):
        pass
    assert (tmp_path / "run/study.toml").read_text() == PAPER
    (tmp_path / "study.toml").write_text(SPELLED_OUT)
    with open_run(tmp_path / "run", tmp_path / "study.toml") as opened:
        assert opened.known


def test_hospitals_agree_on_what_a_recipe_sets(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(PAPER)
    paper, agreed = load_study(file), agreed_in(file)
    file.write_text(SPELLED_OUT)
    assert agreement_of(load_study(file)) == agreement_of(paper)
    assert agreed_in(file).sha256 == agreed.sha256
    assert differences(agreed, load_study(file)) == differences(agreed, paper) == []
    assert agreed.settings["training"]["learning_rate"] == 5e-5
    file.write_text(f'name = "x"\n{SITE}')
    assert any("backbone" in one for one in differences(agreed, load_study(file)))


def test_every_recipe_is_known_by_name() -> None:
    for name, recipe in RECIPES.items():
        assert parse(f'name = "x"\nrecipe = "{name}"\n{SITE}').recipe == name
        assert settings_under({}, recipe) == recipe
