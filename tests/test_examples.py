"""The studies beside the package: every one is a study that would run if its images were there."""

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

from polyhead.config import StudyConfig
from polyhead.evaluation.collect import Model
from polyhead.federation.methods import choose_methods
from polyhead.predictions import write_predictions
from polyhead.study_file import load_study, parse_study

EXAMPLES = Path(__file__).parents[1] / "examples"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"evidence_{name}", EXAMPLES / "evidence" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EVIDENCE = script("studies")


def choose(study: StudyConfig) -> list[str]:
    findings = {site.name: site.findings for site in study.site if site.findings is not None}
    assert len(findings) == len(study.site)
    return [method.name for method in choose_methods(study.methods, findings, study.findings)]


@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("a_no_overlap", ["local", "ffl"]),
        ("b_partial_overlap", ["local", "conventional", "ffl"]),
        ("c_five_sites", ["local", "ffl"]),
    ],
)
def test_the_papers_studies_could_run(name: str, methods: list[str]) -> None:
    study = load_study(EXAMPLES / "paper" / f"{name}.toml")
    assert choose(study) == methods
    assert (study.model.backbone, study.model.image_size, study.training.batch_size) == ("resnet50", 512, 8)
    assert all(site.train_images for site in study.site)


@pytest.mark.parametrize("name", EVIDENCE.STUDIES)
def test_studies_of_the_evidence_are_equal_but_for_what_they_ask(name: str) -> None:
    study = parse_study(EVIDENCE.study_text(name), Path("/runs"), f"{name}.toml")
    steps = EVIDENCE.STEPS * (3 if name == "long-150" else 1)
    assert study.federation.rounds * study.federation.local_steps == steps
    assert (study.federation.finetune != "none") == (name in ("head-150", "full-150"))
    assert len(study.seeds) >= 5
    assert study.model == parse_study(EVIDENCE.study_text("size-150"), Path("/runs"), "size-150.toml").model


def finish(runs: Path, study: str, methods: list[str], findings: dict[str, list[str]], rounds_of: str | None) -> None:
    """Make up methods of a finished run of the evidence, whose rounds are those of one site; None: of each."""
    for method in methods:
        for seed in range(2):
            for site, names in findings.items():
                for split in ("val", "test"):
                    # By site and last finding, so that the same site has the same images and labels in every study.
                    parts = [
                        pl.DataFrame(
                            {"image": [f"{site} {names[-1]} {i}" for i in range(20)], "score": range(20)}
                        ).select(
                            "image",
                            pl.lit(name).alias("finding"),
                            pl.col("image").alias("patient_id"),
                            (pl.col("score") % 3 == 0).cast(pl.Int8).alias("label"),
                            (pl.col("score") * (seed + len(method)) % 7).cast(pl.Float64),
                        )
                        for name in names
                    ]
                    write_predictions(
                        pl.concat(parts), runs / study / f"predictions/{method}/seed-{seed}/{site}/{split}.parquet"
                    )
    sent = [
        {"method": method, "site": site, "bytes_up": 3_000_000, "seconds": 1.0}
        for method in methods
        for site in ([rounds_of] if rounds_of else findings)
    ]
    file = runs / study / "rounds.csv"
    before = [pl.read_csv(file)] if file.exists() else []
    pl.concat([*before, pl.DataFrame(sent)]).write_csv(file)
    (runs / study / "study.toml").write_text(EVIDENCE.study_text(study))
    (runs / study / "report.html").touch()


def test_the_evidence_compares_a_site_only_where_its_data_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES / "evidence")
    results, figures = script("results"), script("figures")
    central = EVIDENCE.STUDIES["methods-150"] | {"methods": ["central"]}
    monkeypatch.setattr(results, "STUDIES", {**EVIDENCE.STUDIES, "methods-150": central})
    monkeypatch.setattr(results, "REPLICATES", 20)
    pair = {"small": ["Viral Pneumonia"], "large": ["Bacterial Pneumonia"]}
    common = {"small": ["Viral Pneumonia", "Pneumonia"], "large": ["Bacterial Pneumonia", "Pneumonia"]}
    finish(tmp_path, "size-150", ["local", "ffl"], pair, None)
    finish(tmp_path, "shuffled-150", ["ffl"], pair, None)
    finish(tmp_path, "phantoms-150", ["ffl"], {**pair, "large": ["Cardiomegaly", "Edema"]}, None)
    finish(tmp_path, "methods-150", ["central"], pair, "large+small")
    finish(tmp_path, "overlap-150", ["local", "ffl"], common, None)
    finish(tmp_path, "overlap-150", ["conventional"], {site: ["Pneumonia"] for site in pair}, None)
    rows = list(results.rows(tmp_path))
    shutil.copy(tmp_path / "shuffled-150/study.toml", tmp_path / "size-150/study.toml")
    results.finished.cache_clear()
    with pytest.raises(SystemExit, match="size-150: is of another study"):
        list(results.rows(tmp_path))
    assert sorted((row["study"], row["method"], row["against"], row["site"], row["findings"]) for row in rows) == [
        # Beside `ffl` under the same settings, of another study.
        ("methods-150", "central", "ffl of size-150", "large", 1),
        ("methods-150", "central", "ffl of size-150", "small", 1),
        ("methods-150", "central", "local", "large", 1),
        ("methods-150", "central", "local", "small", 1),
        ("overlap-150", "conventional", "local", "large", 1),
        ("overlap-150", "conventional", "local", "small", 1),
        # On the one finding that both annotate; of the others `conventional` knows nothing.
        ("overlap-150", "ffl", "conventional", "large", 1),
        ("overlap-150", "ffl", "conventional", "small", 1),
        ("overlap-150", "ffl", "local", "large", 2),
        ("overlap-150", "ffl", "local", "small", 2),
        # Of the helper whose labels mean nothing, or who is a phantom, there is no training alone to be held against.
        ("phantoms-150", "ffl", "local", "small", 1),
        ("shuffled-150", "ffl", "ffl of size-150", "small", 1),
        ("shuffled-150", "ffl", "local", "small", 1),
        ("size-150", "ffl", "local", "large", 1),
        ("size-150", "ffl", "local", "small", 1),
    ]
    of_size = figures.answer(pl.DataFrame(rows), figures.QUESTIONS["conventional"])
    assert list(of_size.select("method", "against").iter_rows()) == [
        ("conventional", "local"),
        ("ffl", "local"),
        ("ffl", "conventional"),
    ]
    assert {row["study"]: row["sent_mb"] for row in rows} == {
        study: None if study == "methods-150" else 1.5 for study in {row["study"] for row in rows}
    }
    central_alone = pl.DataFrame(rows).filter(study="methods-150", site="small", against="local")
    (line,) = figures.table(central_alone).splitlines()[2:]
    assert line.endswith("| all images |")


def predicted(method: str, test_right: bool, val_right: bool) -> Model:
    """A model whose order of the images is right or reversed, by split."""
    image = [f"{i}" for i in range(20)]
    label = [i % 2 for i in range(20)]
    test, val = (
        pl.DataFrame(
            {
                **{"image": image, "patient_id": image, "finding": ["Edema"] * 20},
                **{"label": label, "score": [float(one if right else 1 - one) for one in label]},
            },
            schema_overrides={"label": pl.Int8},
        )
        for right in (test_right, val_right)
    )
    return Model(method, 0, "small", test, val, method)


def test_a_difference_is_ours_minus_the_other_on_the_images_of_its_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES / "evidence")
    results = script("results")
    monkeypatch.setattr(results, "REPLICATES", 20)
    ours, other = predicted("ffl", True, False), predicted("local", False, True)
    for split, difference, reference in (("test", 1, 0), ("val", -1, 1)):
        found = results.compared([ours], [other], split)
        assert [found[key] for key in ("difference", "low", "high")] == [difference] * 3
        assert (found["reference"], found["findings"], found["patients"]) == (reference, 1, 20)
    with pytest.raises(SystemExit, match="no predictions of validation images"):
        results.compared([replace(ours, val=None)], [other], "val")


def test_every_row_that_a_figure_asks_for_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES / "evidence")
    results, figures = script("results"), script("figures")
    for question in figures.QUESTIONS.values():
        made = {answer: results.held_against(*answer) for answer in question.answers}
        named = {answer: {results.label(answer[0], *pair) for pair in pairs} for answer, pairs in made.items()}
        assert all(names & set(question.others) for names in named.values())
        assert set(question.others) <= set().union(*named.values())
