"""What a study costs each site's patients in privacy: epsilon of every method that shares, and of all of them."""

from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from polyhead.accountant import Steps, epsilon_of
from polyhead.config import Federation, Privacy, StudyConfig, Training
from polyhead.federation.methods import METHODS
from polyhead.federation.sharing import NOTHING
from polyhead.training.private_gradient import sampling_rate

__all__ = ["cost_table", "costly", "steps_of"]

_ALL = "all"


def costly(methods: Sequence[str], federation: Federation) -> list[str]:
    """Return the methods under which something of the model leaves a site."""
    return [method for method in methods if METHODS[method].sharing(federation) != NOTHING]


def steps_of(rounds: int, patients: int, federation: Federation, training: Training, privacy: Privacy) -> Steps:
    """Return the steps of a site with so many patients to train on in so many rounds."""
    rate = sampling_rate(patients, training.batch_size)
    return Steps(privacy.noise, rate, rounds * federation.local_steps)


def cost_table(study: StudyConfig, patients: Mapping[str, int]) -> pl.DataFrame:
    """Return the contents of ``privacy.csv``: a row for each site and method with one seed, and for all of them.

    Parameters
    ----------
    patients
        Of each site that trains, those it trains on.

    Raises
    ------
    StudyError
        If the library that computes epsilon is not installed.
    """
    rows = [row for site, count in patients.items() for row in _rows(study, site, count)]
    columns = {"site": pl.String, "method": pl.String, "seeds": pl.Int64, "patients": pl.Int64, "rate": pl.Float64}
    return pl.DataFrame(rows, {**columns, "steps": pl.Int64, "epsilon": pl.Float64, "delta": pl.Float64}, orient="row")


def _rows(study: StudyConfig, site: str, patients: int) -> Iterator[tuple[object, ...]]:
    methods, seeds, rounds = costly(study.methods, study.federation), len(study.seeds), study.federation.rounds
    repeated = [(method, 1, rounds) for method in methods]
    if len(methods) * seeds > 1:
        repeated.append((_ALL, seeds, rounds * len(methods) * seeds))
    for name, of_seeds, in_rounds in repeated:
        steps = steps_of(in_rounds, patients, study.federation, study.training, study.privacy)
        epsilon = round(epsilon_of([steps], study.privacy.delta), 4)
        yield site, name, of_seeds, patients, round(steps.rate, 6), steps.steps, epsilon, study.privacy.delta
