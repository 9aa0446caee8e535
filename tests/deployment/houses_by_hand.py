"""A deployed federation without an engine: each hospital with its own folder, and questions carried by a function."""

import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch

from polyhead.config import StudySite
from polyhead.deployment.agreed import Agreed, agreement_of, plan_of, read_agreement
from polyhead.deployment.coordinator import Carry, Segment, run_segment, store_of
from polyhead.deployment.finishing import answer, evaluate_at_home
from polyhead.deployment.hospital import Hospital, open_hospital
from polyhead.deployment.own_states import OwnStates, load_own
from polyhead.deployment.question import Content, Question, Reply
from polyhead.deployment.release import Release, read_release
from polyhead.deployment.results import run_evaluation
from polyhead.deployment.weights import WEIGHTS
from polyhead.federation.failure import describe_failure
from polyhead.federation.methods import METHODS
from polyhead.federation.private_state import PrivateState, load_private
from polyhead.federation.simulate import Watch, simulate
from polyhead.federation.site import Plan, Site
from polyhead.federation.snapshot import Store, load_snapshot, save_snapshot
from polyhead.federation.start import build_models, initial_state
from polyhead.federation.update import SiteUpdate
from polyhead.phantom import Acquisition, write_site
from polyhead.sites import open_site, read_site, site_for
from polyhead.study_file import load_study
from polyhead.training.backbone import build_backbone
from polyhead.training.tensor_file import write_tensors
from tests.conftest import TINY_SETTINGS

FINDINGS = {"a": ("Pleural Effusion", "Cardiomegaly"), "b": ("Pleural Effusion", "Edema"), "c": ("Cardiomegaly",)}
State = tuple[dict[str, torch.Tensor], dict[str, PrivateState]]
When = Collection[tuple[int, str]]


def write_study(folder: Path, rounds: int, sites: Sequence[str] = "abc", settings: str = "", test: int = 8) -> Path:
    """Draw hospitals of phantoms, and write their study; `settings` are of its federation, `test` of its images."""
    for place, name in enumerate(sites):
        size = {"train": 24, "val": 8, "test": test}
        look = Acquisition()
        write_site(folder / name, site=name, findings=FINDINGS[name], acquisition=look, seed=place, size=32, **size)
    parts = "".join(f'[[site]]\nname = "{name}"\nmanifest = "{name}/manifest.csv"\n' for name in sites)
    rest = TINY_SETTINGS.replace("rounds = 2", f"rounds = {rounds}\n{settings}")
    file = folder / "study.toml"
    file.write_text(f'name = "phantoms"\nmethods = ["ffl"]\n{parts}{rest}')
    return file


def several_steps(text: str) -> str:
    """Return the text of a study with two steps a round: in a round of one a proximal term pulls at nothing."""
    assert "local_steps = 1\n" in text
    return text.replace("local_steps = 1\n", "local_steps = 2\n")


def write_weights(study: Path) -> Path:
    """Put initial weights beside a study, and have it begin with them."""
    torch.manual_seed(3)
    state = build_backbone(load_study(study).model, seed=5).state_dict()
    # Statistics too: what stays at a site begins with them.
    changed = {name: one + torch.rand(one.shape) if one.is_floating_point() else one for name, one in state.items()}
    write_tensors(study.with_name("start.safetensors"), changed)
    study.write_text(study.read_text().replace("[model]\n", '[model]\nweights = "start.safetensors"\n'))
    return study.with_name("start.safetensors")


def agreed_in(study_file: Path) -> Agreed:
    """Write the agreement beside its study, and read it."""
    file = study_file.with_name("agreement.json")
    study = load_study(study_file)
    file.write_text(agreement_of(study))
    if study.model.weights:
        # As in a kit.
        shutil.copyfile(study.model.weights, file.with_name(WEIGHTS))
    return read_agreement(file)


def simulated(study_file: Path, folder: Path, absent: When = (), seed: int = 0, method: str = "ffl") -> State:
    """Train a study's method by `simulate`; who is absent in a round raises in it."""
    study, agreed = load_study(study_file), agreed_in(study_file)
    sources = [open_site(site, read_site(site), study, None) for site in study.site]
    chosen = METHODS[method].findings({one.name: one.manifest.findings for one in sources}, study.findings)
    sites = [site_for(one, chosen[one.name], study.findings.aliases) for one in sources]
    plan, store = plan_of(agreed, method, seed), Store(folder, "key")
    models = build_models(sites, agreed.model, plan.sharing, seed, torch.device("cpu"))
    start = save_snapshot(initial_state(models, plan.sharing, store, plan.rule), store)
    watch = Watch(lambda rows, repeated: None, _absence(sites, plan, absent))
    end = simulate(sites, models, plan, start, store, watch)
    return dict(end.shared), {name: load_private(folder, name, end.private[name]) for name in models}


def _absence(sites: Sequence[Site], plan: Plan, absent: When) -> Callable[[], None] | None:
    """Return what raises in the first step of a round from which a site is absent; the sites take turns."""
    if not absent:
        return None
    turns = _turns(sites, plan, absent)

    def on_step() -> None:
        if next(turns) in absent:
            raise ValueError("absent")

    return on_step


def _turns(sites: Sequence[Site], plan: Plan, absent: When) -> Iterator[tuple[int, str]]:
    """Yield the round and site of each optimizer step; who begins late warms the head for as many steps first."""
    begun: set[str] = set()
    for round_, site in product(range(plan.federation.rounds), sites):
        here = round_, site.name
        late = round_ > 0 and site.name not in begun
        yield from [here] * (1 if here in absent else plan.federation.local_steps * (1 + late))
        begun |= set() if here in absent else {site.name}


def state_of(agreed: Agreed, server: Path, houses: Mapping[str, Path], seed: int = 0, method: str = "ffl") -> State:
    """Read the last state of a deployed federation: the server's part, and each site's from its own disk."""
    end = load_snapshot(store_of(agreed, server, method, seed), agreed.sites)
    assert end is not None
    private = {}
    for site, house in houses.items():
        states = OwnStates(house / method / f"seed-{seed}", site, f"{agreed.sha256}/{method}/{seed}")
        private[site] = load_own(states, end.private[site].rounds_done, PrivateState({}))
    return dict(end.shared), private


def open_all(study_file: Path, agreed: Agreed, folder: Path, method: str = "ffl") -> dict[str, Hospital]:
    """Open every hospital of a study, each with a file and a folder of its own."""
    hospitals = {}
    for site in load_study(study_file).site:
        file = study_file.with_name(f"{site.name}.toml")
        file.write_text(f'manifest = "{site.manifest}"\n')
        hospitals[site.name] = open_hospital(agreed, site.name, file, folder / site.name, method, 0)
    return hospitals


def carry_to(
    hospitals: Mapping[str, Hospital],
    asked: list[Question],
    lost: When = (),
    spoiled: When = (),
    stop_after: int | None = None,
) -> Carry:
    """Carry questions, noting them in `asked`; some answers are lost on the way back, some spoiled.

    After so many answers to questions of rounds the server dies.
    """

    def carry(questions: Mapping[str, Question]) -> Iterator[Reply]:
        for site, question in sorted(questions.items()):
            when = (question.round, site) if question.kind == "round" else None
            asked.extend([question] if when else [])
            began = time.monotonic()
            try:
                content = answer(hospitals[site], question, hospitals[site].states.folder.parents[1] / "run")
            except Exception as problem:
                yield Reply(site, time.monotonic() - began, failure=describe_failure(problem))
                continue
            if when and len(asked) == stop_after:
                raise KeyboardInterrupt
            if when in lost:
                yield Reply(site, time.monotonic() - began, failure="no answer.", silent=True)
            else:
                if isinstance(content, SiteUpdate) and when in spoiled:
                    content = _spoil(content)
                yield Reply(site, time.monotonic() - began, content)

    return carry


def _spoil(update: SiteUpdate) -> SiteUpdate:
    return replace(update, loss=float("nan"))


def carry_home(
    study_file: Path, agreed: Agreed, folder: Path, away: Collection[str] = (), release: Mapping[str, str] | None = None
) -> Carry:
    """Carry questions to houses below `folder`, but those away; `release` is what else a site's own file says."""
    files = {}
    for site in load_study(study_file).site:
        files[site.name] = study_file.with_name(f"{site.name}-own.toml")
        files[site.name].write_text(own_settings(site, (release or {}).get(site.name, "")))
    opened: dict[tuple[str, str, int], Hospital] = {}

    def content_of(site: str, question: Question) -> Content:
        run = folder / site / "run"
        if question.kind == "evaluate":
            content = evaluate_at_home(agreed, site, files[site], run, question)
            if isinstance(content, Release):
                # As what carries it does at both ends.
                body = {"metrics": list(content.metrics), "comparisons": list(content.comparisons)}
                read_release(body, agreed.settings["methods"], agreed.settings["seeds"])
            return content
        key = site, question.method, question.seed
        if key not in opened:
            opened[key] = open_hospital(agreed, site, files[site], folder / site / "states", *key[1:])
        return answer(opened[key], question, run)

    def carry(questions: Mapping[str, Question]) -> Iterator[Reply]:
        for site, question in sorted(questions.items()):
            if site in away:
                yield Reply(site, 0.0, failure="was not connected.")
                continue
            try:
                content = content_of(site, question)
            except Exception as problem:
                yield Reply(site, 0.5, failure=describe_failure(problem))
            else:
                yield Reply(site, 0.5, content)

    return carry


def own_settings(site: StudySite, release: str = "") -> str:
    """Give a site's own file."""
    images = f"train_images = {site.train_images}\n" if site.train_images else ""
    return f'manifest = "{site.manifest}"\n{images}{release}'


def run_all(agreed: Agreed, server: Path, carry: Carry) -> None:
    """Run every method with every seed of a study, then the evaluation."""
    for method in agreed.settings["methods"]:
        for seed in agreed.settings["seeds"]:
            run_segment(agreed, Segment(f"{method}-{seed}", method, seed, agreed.federation.rounds), server, carry)
    run_evaluation(agreed, "evaluation", server, carry)


def differences(one: State, other: State) -> list[str]:
    """Name every entry in which two federations are not bit for bit the same."""
    assert one[1].keys() == other[1].keys()
    found = [f"shared: {name}" for name in _differing(one[0], other[0])]
    for site in one[1]:
        found += [f"{site}: {name}" for name in _differing(one[1][site].model, other[1][site].model)]
        found += [f"{site}: {name}" for name in _differing(one[1][site].optimizer, other[1][site].optimizer)]
    return found


def _differing(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if one[name].dtype != other[name].dtype or not torch.equal(one[name], other[name])]
