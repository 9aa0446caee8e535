"""Sites whose own set-up breaks after they joined: the others go on, and the report names who did not take part."""

import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from polyhead.deployment.gathering import gather
from polyhead.flare.layout import SITE_FILE, local_folder
from polyhead.flare.supervisor import Patience
from tests.deployment.houses_by_hand import differences, simulated, write_study
from tests.flare.houses import Houses, build, ended, federation, one_thread, wait_until
from tests.flare.identity import output, wait_for

pytestmark = pytest.mark.slow
ROUNDS = 2


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Houses]:
    """A federation in which b's own file names no manifest that is there, and what c's engine reads is damaged."""
    folder = tmp_path_factory.mktemp("broken")
    # c's process never begins, for which it is waited twice.
    patience = Patience(sites=60, deadline=25, silence=20, start=120)
    study = write_study(folder, ROUNDS, settings="min_sites = 1")
    with one_thread(), ended(build(folder, study, patience)) as houses:
        files = {
            local_folder(houses.kits.sites["b"]) / SITE_FILE: 'manifest = "absent/manifest.csv"\n',
            local_folder(houses.kits.sites["c"]) / "resources.json": '{"components": [',
        }
        whole = {file: file.read_text() for file in files}
        houses.start("server", *"abc")
        for site in "abc":
            wait_for(f"site {site} is in", lambda site=site: "Successfully" in output(houses.kits.sites[site]), 300)
        for file, text in files.items():
            file.write_text(text)
        with federation(houses, 0, ROUNDS, ROUNDS):
            wait_until(houses, 0, ROUNDS)
            for file, text in whole.items():
                file.write_text(text)
        yield houses


def test_the_others_go_on(broken: Houses, tmp_path: Path) -> None:
    assert broken.rounds_done(0) == ROUNDS
    absent = broken.absent(0)
    assert absent == {(round_, site) for round_ in range(ROUNDS) for site in "bc"}
    wanted, found = simulated(broken.study, tmp_path, absent), broken.state(0)
    # The states with which b and c began are nobody's file yet.
    assert not differences((wanted[0], {"a": wanted[1]["a"]}), (found[0], {"a": found[1]["a"]}))


def test_the_report_names_who_did_not_take_part_and_why(broken: Houses, tmp_path: Path) -> None:
    page = gather(broken.agreed, broken.post.states, tmp_path / "out")
    rows = pl.read_csv(tmp_path / "out" / "rounds.csv").filter(pl.col("round") == 0)
    status = dict(zip(rows["site"], rows["status"], strict=True))
    assert status["a"] == "averaged"
    assert status["b"].startswith("failed: ManifestError.")
    assert "/" not in status["b"]
    # Whichever comes first: the deadline, or the engine's word that c's process is not there.
    assert status["c"].startswith(("failed: no answer within 25 s.", "failed: it gives no sign of life."))
    for site, why in {"b": "failed: ManifestError", "c": status["c"]}.items():
        assert re.search(f"{site}</td>.*{re.escape(why)}", page.read_text())


def test_once_mended_they_finish(broken: Houses) -> None:
    last = {event["site"]: event["event"] for event in broken.events(0) if "finished" in event["event"]}
    assert last == dict.fromkeys("abc", "finished")
