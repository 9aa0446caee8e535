"""The end of a federation at a site: its model and predictions, then its results; all of it stays in its house.

What leaves is that it is done, and of the results what the site's policy allows.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import polars as pl

from polyhead.atomic import write_atomically
from polyhead.deployment.agreed import Agreed
from polyhead.deployment.best_states import find_best, load_best
from polyhead.deployment.hospital import Hospital, alone, own_state, refuse_other_agreement, take_part
from polyhead.deployment.question import FINISHED, IDLE, READY, UNFINISHED, Content, Question
from polyhead.deployment.release import Release, filter_tables, of_few_patients, read_policy, withheld
from polyhead.errors import UpdateError
from polyhead.evaluation import Evaluation, evaluate_run
from polyhead.evaluation.collect import Model, read_run
from polyhead.evaluation.evaluate import evaluate_models
from polyhead.federation.run_dir import model_folder, predictions_folder, state_folder
from polyhead.federation.sharing import shared_names
from polyhead.federation.site import finetune
from polyhead.finished import damage_to_finished, write_finished
from polyhead.outputs import output_files, write_outputs
from polyhead.training.model import load_state

__all__ = ["answer", "evaluate_at_home", "finish"]

_log = logging.getLogger(__name__)


def answer(hospital: Hospital, question: Question, run: Path, on_step: Callable[[], None] | None = None) -> Content:
    """Answer a question about one method with one seed.

    Parameters
    ----------
    run
        The site's own run directory.

    Raises
    ------
    UpdateError
        If the server's agreement is another, it asks for what no server of the study does, or another process of this
        site is at work.
    PolyheadError
        If there is no answer.
    """
    refuse_other_agreement(hospital.agreed, question)
    _refuse_other_rounds(question, hospital.plan.federation.rounds)
    if question.kind == "round":
        return take_part(hospital, question, on_step)
    if question.kind == "join":
        return READY if hospital.site.can_train else IDLE
    if question.kind == "finish":
        with alone(hospital.states.folder):
            finish(hospital, question, run, on_step)
        return FINISHED
    raise UpdateError(f"{question.kind!r} is no question of one method. Both need the same version.")


def _refuse_other_rounds(question: Question, rounds: int) -> None:
    """Refuse what no server of this study asks: it could fill the disk, or end the training early for good."""
    sound = {"round": question.round < rounds, "finish": question.round == rounds}.get(question.kind, True)
    if not sound or question.own > question.round:
        raise UpdateError(
            f"the server's question is about round {question.round}, with a state after {question.own} rounds, of "
            f"{rounds} in the study. Both must run the same study."
        )


def finish(hospital: Hospital, question: Question, run: Path, on_step: Callable[[], None] | None = None) -> None:
    """Give a site its final model, train it on if the study says so, and write its files; what is whole stays.

    Raises
    ------
    UpdateError
        If the server sends anything but what is shared, training on comes to nothing, or the directory is of another
        study.
    PolyheadError
        If the own state is not there, or the disk is full.
    """
    _claim(run, hospital.agreed)
    site, model, plan = hospital.site, hospital.model, hospital.plan
    done, files = _files(run, question.method, question.seed, site.name)
    if _is_whole(run, done, files):
        return
    if question.shared.keys() != shared_names(model, plan.sharing):
        raise UpdateError("the server sent other entries than this study shares. Both must run the same study.")
    done.unlink(missing_ok=True)
    rounds_done = _load_final(hospital, question)
    if plan.federation.finetune != "none" and site.can_train:
        finetune(site, model, plan, on_step)
        if not all(tensor.isfinite().all() for tensor in model.state_dict().values()):
            raise UpdateError("fine-tuning diverged. Lower training.learning_rate or federation.finetune_steps.")
    about = {"method": question.method, "seed": question.seed, "site": site.name, "rounds": rounds_done}
    where = run, question.method, question.seed, site.name
    write_outputs(site, model, hospital.study, about, model_folder(*where), predictions_folder(*where))
    write_finished(done, run, files)


def _load_final(hospital: Hospital, question: Question) -> int:
    """Load the state that becomes the site's model: the last, or its best; return after how many rounds that was."""
    own = own_state(hospital, question)
    best = find_best(hospital.states) if hospital.plan.federation.select == "best" else None
    if best is None:
        if hospital.plan.federation.select == "best" and hospital.site.can_train:
            _log.warning("%s: has no validation AUROC; it gets the last state.", question.method)
        load_state(hospital.model, {**question.shared, **own.model})
        return question.round
    _log.info("%s: best after %d rounds (%.4f).", question.method, best.rounds_done, best.auroc)
    load_state(hospital.model, load_best(hospital.states, best))
    return best.rounds_done


def evaluate_at_home(agreed: Agreed, site: str, site_file: Path, run: Path, question: Question) -> Release | str:
    """Measure a site's models of all methods and seeds on its own test images, and return what may leave.

    All of it is in the site's own ``metrics.csv`` and ``comparisons.csv``.

    Raises
    ------
    UpdateError
        As `answer`.
    PolyheadError
        If the policy, or the predictions, cannot be trusted.
    """
    refuse_other_agreement(agreed, question)
    policy = read_policy(site_file)
    with alone(run):
        _claim(run, agreed)
        methods, replicates = agreed.settings["methods"], int(agreed.settings["evaluation"]["replicates"])
        for method, seed in product(methods, agreed.settings["seeds"]):
            if not _is_whole(run, *_files(run, method, seed, site)):
                return UNFINISHED
        found = evaluate_run(run, replicates, methods)
        if policy.metrics == "nothing":
            return Release()
        sites = list(read_run(run, methods))
        tests = (model.test for models in sites for model in models)
        hidden = of_few_patients(tests, policy) | withheld(found.metrics, policy)
        found = _without(sites, hidden, replicates) if hidden else found
        return filter_tables(found.metrics, found.comparisons, policy)


def _without(sites: list[list[Model]], hidden: set[str], replicates: int) -> Evaluation:
    """Evaluate as if some findings did not exist: then no mean or corrected p-value that leaves knows of them."""

    def shown(table: pl.DataFrame) -> pl.DataFrame:
        return table.filter(~pl.col("finding").is_in(hidden))

    def kept(model: Model) -> Model:
        return replace(model, test=shown(model.test), val=None if model.val is None else shown(model.val))

    left = [[kept(model) for model in models] for models in sites]
    return evaluate_models([models for models in left if all(model.test.height for model in models)], replicates)


def _files(run: Path, method: str, seed: int, site: str) -> tuple[Path, list[Path]]:
    where = run, method, seed, site
    files = output_files(model_folder(*where), predictions_folder(*where))
    return state_folder(run, method, seed) / "done.json", files


def _is_whole(run: Path, done: Path, files: list[Path]) -> bool:
    return os.path.lexists(done) and damage_to_finished(done, run, files) is None


def _claim(run: Path, agreed: Agreed) -> None:
    """Say of which agreement a run directory is; refuse one of another."""
    mark = run / "agreement.sha256"
    if not mark.exists():
        write_atomically(mark, agreed.sha256 + "\n")
    elif mark.read_text().strip() != agreed.sha256:
        raise UpdateError("its run directory is of another agreement. Move it away, and this site makes a new one.")
