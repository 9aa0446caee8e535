"""A site's own settings arrive in its kit as they were written, and a study that differs is told by its keys."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.config import Federation
from polyhead.deployment.agreed import Agreed, agreement_of, read_agreement
from polyhead.deployment.house_file import differences, own_text, read_common_study
from polyhead.errors import StudyError

STUDY = 'name = "s"\n[[site]]\nname = "b"\n[[site]]\nname = "a"\nmanifest = "a/manifest.csv"\n'
plain = st.text(st.characters(exclude_categories=("Cs",)))


def agreed_on(text: str, folder: Path) -> Agreed:
    (folder / "study.toml").write_text(text)
    (folder / "agreement.json").write_text(agreement_of(read_common_study(folder / "study.toml")))
    return read_agreement(folder / "agreement.json")


@given(st.lists(plain, min_size=1), st.integers(1, 99), plain.filter(bool))
def test_settings_are_kept(findings: list[str], images: int, word: str) -> None:
    own = {"findings": findings, "train_images": images, "release": {"metrics": word, "least": images}}
    assert tomllib.loads(own_text(own, Path())) == own


def test_paths_are_made_whole_and_whole_ones_stay(tmp_path: Path) -> None:
    text = own_text({"manifest": "ours/manifest.csv", "cache": "/scratch"}, tmp_path)
    assert tomllib.loads(text) == {"manifest": str(tmp_path / "ours" / "manifest.csv"), "cache": "/scratch"}


def test_where_a_site_has_its_data_is_no_part_of_what_is_agreed(tmp_path: Path) -> None:
    one = agreed_on(STUDY, tmp_path)
    other = agreed_on(STUDY.replace('manifest = "a/manifest.csv"', 'manifest = "b.csv"\ntrain_images = 3'), tmp_path)
    assert one == other
    assert one.sites == ("a", "b")


@pytest.mark.parametrize(
    ("was", "is_", "said"),
    [
        ("", "", []),
        ("", "[federation]\nrounds = 3\n", [f"federation.rounds: was {Federation().rounds}, is 3"]),
        ("", '[[site]]\nname = "c"\n', ["site c: added"]),
        ("[training]\nbatch_size = 8\n", "", ["training.batch_size: was 8, is 32"]),
    ],
)
def test_a_study_that_differs_is_told_by_its_keys(was: str, is_: str, said: list[str], tmp_path: Path) -> None:
    agreed = agreed_on(STUDY + was, tmp_path)
    (tmp_path / "now.toml").write_text(STUDY + is_)
    assert differences(agreed, read_common_study(tmp_path / "now.toml")) == said


@pytest.mark.parametrize("text", ["", "site = 3", "site = [3]", 'name = "s"\nsite = []', "[[site]]\nnmae = 3"])
def test_what_is_no_study_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(StudyError):
        read_common_study(tmp_path / "study.toml")
