"""A site in its own house: its data, its model and its private states on its own disk, asked for one round at a time.

Nothing here knows how a question came or where the answer goes.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from polyhead.config import Findings, StudyConfig
from polyhead.deployment.agreed import Agreed, head_findings, plan_of, study_at
from polyhead.deployment.best_states import forget_later, keep_if_best
from polyhead.deployment.budget import Budget, charge, limit_in, site_secret
from polyhead.deployment.own_states import OwnStates, keep_own, load_own, save_own
from polyhead.deployment.question import IDLE, Question
from polyhead.deployment.release import policy_in
from polyhead.errors import RunError, StudyError, UpdateError
from polyhead.federation.federate import is_validated
from polyhead.federation.methods import METHODS, lacking
from polyhead.federation.private_state import PrivateState, check_private
from polyhead.federation.run_lock import locked
from polyhead.federation.site import Plan, Site, round_key, site_round
from polyhead.federation.start import build_models, part_model
from polyhead.federation.update import SiteUpdate
from polyhead.privacy_cost import steps_of
from polyhead.sites import open_site, read_site, site_for
from polyhead.toml_file import read_toml
from polyhead.training.device import resolve_device
from polyhead.training.model import SiteModel, load_state
from polyhead.validation import validation_auroc

__all__ = ["Hospital", "alone", "open_hospital", "own_state", "refuse_other_agreement", "take_part"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hospital:
    """A site that is open for one method with one seed."""

    agreed: Agreed
    study: StudyConfig
    plan: Plan
    site: Site
    model: SiteModel
    first: PrivateState
    states: OwnStates
    budget: Budget | None = None


def open_hospital(agreed: Agreed, name: str, site_file: Path, folder: Path, method: str, seed: int) -> Hospital:
    """Read a site's images and labels, and build its model.

    Parameters
    ----------
    site_file
        Its own TOML file: `manifest`, and what else a ``[[site]]`` of a study may say; ``[release]``; ``[privacy]``.
    folder
        Where its private states lie.

    Raises
    ------
    PolyheadError
        If anything of it is wrong.
    """
    own = read_toml(site_file, StudyError)
    # What may leave is asked at the end only: a mistake in it must not wait for that.
    policy_in(own, str(site_file))
    limit = limit_in(own, agreed.privacy, str(site_file))
    study = study_at(agreed, name, own, site_file.parent, str(site_file))
    plan = plan_of(agreed, method, seed)
    manifest = read_site(study.site[0])
    if plan.sharing.head:
        _refuse_without_common(agreed, method, manifest.findings, study.findings)
    source = open_site(study.site[0], manifest, study, None)
    chosen = METHODS[method].findings({name: source.manifest.findings}, study.findings)
    site = site_for(source, chosen[name], study.findings.aliases)
    budget = None
    if plan.has_noise:
        budget = Budget(folder, limit, plan.privacy.delta)
        with alone(folder):
            site = replace(site, secret=site_secret(folder))
    device = resolve_device(study.training.device)
    model = build_models([site], study.model, plan.sharing, seed, device)[name]
    states = OwnStates(folder / method / f"seed-{seed}", name, f"{agreed.sha256}/{method}/{seed}")
    return Hospital(agreed, study, plan, site, model, part_model(model, plan.sharing)[1], states, budget)


def _refuse_without_common(agreed: Agreed, method: str, names: Sequence[str], settings: Findings) -> None:
    """Refuse to share a head without all of its findings, in words that may leave: the agreement's own names."""
    head_findings(agreed, method)
    if missing := lacking(names, settings):
        raise UpdateError(
            f"its data do not annotate {', '.join(missing)}, which the agreement names under findings.common: the head "
            f"of {method!r} is shared."
        )


def take_part(hospital: Hospital, question: Question, on_step: Callable[[], None] | None = None) -> SiteUpdate:
    """Take part in a round; the state after it is on disk when this returns.

    Raises
    ------
    UpdateError
        If another process of this site is at work.
    PolyheadError
        If the own state is not there, or training comes to nothing.
    """
    if not hospital.site.can_train:
        raise UpdateError(f"{IDLE}; it takes no part in rounds.")
    with alone(hospital.states.folder):
        return _train(hospital, question, on_step)


def refuse_other_agreement(agreed: Agreed, question: Question) -> None:
    """Refuse a question of a server that holds another agreement.

    Raises
    ------
    UpdateError
        Naming both by their hashes.
    """
    if question.agreement != agreed.sha256:
        raise UpdateError(
            f"the server's study is {question.agreement[:12]}, this site's is {agreed.sha256[:12]}. "
            "All hospitals must hold the same agreement: take it from the kit of the same day."
        )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes of the site away from a folder: one of an earlier segment may not be dead.

    Raises
    ------
    UpdateError
        If another is at work.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except RunError as problem:
            raise UpdateError("another process of this site is at work. End it, or wait for its end.") from problem
        yield


def own_state(hospital: Hospital, question: Question) -> PrivateState:
    """Return the own state that a question is about; the whole state is kept if it is the site's best so far.

    Raises
    ------
    RunError
        If the own state is not there.
    DiskError
        If the disk is full.
    """
    # What is not asked for any longer, or was never counted, goes first: it may be made anew.
    keep_own(hospital.states, {question.own, *question.kept})
    own = load_own(hospital.states, question.own, hospital.first)
    rules = hospital.plan.federation
    if rules.select == "best" and hospital.site.can_train:
        forget_later(hospital.states, question.round, question.own)
        if is_validated(rules, question.round):
            _measure(hospital, question, own)
    return own


def _measure(hospital: Hospital, question: Question, own: PrivateState) -> None:
    state = {**question.shared, **own.model}
    try:
        load_state(hospital.model, state)
        auroc = validation_auroc(hospital.model, hospital.site)
    except Exception as problem:  # As where all are in one place, it ends neither the round nor the federation.
        _log.warning(
            "after %d rounds: not validated, so this state cannot become the best: %s", question.round, problem
        )
    else:
        if auroc is not None:
            keep_if_best(hospital.states, question.round, question.own, auroc, state)


def _train(hospital: Hospital, question: Question, on_step: Callable[[], None] | None) -> SiteUpdate:
    own = own_state(hospital, question)
    _charge(hospital, question, own)
    update, own = site_round(
        hospital.site, hospital.model, hospital.plan, question.round, question.shared, own, on_step
    )
    check_private(own)
    save_own(hospital.states, question.round + 1, own)
    return update


def _charge(hospital: Hospital, question: Question, own: PrivateState) -> None:
    """Put what an answer costs the patients on the site's account; the last that may refuse one."""
    if hospital.budget is None:
        return
    site, plan = hospital.site, hospital.plan
    key = round_key(site, plan, question.round, question.shared, own)
    about = {"method": question.method, "seed": question.seed, "round": question.round}
    steps = steps_of(1, len(set(site.train.patients)), plan.federation, plan.training, plan.privacy)
    with alone(hospital.budget.folder):
        charge(hospital.budget, key, about, steps)
