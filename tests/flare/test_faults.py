"""A site that fails, one that is late, one that holds another agreement: one federation, told apart by its events."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from polyhead.flare.layout import AGREEMENT, local_folder
from polyhead.flare.supervisor import Patience
from tests.deployment.houses_by_hand import differences, simulated, write_study
from tests.flare.houses import Houses, build, ended, federation, one_thread, wait_until
from tests.flare.identity import output, wait_for

pytestmark = pytest.mark.slow
LENGTH = 4
ROUNDS = 3 * LENGTH


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Houses]:
    """Three segments: c cannot read its images, b is not there; c holds another agreement, b is there; all is well."""
    folder = tmp_path_factory.mktemp("troubled")
    # The first segment does not wait long for b, the second long enough.
    patience = Patience(sites=15, deadline=60, silence=8, start=90)
    study = write_study(folder, ROUNDS, settings="min_sites = 1")
    with one_thread(), ended(build(folder, study, patience)) as houses:
        images, agreement = folder / "c" / "images", local_folder(houses.kits.sites["c"]) / AGREEMENT
        houses.start("server", "a", "c")
        for site in "ac":
            wait_for(f"site {site} is in", lambda site=site: "Successfully" in output(houses.kits.sites[site]))
        hidden, true = images.rename(folder / "hidden"), agreement.read_text()
        with federation(houses, 0, ROUNDS, LENGTH):
            wait_until(houses, 0, 1)
            # Read by the next process of c.
            agreement.write_text(true.replace('"local_steps": 1', '"local_steps": 2'))
            houses.start("b")
            wait_until(houses, 0, LENGTH)
            hidden.rename(images)
            wait_until(houses, 0, LENGTH + 1)
            agreement.write_text(true)
        yield houses


def statuses(houses: Houses, site: str, segment: int) -> set[str]:
    """What the events say of a site in a segment, the first being 0."""
    rounds = range(segment * LENGTH, (segment + 1) * LENGTH)
    rows = [row for event in houses.events(0) if event["event"] == "round" for row in event["rows"]]
    return {row["status"] for row in rows if row["site"] == site and row["round"] in rounds}


def test_a_site_that_fails_says_why_and_what_to_do_without_a_path(troubled: Houses) -> None:
    (status,) = statuses(troubled, "c", 0)
    assert "an image or the pixel cache cannot be read. Run `polyhead check` at the site." in status
    assert "/" not in status


def test_a_late_site_counts_from_the_next_segment_on(troubled: Houses) -> None:
    (status,) = statuses(troubled, "b", 0)
    assert "was not connected when the segment began" in status
    assert statuses(troubled, "b", 1) == {"averaged"}


def test_a_site_whose_agreement_differs_is_left_out_naming_both(troubled: Houses) -> None:
    (status,) = statuses(troubled, "c", 1)
    assert f"the server's study is {troubled.agreed.sha256[:12]}, this site's is " in status


def test_once_all_is_well_all_count(troubled: Houses) -> None:
    assert all(statuses(troubled, site, 2) == {"averaged"} for site in "abc")
    assert statuses(troubled, "a", 0) == statuses(troubled, "a", 1) == {"averaged"}


def test_it_equals_simulate_with_the_same_absences(troubled: Houses, tmp_path: Path) -> None:
    absent = troubled.absent(0)
    assert absent == {(round_, site) for round_ in range(LENGTH) for site in "bc"} | {
        (round_, "c") for round_ in range(LENGTH, 2 * LENGTH)
    }
    assert not differences(simulated(troubled.study, tmp_path, absent), troubled.state(0))
