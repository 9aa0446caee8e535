"""Hospitals in houses of their own, with weights that travel in half precision: the same files as in one place."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from polyhead.deployment.coordinator import EVENTS, Segment, run_segment
from polyhead.deployment.events import read_events
from polyhead.deployment.leaving import what_leaves
from polyhead.deployment.question import Question
from polyhead.federation.transfer import narrowed
from polyhead.outputs import output_files
from polyhead.study import run_study
from tests.deployment.houses_by_hand import (
    agreed_in,
    carry_home,
    carry_to,
    differences,
    open_all,
    run_all,
    simulated,
    state_of,
    write_study,
)

QUIET = Console(quiet=True)
HALF = 'transfer = "half"\n'


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"), 2, sites="ab", settings=HALF)


def test_in_segments_with_a_lost_answer_it_equals_simulate(study: Path, tmp_path: Path) -> None:
    agreed, asked, lost = agreed_in(study), list[Question](), {(1, "b")}
    for until in (1, 2):
        carry = carry_to(open_all(study, agreed, tmp_path), asked, lost=lost)
        run_segment(agreed, Segment(f"to {until}", "ffl", 0, until), tmp_path / "server", carry)
    found = state_of(agreed, tmp_path / "server", {site: tmp_path / site for site in "ab"})
    assert not differences(simulated(study, tmp_path / "simulated", absent=lost), found)
    weights = [question.shared["backbone.conv1.weight"] for question in asked]
    assert {one.dtype for one in weights} == {torch.float16}


def test_models_predictions_and_bytes_are_those_of_a_run_in_one_place(study: Path, tmp_path: Path) -> None:
    agreed = agreed_in(study)
    run_study(study, tmp_path / "run", QUIET)
    run_all(agreed, tmp_path / "server", carry_home(study, agreed, tmp_path))
    for site in "ab":
        home, where = tmp_path / site / "run", ("ffl", "seed-0", site)
        for file in output_files(home.joinpath("models", *where), home.joinpath("predictions", *where)):
            assert file.read_bytes() == (tmp_path / "run" / file.relative_to(home)).read_bytes(), file
    events = read_events(tmp_path / "server" / "ffl" / "seed-0" / EVENTS)
    told = [
        (row["bytes_up"], row["bytes_down"]) for event in events if event["event"] == "round" for row in event["rows"]
    ]
    # And what a site was told before it joined.
    assert {up for up, _ in told} == {leaving.bytes for leaving in what_leaves(agreed)}
    rounds = pl.read_csv(tmp_path / "run" / "rounds.csv")
    assert told == list(rounds.select("bytes_up", "bytes_down").iter_rows())


@pytest.mark.parametrize("settings", ["", 'select = "best"\nvalidate_every = 1\n'])
def test_a_sites_model_is_what_it_would_receive(settings: str, tmp_path: Path) -> None:
    file = write_study(tmp_path, 2, sites="a", settings=HALF + settings)
    run_study(file, tmp_path / "run", QUIET)
    folder = tmp_path / "run" / "models" / "ffl" / "seed-0" / "a"
    backbone = load_file(folder / "backbone.safetensors")
    assert all(
        torch.equal(tensor.float(), backbone[name].float()) for name, tensor in narrowed(backbone, "half").items()
    )
    # The private head does not travel.
    head = load_file(folder / "head.safetensors")["weight"]
    assert head.dtype == torch.float32
    assert not torch.equal(head, head.half().float())
    assert json.loads((folder / "model.json").read_text())["rounds"] in (1, 2)
