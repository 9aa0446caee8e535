"""Checking the tables of a site with 1,000,000 images, against the same rules in loops over pandas' rows.

    python benchmarks/check.py

A manifest as CheXpert's training set would give it, five times over: 14 findings with its numbers of positive,
negative and blank labels, three images a patient. Ours is the whole command, `polyhead check SITE --no-images`, in a
process of its own, start of Python included; its peak memory is the operating system's figure for that process. The
loop reads the file with pandas and applies the rules of `polyhead.manifest_rules` and the counts of labels row by row;
it is timed on the first 20,000 rows and extrapolated. About 30 s.
"""

import csv
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

ROWS, IN_LOOP, IMAGES_A_PATIENT = 1_000_000, 20_000, 3
SPLITS = ("train", "val", "test")

# Positive and negative labels among CheXpert's 223,414 training images; the others are blank or uncertain.
IMAGES = 223_414
LABELS = {
    "No Finding": (22_381, 0),
    "Enlarged Cardiomediastinum": (10_798, 21_638),
    "Cardiomegaly": (27_000, 11_116),
    "Lung Opacity": (105_581, 6_599),
    "Lung Lesion": (9_186, 1_270),
    "Edema": (52_246, 20_726),
    "Consolidation": (14_783, 28_097),
    "Pneumonia": (6_039, 2_799),
    "Atelectasis": (33_376, 1_328),
    "Pneumothorax": (19_448, 56_341),
    "Pleural Effusion": (86_187, 35_396),
    "Pleural Other": (3_523, 316),
    "Fracture": (9_040, 2_512),
    "Support Devices": (116_001, 6_137),
}


def main() -> None:
    """Print one line for each figure."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_manifest(Path(folder) / "manifest.csv", quoted=False)
        print(f"manifest: {ROWS:,} rows x {len(LABELS)} findings, {manifest.stat().st_size / 1e6:.0f} MB")
        theirs = loop_over_rows(manifest) * ROWS / IN_LOOP
        report("plain", manifest, theirs)
        report("quoted", write_manifest(manifest, quoted=True), theirs)


def report(name: str, manifest: Path, theirs: float) -> None:
    """Check a site and print what it took."""
    command = [sys.executable, "-c", "from polyhead.cli import main; main()", "check", str(manifest.parent)]
    began = time.perf_counter()
    subprocess.run([*command, "--no-images"], check=True, stdout=subprocess.DEVNULL)
    ours = time.perf_counter() - began
    # Of all children so far the largest: the quoted file, which takes more, comes last.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    print(f"{name}: {ours:.1f} s, {ROWS / ours:,.0f} rows a second, peak memory {peak:.0f} MB (at most 1,000 wanted)")
    print(f"{name}: pandas in a loop, extrapolated from {IN_LOOP:,} rows: {theirs:.0f} s; ratio {theirs / ours:.0f}")


def write_manifest(path: Path, *, quoted: bool) -> Path:
    """Write a sound manifest."""
    rng = np.random.default_rng(0)
    patients = np.sort(rng.integers(0, ROWS // IMAGES_A_PATIENT, ROWS))
    splits = np.array(SPLITS)[np.searchsorted([0.7, 0.8], rng.random(ROWS // IMAGES_A_PATIENT)[patients])]
    columns = [
        [f"patient{patient:06d}/study1/view{row:07d}_frontal.jpg" for row, patient in enumerate(patients)],
        [f"patient{patient:06d}" for patient in patients],
        splits.tolist(),
        rng.choice(["AP", "PA"], ROWS).tolist(),
        rng.choice(["F", "M"], ROWS).tolist(),
        rng.integers(18, 95, ROWS).astype(str).tolist(),
    ]
    for positives, negatives in LABELS.values():
        share = np.array([positives, positives + negatives]) / IMAGES
        columns.append(np.array(["1", "0", ""])[np.searchsorted(share, rng.random(ROWS))].tolist())
    with path.open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL, lineterminator="\n")
        writer.writerow(["image", "patient_id", "split", "view", "sex", "age", *LABELS])
        writer.writerows(zip(*columns, strict=True))
    return path


def loop_over_rows(manifest: Path) -> float:
    """Return the seconds that a loop takes for the first rows."""
    began = time.perf_counter()
    frame = pd.read_csv(manifest, dtype=str, keep_default_na=False, nrows=IN_LOOP)
    problems: list[str] = []
    seen: set[str] = set()
    splits_of: dict[str, set[str]] = {}
    patients: dict[str, set[str]] = {split: set() for split in SPLITS}
    labels: Counter[tuple[str, str, str]] = Counter()
    for line, (_, row) in enumerate(frame.iterrows(), start=2):
        image, patient, split = row["image"], row["patient_id"], row["split"]
        if not image or not patient or split not in SPLITS:
            problems.append(f"line {line}: blank or unknown")
        if image in seen or image.startswith(("/", "~", "\\")) or ".." in image.split("/") or not image.isprintable():
            problems.append(f"line {line}: image")
        seen.add(image)
        splits_of.setdefault(patient, set()).add(split)
        patients[split].add(patient)
        for finding in LABELS:
            label = row[finding]
            if label not in ("1", "0", "1.0", "0.0", ""):
                problems.append(f"line {line}: label")
            labels[split, finding, label] += 1
    problems += [patient for patient, splits in splits_of.items() if len(splits) > 1]
    if problems:
        raise ValueError(problems[0])
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
