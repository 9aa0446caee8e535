"""Small promises of a house and of the server that asks it: said once, refused early, not asked twice."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl
import pytest

from polyhead.deployment.agreed import Agreed
from polyhead.deployment.coordinator import EVENTS, Segment, run_segment, store_of
from polyhead.deployment.events import append_event, read_events
from polyhead.deployment.gathering import gather
from polyhead.deployment.hospital import open_hospital, take_part
from polyhead.deployment.question import Question, Reply
from polyhead.deployment.results import run_evaluation
from polyhead.errors import StudyError, UpdateError
from polyhead.federation.snapshot_manifest import manifest_path
from tests.deployment.houses_by_hand import agreed_in, carry_home, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hospital c has but one image to train on."""
    file = write_study(tmp_path_factory.mktemp("study"), 3)
    file.write_text(file.read_text().replace('c/manifest.csv"\n', 'c/manifest.csv"\ntrain_images = 1\n'))
    return file


@pytest.fixture
def agreed(study: Path) -> Agreed:
    return agreed_in(study)


def test_a_site_without_training_images_is_told_of_once_and_asked_for_no_round(
    study: Path, agreed: Agreed, tmp_path: Path
) -> None:
    asked: list[tuple[str, str]] = []
    home = carry_home(study, agreed, tmp_path)

    def carry(questions: Mapping[str, Question]) -> Iterator[Reply]:
        asked.extend((site, question.kind) for site, question in questions.items())
        return home(questions)

    for until in (1, 2):
        run_segment(agreed, Segment(str(until), "ffl", 0, until), tmp_path / "server", carry)
    assert [kind for site, kind in asked if site == "c"] == ["join", "join"]
    events = read_events(tmp_path / "server/ffl/seed-0" / EVENTS)
    assert [row["site"] for event in events if event["event"] == "idle" for row in event["rows"]] == ["c"]


def test_a_site_without_training_images_refuses_a_round(study: Path, agreed: Agreed, tmp_path: Path) -> None:
    carry_home(study, agreed, tmp_path)
    hospital = open_hospital(agreed, "c", study.with_name("c-own.toml"), tmp_path, "ffl", 0)
    with pytest.raises(UpdateError, match="no training images"):
        take_part(hospital, Question(agreed.sha256, "ffl", 0, 0, 0, (), {}))


def test_a_mistake_in_what_may_leave_shows_before_any_training(study: Path, agreed: Agreed, tmp_path: Path) -> None:
    file = study.with_name("mistaken.toml")
    file.write_text('manifest = "a/manifest.csv"\n[release]\nleast = -1\n')
    with pytest.raises(StudyError, match=r"release\.least"):
        open_hospital(agreed, "a", file, tmp_path, "ffl", 0)


def test_a_round_that_was_done_twice_is_told_once(study: Path, agreed: Agreed, tmp_path: Path) -> None:
    server, carry = tmp_path / "server", carry_home(study, agreed, tmp_path)
    run_segment(agreed, Segment("1", "ffl", 0, 2), server, carry)
    manifest_path(store_of(agreed, server, "ffl", 0).folder, 2).unlink()
    run_segment(agreed, Segment("2", "ffl", 0, 3), server, carry)
    events = read_events(server / "ffl/seed-0" / EVENTS)
    assert [event["round"] for event in events if event["event"] == "round"] == [0, 1, 1, 2]
    gather(agreed, server, tmp_path / "out")
    rounds = pl.read_csv(tmp_path / "out/rounds.csv")
    assert rounds.filter(pl.col("site") == "a")["round"].to_list() == [0, 1, 2]
    assert rounds.filter(pl.col("site") == "c")["status"].to_list() == ["no training images"]


def test_that_a_site_does_not_train_is_still_told_where_the_first_segment_died_before_a_round_counted(
    study: Path, agreed: Agreed, tmp_path: Path
) -> None:
    server, carry = tmp_path / "server", carry_home(study, agreed, tmp_path)
    run_segment(agreed, Segment("1", "ffl", 0, 1), server, carry)
    events = store_of(agreed, server, "ffl", 0).folder / EVENTS
    append_event(events, {"event": "begun", "segment": "2", "rounds_done": 0})
    gather(agreed, server, tmp_path / "out")
    rounds = pl.read_csv(tmp_path / "out/rounds.csv")
    assert rounds.select("site", "status").rows() == [("c", "no training images")]


def test_who_has_released_is_not_asked_again(study: Path, agreed: Agreed, tmp_path: Path) -> None:
    asked: list[str] = []
    server = tmp_path / "server"
    run_segment(agreed, Segment("1", "ffl", 0, 3), server, carry_home(study, agreed, tmp_path))
    for away in (("b",), ()):
        home = carry_home(study, agreed, tmp_path, away)

        def carry(questions: Mapping[str, Question], home: object = home) -> Iterator[Reply]:
            asked.append("".join(questions))
            return home(questions)  # type: ignore[operator, no-any-return]

        run_evaluation(agreed, "evaluation", server, carry)
    assert asked == ["abc", "b"]
