"""Evaluation of a large test set: our replicates against a loop of scikit-learn's ``roc_auc_score``.

    python benchmarks/evaluation.py

25,596 images (as many as ChestX-ray14's test set) of about 5,000 patients, 14 findings with prevalences of 0.2 to 20 %,
1,000 replicates. Ours is the function that `polyhead evaluate` calls for a finding, drawing of the replicates and
sorting included. The loop resamples with the same weights, is timed over 20 replicates of every finding and
extrapolated; its results are compared with ours. At the end the whole of `evaluate_files`, reading and writing
included, for two methods. About 10 s.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polyhead.evaluation import evaluate_files
from polyhead.evaluation.bootstrap import draw_weights
from polyhead.evaluation.cases import Cases
from polyhead.evaluation.measure import measure
from polyhead.predictions import write_predictions

IMAGES, PATIENTS, FINDINGS, REPLICATES, IN_LOOP = 25_596, 5_119, 14, 1000, 20


def main() -> None:
    """Print one line for each figure."""
    findings = made_up_findings()
    started = time.perf_counter()
    weights = draw_weights(PATIENTS, REPLICATES, seed=0)
    draws = [measure(cases, None, weights)["auroc"].draws for cases in findings]
    ours = time.perf_counter() - started
    print(f"ours: {IMAGES} images x {FINDINGS} findings x {REPLICATES} replicates: {ours:.2f} s")
    print(f"ours: peak memory {peak_megabytes():.0f} MB (with numpy and polars)")

    with tempfile.TemporaryDirectory() as folder:
        files = [write_file(findings, Path(folder) / f"{method}.parquet") for method in ("one", "two")]
        started = time.perf_counter()
        evaluate_files(files, Path(folder), REPLICATES)
        print(f"ours: evaluate_files, 2 methods, compared: {time.perf_counter() - started:.2f} s")
    print(f"ours: peak memory {peak_megabytes():.0f} MB")

    theirs, difference = loop_of_scikit_learn(findings, weights, draws)
    print(f"scikit-learn: {theirs:.0f} s (extrapolated from {IN_LOOP} replicates)")
    print(f"largest difference between the two: {difference:.1e}")
    print(f"ratio: {theirs / ours:.0f} times faster (at least 50 wanted)")


def made_up_findings() -> list[Cases]:
    """Return labels and scores that cluster by patient; the scores are 32-bit, as a network's are."""
    random = np.random.default_rng(0)
    rows = np.sort(random.integers(PATIENTS, size=IMAGES)).astype(np.uint32)
    findings = []
    for prevalence in np.geomspace(0.002, 0.2, FINDINGS):
        severity = random.normal(size=PATIENTS)[rows] + random.normal(size=IMAGES)
        labels = severity > np.quantile(severity, 1 - prevalence)
        logits = severity + 1.5 * random.normal(size=IMAGES)
        scores = (1 / (1 + np.exp(-logits))).astype(np.float32).astype(np.float64)
        findings.append(Cases(labels, scores, rows))
    return findings


def write_file(findings: list[Cases], path: Path) -> Path:
    """Write the findings as a table of predictions."""
    tables = [
        pl.DataFrame(
            {
                "image": [f"{image:08d}.png" for image in range(IMAGES)],
                "patient_id": [f"{row:05d}" for row in cases.rows],
                "finding": f"Finding {number}",
                "label": cases.labels.astype(np.int8),
                "score": cases.scores,
            }
        )
        for number, cases in enumerate(findings)
    ]
    write_predictions(pl.concat(tables), path)
    return path


def loop_of_scikit_learn(
    findings: list[Cases], weights: NDArray[np.int16], draws: list[NDArray[np.float64]]
) -> tuple[float, float]:
    """Return the loop's seconds for all replicates, and the largest difference from our `draws`."""
    # Imported here, so that the memory measured before is ours.
    from sklearn.metrics import roc_auc_score

    seconds, difference = 0.0, 0.0
    for cases, ours in zip(findings, draws, strict=True):
        started = time.perf_counter()
        theirs = [
            roc_auc_score(cases.labels, cases.scores, sample_weight=weights[cases.rows, replicate])
            for replicate in range(1, 1 + IN_LOOP)
        ]
        seconds += time.perf_counter() - started
        difference = max(difference, float(np.abs(ours[1 : 1 + IN_LOOP] - theirs).max()))
    return seconds * REPLICATES / IN_LOOP, difference


def peak_megabytes() -> float:
    """Return the largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    main()
