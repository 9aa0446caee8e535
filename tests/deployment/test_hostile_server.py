"""A server that asks for what the study does not hold costs a site nothing: no disk, no state, no early end."""

from pathlib import Path

import pytest
import torch

from polyhead.deployment.agreed import Agreed
from polyhead.deployment.coordinator import Segment, run_segment
from polyhead.deployment.finishing import answer
from polyhead.deployment.hospital import Hospital
from polyhead.deployment.question import Question
from polyhead.errors import StudyError, UpdateError
from polyhead.federation.start import part_model
from tests.deployment.houses_by_hand import agreed_in, carry_to, open_all, write_study

ROUNDS = 2


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"), ROUNDS)


@pytest.fixture
def agreed(study: Path) -> Agreed:
    return agreed_in(study)


@pytest.fixture
def hospital(study: Path, agreed: Agreed, tmp_path: Path) -> Hospital:
    """Site a, after both rounds."""
    hospitals = open_all(study, agreed, tmp_path)
    run_segment(agreed, Segment("one", "ffl", 0, ROUNDS), tmp_path / "server", carry_to(hospitals, []))
    return hospitals["a"]


def question(hospital: Hospital, kind: str, round_: int, own: int) -> Question:
    shared: dict[str, torch.Tensor] = part_model(hospital.model, hospital.plan.sharing)[0]
    return Question(hospital.agreed.sha256, "ffl", 0, round_, own, (), shared, kind)


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("kind", "round_", "own"),
    [
        ("round", ROUNDS, ROUNDS),
        ("round", 10**9, 0),
        ("round", 0, 1),
        ("finish", ROUNDS - 1, ROUNDS - 1),
        ("finish", ROUNDS + 1, ROUNDS),
    ],
)
def test_what_no_server_of_the_study_asks_is_refused_and_nothing_is_written(
    kind: str, round_: int, own: int, hospital: Hospital, tmp_path: Path
) -> None:
    before = files_in(tmp_path)
    with pytest.raises(UpdateError, match=f"about round {round_}, with a state after {own} rounds, of {ROUNDS}"):
        answer(hospital, question(hospital, kind, round_, own), tmp_path / "run")
    assert files_in(tmp_path) == before


def test_no_question_takes_a_sites_newest_state_away(hospital: Hospital, tmp_path: Path) -> None:
    newest = hospital.states.folder / "sites" / "a" / f"private-{ROUNDS}.safetensors"
    before = newest.read_bytes()
    answer(hospital, question(hospital, "round", 0, 0), tmp_path / "run")
    assert newest.read_bytes() == before


@pytest.mark.parametrize(("method", "seed"), [("../../elsewhere", 0), ("ffl", 7)])
def test_a_segment_of_what_is_not_in_the_study_makes_no_folder(
    method: str, seed: int, agreed: Agreed, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match="is not in the study"):
        run_segment(agreed, Segment("one", method, seed, ROUNDS), tmp_path / "a" / "b", carry_to({}, []))
    assert not list(tmp_path.iterdir())
