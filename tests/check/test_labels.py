"""What labels and splits allow, each rule on a table small enough to count by hand."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from polyhead.check.labels import FEW, balance, label_problems
from polyhead.manifest import Manifest
from polyhead.problems import Problem
from tests.check.conftest import by_kind


def manifest(labels: dict[str, str], **findings: dict[str, str]) -> Manifest:
    """A manifest with a character an image: 1, 0 or blank; a patient an image."""
    findings = findings or {"Edema": labels}
    sizes = {split: len(text) for split, text in next(iter(findings.values())).items()}
    splits = [split for split, size in sizes.items() for _ in range(size)]
    names = [str(index) for index in range(len(splits))]
    columns = {
        name: pl.Series([{"1": 1, "0": 0, " ": None}[one] for split in sizes for one in text[split]], dtype=pl.Int8)
        for name, text in findings.items()
    }
    frame = pl.DataFrame({"image": names, "patient_id": names, "split": splits, **columns})
    return Manifest(Path("manifest.csv"), frame, tuple(findings), Path())


MANY = "10" * FEW
SOUND = {"train": MANY, "val": MANY, "test": MANY}


def problems(**labels: str) -> list[Problem]:
    one = manifest({**SOUND, **labels})
    return list(label_problems(one, balance(one)))


def test_few_test_patients_are_one_warning_however_many_they_are() -> None:
    frame = manifest(SOUND).frame.with_columns((pl.col("patient_id").cast(pl.Int64) % 9).cast(pl.String))
    one = replace(manifest(SOUND), frame=frame)
    (problem,) = label_problems(one, balance(one))
    assert (problem.kind, problem.count) == ("few-patients", 1)
    assert "test: 9 patients" in problem.text


def test_a_sound_site_has_no_problem() -> None:
    assert problems() == []


def test_the_weight_is_negatives_by_positives_of_training_and_null_elsewhere() -> None:
    counts = balance(manifest({"train": "1000 ", "val": "10", "test": "00"}))
    assert counts["pos_weight"].to_list() == [3.0, None, None]
    assert counts.filter(split="train").row(0) == ("train", "Edema", 1, 3, 1, 5, 5, 3.0)
    assert balance(manifest({"train": "00", "val": "1", "test": "1"}))["pos_weight"].to_list() == [None] * 3


@pytest.mark.parametrize(
    ("split", "labels", "severity", "kind", "said"),
    [
        ("train", " " * 20, "warning", "never-annotated", "no image is annotated. The finding is masked."),
        ("test", " " * 20, "warning", "never-annotated", "no image is annotated. Its metrics will be NA."),
        ("train", "1" * 20, "warning", "one-class", "every annotated image is positive. Nothing can be learned"),
        ("val", "0" * 20, "warning", "one-class", "every annotated image is negative. No threshold"),
        ("test", "0" * 20, "warning", "one-class", "every annotated image is negative. Its metrics will be NA."),
        ("train", "1" * 9 + "0" * 20, "warning", "few-labels", "positive in 9 of 29 images"),
        ("train", "0" * 9 + "1" * 20, "warning", "few-labels", "negative in 9 of 29 images"),
        ("test", "1" * 9 + "0" * 20, "warning", "few-labels", "positive in 9 of 29 images"),
        ("val", "1" * 9 + "0" * 20, "note", "few-labels", "positive in 9 of 29 images"),
    ],
)
def test_a_finding_has_one_problem_a_split(split: str, labels: str, severity: str, kind: str, said: str) -> None:
    (problem,) = problems(**{split: labels})
    assert (problem.severity, problem.kind) == (severity, kind)
    assert problem.text.startswith(f"{split}, finding 'Edema': ")
    assert said in problem.text


@pytest.mark.parametrize("images", [0, 1])
def test_a_site_with_fewer_than_two_training_images_contributes_nothing(images: int) -> None:
    (problem,) = by_kind(problems(train="1" * images), "no-training")
    assert (problem.severity, problem.text[:15]) == ("warning", f"train: {images} images")
    assert not by_kind(problems(train="10"), "no-training")


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_empty_split_is_an_error_unless_it_has_been_said(split: str) -> None:
    (problem,) = problems(**{split: ""})
    assert (problem.severity, problem.kind) == ("error", "empty-split")
    one = manifest({**SOUND, split: ""})
    assert list(label_problems(one, balance(one), [split])) == []


def test_few_test_patients_are_a_warning_however_many_images_they_have() -> None:
    one = manifest(SOUND)
    crowded = one.frame.with_columns(
        pl.when(split="test").then(pl.lit("same")).otherwise("patient_id").alias("patient_id")
    )
    two = Manifest(one.path, crowded, one.findings, one.root)
    (problem,) = label_problems(two, balance(two))
    assert (problem.severity, problem.kind, problem.count) == ("warning", "few-patients", 1)


def test_equal_and_opposite_columns_are_named_once() -> None:
    opposite = {split: text.translate({48: "1", 49: "0"}) for split, text in SOUND.items()}
    other = {split: text[:10][::-1] + text[10:] for split, text in SOUND.items()}
    one = manifest({}, A=SOUND, B=SOUND, C=opposite, D=other)
    found = [(problem.severity, problem.kind, problem.text[:22]) for problem in label_problems(one, balance(one))]
    assert found == [
        ("warning", "same-labels", "findings 'A' and 'B': "),
        ("note", "opposite-labels", "findings 'A' and 'C': "),
        ("note", "opposite-labels", "findings 'B' and 'C': "),
    ]


def test_a_blank_in_one_column_only_makes_it_another() -> None:
    one = manifest({}, A=SOUND, B={**SOUND, "train": " " + MANY[1:]})
    assert not by_kind(label_problems(one, balance(one)), "same-labels")


def test_columns_of_one_class_are_not_called_equal() -> None:
    ones = dict.fromkeys(SOUND, "1" * 20)
    one = manifest({}, A=ones, B=ones)
    assert not by_kind(label_problems(one, balance(one)), "same-labels")
