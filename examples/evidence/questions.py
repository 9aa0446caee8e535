"""The questions of docs/evidence.md: which rows of docs/evidence.csv answer each.

The key is a question's mark in the page. Tables show both splits; a figure shows the differences on test images, or,
where a default is chosen, those on validation images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from studies import STUDIES, averaged

PAIR = ["small", "large"]
METHODS = [("methods-150", method) for method in STUDIES["methods-150"]["methods"]]
# Studies of how often to average, by the training images of the small hospital; see `steps_between`.
EVERY = {
    150: [*(f"every-{n}" for n in (1, 2)), "size-150", *(f"every-{n}" for n in (10, 20, 50))],
    75: ["size-75", *(f"every-{n}-75" for n in (10, 20, 50))],
}


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes
    ----------
    answers
        Studies and methods, in the order of the rows.
    others
        What these are held against, as in column ``against``.
    sites
        Of which hospitals; all if empty.
    on_validation
        Whether the figure shows the differences on validation images.
    """

    title: str
    answers: Sequence[tuple[str, str]]
    others: Sequence[str] = ("local",)
    sites: Sequence[str] = ()
    on_validation: bool = False


def steps_between(study: str) -> int:
    """Return after how many optimizer steps a study averages."""
    steps: int = STUDIES[study].get("federation", averaged(5))["local_steps"]
    return steps


QUESTIONS = {
    "size": Question(
        "ffl against training alone, by the images of the small hospital",
        [(f"{design}-{n}", "ffl") for design in ("size", "overlap") for n in (75, 150, 600)],
        sites=PAIR,
    ),
    "conventional": Question(
        "With one finding in common",
        [(f"overlap-{n}", method) for n in (75, 150, 600) for method in ("conventional", "ffl")],
        ["local", "conventional"],
        ["small"],
    ),
    "phantoms": Question(
        "The same designs on phantoms",
        [
            *((f"phantom-size-{n}", "ffl") for n in (75, 150, 600)),
            *((f"phantom-fedbn-{n}", "fedbn") for n in (150, 600)),
            *((f"phantom-overlap-{n}", method) for n in (75, 150, 600) for method in ("conventional", "ffl")),
        ],
        ["local", "conventional"],
        PAIR,
    ),
    "sites": Question(
        "Five hospitals, and two",
        [
            *[(study, method) for study in ("five", "every-10-five") for method in ("ffl", "fedbn")],
            *[("matching", "conventional"), ("matching", "ffl")],
            *[("phantom-five", "ffl"), ("phantom-fedbn-five", "fedbn")],
        ],
        ["local", "conventional"],
    ),
    "methods": Question(
        "Each method against training alone, 150 images",
        [
            *[("size-150", "ffl"), *METHODS],
            *[("slower-150", "fedavgm"), ("slower-150", "fedadam"), ("head-150", "ffl"), ("head-150", "fedbabu")],
            *[("full-150", "ffl"), ("long-150", "ffl")],
        ],
        sites=["small"],
    ),
    "variants": Question(
        "Each method against ffl, 150 images",
        [*METHODS, ("slower-150", "fedavgm"), ("slower-150", "fedadam")],
        ["ffl of size-150"],
        ["small"],
    ),
    "averaging": Question(
        "How often to average, against training alone",
        [*((study, "ffl") for studies in EVERY.values() for study in studies), ("fedbn-75", "fedbn")],
        sites=PAIR,
    ),
    "controls": Question(
        "Controls",
        [("size-150", "ffl"), ("shuffled-150", "ffl"), ("phantoms-150", "ffl"), ("phantoms-fedbn-150", "fedbn")],
        ["local", "ffl of size-150"],
        ["small"],
    ),
    "often": Question(
        "How often to average, against every 5 and every 10 steps",
        [
            *[(study, "ffl") for studies in EVERY.values() for study in studies if study.startswith("every")],
            ("every-10-five", "ffl"),
        ],
        ["ffl of size-150", "ffl of every-10", "ffl of size-75", "ffl of every-10-75", "ffl of five"],
        on_validation=True,
    ),
    "batchnorm": Question(
        "BatchNorm at home, against shared",
        [
            *[("methods-150", "fedbn"), ("fedbn-75", "fedbn"), ("five", "fedbn"), ("every-10-five", "fedbn")],
            *[("phantoms-fedbn-150", "fedbn"), ("phantom-fedbn-150", "fedbn"), ("phantom-fedbn-600", "fedbn")],
            ("phantom-fedbn-five", "fedbn"),
        ],
        [
            *["ffl", "ffl of size-150", "ffl of every-20-75", "ffl of phantoms-150"],
            *["ffl of phantom-size-150", "ffl of phantom-size-600", "ffl of phantom-five"],
        ],
        on_validation=True,
    ),
    "rules": Question(
        "Slower rules of the server, against faster",
        [("slower-150", "fedavgm"), ("slower-150", "fedadam")],
        ["fedavgm of methods-150", "fedadam of methods-150"],
        on_validation=True,
    ),
    "rest": Question(
        "Weights, optimizer, precision",
        [*((f"examples-{n}", "ffl") for n in (75, 150, 600)), ("reset-150", "ffl"), ("half-150", "ffl")],
        ["local", "ffl of size-75", "ffl of size-150", "ffl of size-600"],
        PAIR,
        on_validation=True,
    ),
}
