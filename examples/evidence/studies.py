"""The studies that docs/evidence.md stands on, and how to run them.

    python examples/evidence/studies.py                      # lists them
    python examples/evidence/studies.py size-150 [...]       # runs these; "all" runs all
        [--out runs/evidence] [--jobs 2] [--threads 1]

Each study is written to OUT/NAME.toml, an ordinary study file, and run into OUT/NAME; what is finished is not run
again. They read the real radiographs beside the checkout (see examples/README.md), but for those that begin with
"phantom", whose images are drawn first. All share one small network, five seeds and 400 optimizer steps at each site;
but "long" takes three times as many, and "head" and "full" 100 more to fine-tune. What differs is said in `STUDIES`. No
setting of a study was chosen by its test data.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from polyhead.phantom import Acquisition, write_site
from polyhead.study import run_study

DATA = Path(__file__).parents[3] / "shared" / "data"
STEPS = 400
SMALL, LARGE = "small", "large"
GUANGZHOU = "guangzhou"


def hospital(name: str, data: str, findings: Sequence[str] | None = None, **more: Any) -> dict[str, Any]:
    """Return a ``[[site]]`` that reads real radiographs."""
    narrowed = {} if findings is None else {"findings": list(findings)}
    return {"name": name, "manifest": str(DATA / data / "manifest.csv"), **narrowed, **more}


def pair(images: int, common: bool = False, **helper: Any) -> list[dict[str, Any]]:
    """Return one data set as two hospitals: few images of one finding, 2,000 of another; or one more in common."""
    more = ["Pneumonia"] if common else []
    few = hospital(SMALL, GUANGZHOU, ["Viral Pneumonia", *more], shard="1/2", train_images=images)
    many = {"shard": "2/2", "train_images": 2000, **helper}
    return [few, hospital(LARGE, GUANGZHOU, ["Bacterial Pneumonia", *more], **many)]


def averaged(local_steps: int, steps: int = STEPS, **more: Any) -> dict[str, Any]:
    """Return a ``[federation]`` of so many optimizer steps, averaged every few."""
    return {"rounds": steps // local_steps, "local_steps": local_steps, **more}


NIH = [hospital("nih-a", "nih-a"), hospital("nih-b", "nih-b")]
FIVE = [
    *NIH,
    hospital("guangzhou-1", GUANGZHOU, ["Viral Pneumonia", "Bacterial Pneumonia"], shard="1/2", train_images=600),
    hospital("guangzhou-2", GUANGZHOU, ["Normal"], shard="2/2", train_images=2000),
    hospital("hannover", "hannover"),
]
# Each hospital of phantoms: what it annotates, its training images, how it takes them.
PHANTOMS: dict[str, tuple[tuple[str, ...], int, Acquisition]] = {
    SMALL: (("Pleural Effusion", "Nodule", "Edema"), 600, Acquisition()),
    LARGE: (("Cardiomegaly", "Consolidation", "Edema"), 2000, Acquisition(portable=0.6, noise=0.03)),
    "third": (("Emphysema", "Pneumothorax"), 1000, Acquisition(exposure=0.1)),
    "fourth": (("Pleural Effusion", "Pneumothorax"), 400, Acquisition(portable=0.8)),
    "fifth": (("Consolidation",), 400, Acquisition(contrast=0.8)),
}


def drawn(name: str, findings: Sequence[str] | None = None, **more: Any) -> dict[str, Any]:
    """Return a ``[[site]]`` of phantoms."""
    narrowed = {} if findings is None else {"findings": list(findings)}
    return {"name": name, "manifest": f"phantoms/{name}/manifest.csv", **narrowed, **more}


def drawn_pair(images: int, common: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return `pair`'s two hospitals as phantoms."""
    few = drawn(SMALL, ["Pleural Effusion", "Nodule", *common], train_images=images)
    return [few, drawn(LARGE, ["Cardiomegaly", "Consolidation", *common])]


OTHERS = ["fedbn", "fedprox", "fedavgm", "fedadam", "surgical", "masked", "central"]

# "alone" is the study whose `local` a study without one is held against: by default size-150. "beside" is what each of
# its methods is held against, too, for they differ in one thing: a study and a method of it; blank for the same method.
STUDIES: dict[str, dict[str, Any]] = {
    # A: no finding in common, by the size of the small hospital.
    **{f"size-{n}": {"site": pair(n), "methods": ["local", "ffl"]} for n in (75, 150, 600)},
    # B: one more finding, which both annotate.
    **{
        f"overlap-{n}": {"site": pair(n, common=True), "methods": ["local", "conventional", "ffl"]}
        for n in (75, 150, 600)
    },
    # C: five hospitals.
    "five": {"site": FIVE, "methods": ["local", "ffl", "fedbn"], "beside": [("five", "ffl")]},
    "every-10-five": {
        "site": FIVE,
        "methods": ["ffl", "fedbn"],
        "federation": averaged(10),
        "alone": "five",
        "beside": [("five", ""), ("every-10-five", "ffl")],
    },
    "matching": {"site": NIH, "methods": ["local", "conventional", "ffl"]},
    # Each method, beside size-150.
    "methods-150": {
        "site": pair(150),
        "methods": OTHERS,
        "federation": averaged(5, server_learning_rate=1.0, server_adam_learning_rate=0.01),
        "beside": [("size-150", "ffl")],
    },
    "head-150": {
        "site": pair(150),
        "methods": ["local", "ffl", "fedbabu"],
        "federation": averaged(5, finetune="head"),
    },
    "full-150": {"site": pair(150), "methods": ["local", "ffl"], "federation": averaged(5, finetune="full")},
    # The server's rules with a tenth and a third of their learning rates.
    "slower-150": {
        "site": pair(150),
        "methods": ["fedavgm", "fedadam"],
        "federation": averaged(5, server_learning_rate=0.1, server_adam_learning_rate=0.003),
        "beside": [("size-150", "ffl"), ("methods-150", "")],
    },
    # Longer: three times the optimizer steps, for training alone, too.
    "long-150": {"site": pair(150), "methods": ["local", "ffl"], "federation": averaged(5, 3 * STEPS)},
    # How often to average, beside size-150 and size-75, which average every 5 steps.
    **{
        f"every-{n}{suffix}": {
            "site": pair(images),
            "methods": ["ffl"],
            "federation": averaged(n),
            "alone": f"size-{images}",
            "beside": [(f"size-{images}", "ffl"), (f"every-10{suffix}", "ffl")],
        }
        for images, suffix, steps in ((150, "", (1, 2, 10, 20, 50)), (75, "-75", (10, 20, 50)))
        for n in steps
    },
    # With BatchNorm at home, beside every-20-75.
    "fedbn-75": {
        "site": pair(75),
        "methods": ["fedbn"],
        "federation": averaged(20),
        "alone": "size-75",
        "beside": [("every-20-75", "ffl")],
    },
    # The large hospital counts 27, 13 and 3 times as much as the small one.
    **{
        f"examples-{n}": {
            "site": pair(n),
            "methods": ["ffl"],
            "federation": averaged(5, weighting="examples"),
            "alone": f"size-{n}",
            "beside": [(f"size-{n}", "ffl")],
        }
        for n in (75, 150, 600)
    },
    "reset-150": {
        "site": pair(150),
        "methods": ["ffl"],
        "training": {"optimizer_state": "reset"},
        "beside": [("size-150", "ffl")],
    },
    "half-150": {
        "site": pair(150),
        "methods": ["ffl"],
        "federation": averaged(5, transfer="half"),
        "beside": [("size-150", "ffl")],
    },
    # Controls: is a gain the doing of the helper's labels, or of its images at all?
    "shuffled-150": {
        "site": pair(150, shuffle_labels=True),
        "methods": ["ffl"],
        "beside": [("size-150", "ffl")],
    },
    "phantoms-150": {"site": [pair(150)[0], drawn(LARGE)], "methods": ["ffl"]},
    # With images so unlike, is it BatchNorm?
    "phantoms-fedbn-150": {
        "site": [pair(150)[0], drawn(LARGE)],
        "methods": ["fedbn"],
        "beside": [("phantoms-150", "ffl")],
    },
    # The same three designs on phantoms.
    **{f"phantom-size-{n}": {"site": drawn_pair(n), "methods": ["local", "ffl"]} for n in (75, 150, 600)},
    **{
        f"phantom-overlap-{n}": {"site": drawn_pair(n, ["Edema"]), "methods": ["local", "conventional", "ffl"]}
        for n in (75, 150, 600)
    },
    # Is it BatchNorm there, too?
    **{
        f"phantom-fedbn-{n}": {
            "site": drawn_pair(n),
            "methods": ["fedbn"],
            "alone": f"phantom-size-{n}",
            "beside": [(f"phantom-size-{n}", "ffl")],
        }
        for n in (150, 600)
    },
    "phantom-five": {"site": [drawn(name) for name in PHANTOMS], "methods": ["local", "ffl"]},
    "phantom-fedbn-five": {
        "site": [drawn(name) for name in PHANTOMS],
        "methods": ["fedbn"],
        "alone": "phantom-five",
        "beside": [("phantom-five", "ffl")],
    },
}


def study_text(name: str) -> str:
    """Return a study as TOML."""
    about = STUDIES[name]
    sections = {
        "model": {"backbone": "resnet18", "width": 0.25, "image_size": 64},
        "federation": about.get("federation", averaged(5)),
        "training": {"batch_size": 32, "learning_rate": 1e-3, "device": "cpu", **about.get("training", {})},
        "evaluation": {"replicates": 1000},
    }
    top = {"name": name, "seeds": [0, 1, 2, 3, 4], "methods": about["methods"], "cache": "cache"}
    parts = [_lines(top), *(f"[[site]]\n{_lines(site)}" for site in about["site"])]
    return "\n".join([*parts, *(f"[{title}]\n{_lines(keys)}" for title, keys in sections.items())])


def _lines(keys: Mapping[str, Any]) -> str:
    # Of texts, numbers, booleans and lists of them JSON is TOML.
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())


def draw(folder: Path) -> None:
    """Draw the hospitals of phantoms that are not there yet."""
    for place, (name, (findings, train, look)) in enumerate(PHANTOMS.items()):
        if not (folder / name / "manifest.csv").exists():
            about: dict[str, Any] = {"site": name, "findings": findings, "acquisition": look, "seed": place}
            write_site(folder / name, **about, train=train, val=200, test=300, size=64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*STUDIES, "all", []], metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if not options.names:
        print("\n".join(STUDIES))
    for name in STUDIES if "all" in options.names else options.names:
        options.out.mkdir(parents=True, exist_ok=True)
        if name.startswith("phantom"):
            draw(options.out / "phantoms")
        file = options.out / f"{name}.toml"
        file.write_text(study_text(name))
        run_study(file, options.out / name, Console(), jobs=options.jobs, threads=options.threads)


if __name__ == "__main__":
    main()
