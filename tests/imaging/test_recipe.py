"""The presets, and what a study and the command line say about them."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import get_args

import pytest

from polyhead.config import Pixels
from polyhead.errors import StudyError
from polyhead.imaging.recipe import RECIPES, STANDARD, Preset, Recipe, make_recipe
from polyhead.sites import recipe_of
from polyhead.study_file import parse_study

STUDY = """
name = "a"
[[site]]
name = "a"
manifest = "a/manifest.csv"
[pixels]
"""


def allowed(annotation: object) -> set[str]:
    """The words of a Literal, alone or beside None."""
    return {word for part in (annotation, *get_args(annotation)) for word in get_args(part) if isinstance(word, str)}


def test_a_study_offers_exactly_the_choices_there_are() -> None:
    """The study file's schema knows no imaging; this holds the two together."""
    for choice in fields(Recipe):
        assert allowed(Pixels.model_fields[choice.name].annotation) == set(get_args(choice.type)), choice.name
        assert Pixels.model_fields[choice.name].default is None
    assert allowed(Pixels.model_fields["recipe"].annotation) == set(RECIPES) == set(get_args(Preset))
    assert {choice.name for choice in fields(Recipe)} | {"recipe"} == set(Pixels.model_fields)


def test_a_study_without_pixels_uses_the_standard_recipe(tmp_path: Path) -> None:
    assert recipe_of(parse_study(STUDY.replace("[pixels]", ""), tmp_path, "s")) == STANDARD
    assert RECIPES["standard"] == STANDARD == Recipe()


@pytest.mark.parametrize("preset", list(RECIPES))
@pytest.mark.parametrize(("choice", "word"), [(c.name, w) for c in fields(Recipe) for w in get_args(c.type)])
def test_a_change_changes_one_choice_of_the_preset(preset: Preset, choice: str, word: str) -> None:
    changed = make_recipe(preset, {choice: word, "frames" if choice != "frames" else "colour": None})
    assert asdict(changed) == {**asdict(RECIPES[preset]), choice: word}


def test_a_study_changes_one_choice_of_the_preset(tmp_path: Path) -> None:
    study = parse_study(STUDY + 'recipe = "paper"\naspect = "crop"', tmp_path, "s")
    assert recipe_of(study) == Recipe("crop", "minmax", "histogram")


def test_a_wrong_choice_is_refused_with_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"key 'pixels\.aspect': found 'fill'; .*'pad', 'crop' or 'stretch'"):
        parse_study(STUDY + 'aspect = "fill"', tmp_path, "s")
    with pytest.raises(StudyError, match=r"unknown key 'pixels\.equalise'; .*equalize"):
        parse_study(STUDY + 'equalise = "clahe"', tmp_path, "s")
