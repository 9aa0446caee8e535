"""A whole study of hospitals in houses of their own: three methods from initial weights, which travel in half
precision; each hospital's best state, the evaluation at home, and the report.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from polyhead.deployment.audit import verify
from polyhead.flare.layout import AUDIT, RUN, SITE_FILE, local_folder
from polyhead.flare.supervisor import run_study
from polyhead.manifest import read_manifest
from polyhead.outputs import output_files
from polyhead.study import run_study as run_in_one_place
from polyhead.study_file import load_study
from tests.deployment.houses_by_hand import write_study, write_weights
from tests.flare.houses import PATIENCE, Houses, one_thread, open_houses

pytestmark = pytest.mark.slow
ROUNDS, METHODS = 3, ("local", "conventional", "ffl")
SETTINGS = 'transfer = "half"\nfinetune = "head"\nfinetune_steps = 2\nvalidate_every = 1\nselect = "best"'
# One finding for all three.
COMMON = '[findings]\naliases = {Edema = "Cardiomegaly"}\ncommon = ["cardiomegaly"]\n'


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Houses]:
    folder = tmp_path_factory.mktemp("houses")
    study = write_study(folder, ROUNDS, settings=SETTINGS, test=18)
    study.write_text(study.read_text().replace('methods = ["ffl"]', f"methods = {list(METHODS)}") + COMMON)
    write_weights(study)
    with one_thread(), open_houses(folder, study) as opened:
        for site, text in {"a": "least = 2", "b": "least = 2", "c": 'metrics = "nothing"'}.items():
            with (local_folder(opened.kits.sites[site]) / SITE_FILE).open("a") as file:
                file.write(f"[release]\n{text}\n")
        yield opened


def test_a_study_runs_to_its_report_and_what_is_done_is_not_done_again(houses: Houses, tmp_path: Path) -> None:
    told: list[Mapping[str, Any]] = []
    page = run_study(houses.post, houses.agreed, tmp_path / "out", PATIENCE, None, told.append)
    run_in_one_place(houses.study, tmp_path / "run", Console(quiet=True))
    for site, kit in houses.kits.sites.items():
        for where in ((method, "seed-0", site) for method in METHODS):
            home = kit / RUN
            for file in output_files(home.joinpath("models", *where), home.joinpath("predictions", *where)):
                assert file.read_bytes() == (tmp_path / "run" / file.relative_to(home)).read_bytes(), file
    found = [json.loads(file.read_text())["rounds"] for file in (tmp_path / "run").glob("models/*/*/*/model.json")]
    assert any(rounds < ROUNDS for rounds in found), "every site's best is the last: choose another seed"
    kinds = Counter((event.get("method"), event["event"]) for event in told)
    for method in METHODS:
        assert (kinds[method, "round"], kinds[method, "finished"], kinds[method, "ended"]) == (ROUNDS, 3, 1)
    assert kinds[None, "released"] == 3
    assert set(pl.read_csv(tmp_path / "out" / "metrics.csv")["site"]) == {"a", "b"}
    text = page.read_text()
    assert "<b>c</b> has released nothing." in text
    for site in load_study(houses.study).site:
        frame = read_manifest(site.manifest).frame
        assert not [word for word in {*frame["patient_id"], *frame["image"]} if word in text]
    # Whether it trains, the rounds, the end, for each method; then the evaluation.
    messages = len(METHODS) * (1 + ROUNDS + 1) + 1
    assert verify(houses.kits.sites["a"] / AUDIT).messages == {"in": messages, "out": messages}
    assert '"finding": "Edema"' in (houses.kits.sites["b"] / AUDIT).read_text()

    told.clear()
    assert run_study(houses.post, houses.agreed, tmp_path / "out", PATIENCE, None, told.append) == page
    assert not told
    assert page.read_text() == text
