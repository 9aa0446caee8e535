"""What becomes of a training's last and best states: which of them a site gets, and whose failure costs whom what."""

import errno
import json
import logging
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from polyhead import job as job_module
from polyhead.errors import CacheError, DiskError, PolyheadError, RunError
from polyhead.evaluation import evaluate_run
from polyhead.federation import site as site_module
from polyhead.federation.methods import METHODS
from polyhead.outputs import write_outputs
from polyhead.study import run_study
from polyhead.training.local import train_locally
from tests.conftest import TINY_SETTINGS, write_two_sites

QUIET = Console(quiet=True)
BEST = TINY_SETTINGS.replace("rounds = 2", 'rounds = 4\nvalidate_every = 1\nselect = "best"')
TUNED = TINY_SETTINGS.replace("local_steps = 1", 'local_steps = 1\nfinetune = "head"\nfinetune_steps = 1')
# Of rounds 1 to 4. Of two that are equal, the earlier; a site without an AUROC gets the last.
SCORES: dict[str, list[float | None]] = {"a": [0.1, 0.7, 0.7, 0.2], "b": [0.9, 0.8, 0.1, 0.85]}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("job")
    return folder, write_two_sites(folder, 16, 8, 8)


def study(sites: tuple[Path, str], name: str, methods: str, settings: str) -> tuple[Path, Path]:
    folder, part = sites
    file = folder / f"{name}.toml"
    file.write_text(f'name = "job"\nmethods = [{methods}]\n{part}{settings}')
    return file, folder / name


class Seen:
    """Notes what is validated, and answers by the script."""

    def __init__(self, scores: dict[str, list[float | None]]) -> None:
        self.scores = scores
        self.states: dict[str, list[dict[str, torch.Tensor]]] = {"a": [], "b": []}

    def __call__(self, model: Any, site: Any) -> float | None:
        states = self.states[site.name]
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return self.scores[site.name][len(states) - 1]


def final(run: Path, method: str, site: str) -> dict[str, torch.Tensor]:
    folder = run / f"models/{method}/seed-0/{site}"
    parts = {part: load_file(folder / f"{part}.safetensors") for part in ("backbone", "head")}
    return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def rounds_of(run: Path, method: str, site: str) -> int:
    return int(json.loads((run / f"models/{method}/seed-0/{site}/model.json").read_text())["rounds"])


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("method", ["local", "ffl"])
def test_each_site_gets_the_state_that_is_best_on_its_own_validation_images(
    method: str, sites: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(SCORES)
    monkeypatch.setattr(job_module, "validation_auroc", seen)
    file, run = study(sites, f"best-{method}", f'"{method}"', BEST)
    run_study(file, run, QUIET)
    for site, rounds in {"a": 2, "b": 1}.items():
        assert rounds_of(run, method, site) == rounds
        assert same(final(run, method, site), seen.states[site][rounds - 1])
        assert not same(final(run, method, site), seen.states[site][3])


def test_a_site_without_a_validation_auroc_gets_the_last_state_and_is_named(
    sites: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen({**SCORES, "b": [None] * 4})
    monkeypatch.setattr(job_module, "validation_auroc", seen)
    file, run = study(sites, "none", '"ffl"', BEST)
    run_study(file, run, QUIET)
    assert (rounds_of(run, "ffl", "a"), rounds_of(run, "ffl", "b")) == (2, 4)
    assert same(final(run, "ffl", "b"), seen.states["b"][3])
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "ffl, seed 0, site b: has no validation AUROC; it gets the last state." in told


def failing_at(site: str, error: Exception) -> Any:
    def outputs(at: Any, *rest: Any) -> None:
        if at.name == site:
            raise error
        write_outputs(at, *rest)

    return outputs


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (CacheError("pixels.npy: is cut off."), r"site a: pixels\.npy: is cut off"),
        (KeyError("patient 17"), r"site a: KeyError\. The site's log, run\.log or its kit's log\.txt, tells more"),
    ],
)
def test_a_site_that_fails_at_the_end_does_not_cost_the_others_their_results(
    error: Exception, told: str, sites: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, run = study(sites, f"fails-{type(error).__name__}", '"ffl"', TUNED)
    with monkeypatch.context() as patch:
        patch.setattr(job_module, "write_outputs", failing_at("a", error))
        with pytest.raises(
            RunError, match=rf"ffl, seed 0: after the last round 1 of 2 sites failed\. {told}"
        ) as caught:
            run_study(file, run, QUIET)
    assert "17" not in str(caught.value)
    assert type(error).__name__ in (run / "run.log").read_text()
    assert (run / "predictions/ffl/seed-0/b/test.parquet").is_file()
    # With the cause gone the same command ends as if nothing had been, and no row stands twice.
    run_study(file, run, QUIET)
    other = study(sites, f"whole-{type(error).__name__}", '"ffl"', TUNED)
    run_study(*other, QUIET)
    for site in "ab":
        assert same(final(run, "ffl", site), final(other[1], "ffl", site))
    lines = [(run / "rounds.csv").read_text(), (other[1] / "rounds.csv").read_text()]
    assert len({text.count("\n") for text in lines}) == 1


def test_a_full_disk_at_the_end_is_not_taken_for_a_sites_failure(
    sites: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, run = study(sites, "full", '"ffl"', TINY_SETTINGS)
    monkeypatch.setattr(job_module, "write_outputs", failing_at("a", DiskError("the disk is full")))
    with pytest.raises(DiskError):
        run_study(file, run, QUIET)


def test_fine_tuning_that_diverges_leaves_no_model(sites: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def diverging(site: Any, model: Any, *rest: Any) -> float:
        if site.name == "b":
            with torch.no_grad():
                model.head.bias[0] = math.nan
        return 0.5

    monkeypatch.setattr(job_module, "finetune", diverging)
    file, run = study(sites, "diverged", '"ffl"', TUNED)
    what = r"site b: fine-tuning diverged: head\.bias is not finite\. Lower training\.learning_rate or finetune_steps"
    with pytest.raises(RunError, match=what):
        run_study(file, run, QUIET)
    assert not (run / "models/ffl/seed-0/b/model.json").exists()
    assert re.search("fine-tuning diverged", (run / "run.log").read_text())
    assert (run / "models/ffl/seed-0/a/model.json").is_file()


@pytest.mark.parametrize("file", ["state/ffl/seed-0/done.json", "predictions/ffl/seed-0/b/test.parquet"])
def test_a_finished_training_is_not_thrown_away_because_a_file_cannot_be_read_now(
    file: str, sites: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study_file, run = study(sites, f"unread-{Path(file).stem}", '"ffl"', TINY_SETTINGS)
    run_study(study_file, run, QUIET)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.suffix in (".safetensors", ".parquet")}
    real = os.open

    def fails(path: Any, *about: Any, **more: Any) -> int:
        if str(path) == str(run / file):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path, *about, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fails)
        with pytest.raises(RunError, match=re.escape(f"{file}: cannot be read (Too many open files)")):
            run_study(study_file, run, QUIET)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    run_study(study_file, run, QUIET)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_was_damaged_is_gone_before_it_is_made_again(
    sites: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a number could be computed from it while, or after, the new training is cut off."""
    study_file, run = study(sites, "again", '"ffl"', TINY_SETTINGS)
    run_study(study_file, run, QUIET)
    predictions = run / "predictions/ffl/seed-0/a/test.parquet"
    predictions.write_bytes(predictions.read_bytes()[:-1] + b"?")

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job_module, "_train", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_study(study_file, run, QUIET)
    assert not predictions.exists()
    with pytest.raises(PolyheadError, match="predictions"):
        evaluate_run(run, 10, ["ffl"])


# `central` trains one model on the pooled data: it has no steps of a site.
@pytest.mark.parametrize("method", [name for name in METHODS if name != "central"])
def test_every_method_takes_the_same_optimizer_steps_at_each_site_and_tunes_for_as_many(
    method: str, sites: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted where the optimizer steps, whatever it is told to train."""
    taken: Counter[tuple[str, str]] = Counter()
    place: list[tuple[str, str]] = []
    real = torch.optim.AdamW.step

    def stepped(*about: Any, **more: Any) -> Any:
        taken[place[-1]] += 1
        return real(*about, **more)

    def noted(model: Any, data: Any, training: Any, stretch: Any, *about: Any, **more: Any) -> Any:
        site, when = str(stretch.seed_parts[1]), "tuning" if "finetune" in stretch.seed_parts else "rounds"
        place.append((site, when))
        return train_locally(model, data, training, stretch, *about, **more)

    monkeypatch.setattr(torch.optim.AdamW, "step", stepped)
    monkeypatch.setattr(site_module, "train_locally", noted)
    tuned = TINY_SETTINGS.replace("local_steps = 1", 'local_steps = 2\nfinetune = "head"\nfinetune_steps = 3')
    file, run = study(sites, f"steps-{method}", f'"{method}"', tuned)
    run_study(file, run, QUIET)
    rounds, tuning = 2 * 2, 3
    assert taken == {(site, "rounds"): rounds for site in "ab"} | {(site, "tuning"): tuning for site in "ab"}
