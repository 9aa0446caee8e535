"""The same federation in one process, for what a deployed one must equal."""

from pathlib import Path

import torch

from polyhead.agreed import agreement_of, plan_of, read_agreement
from polyhead.config import StudyConfig
from polyhead.federation.methods import METHODS
from polyhead.federation.own_states import OwnStates, load_own
from polyhead.federation.private_state import PrivateState, load_private
from polyhead.federation.simulate import Watch, simulate
from polyhead.federation.site import Site
from polyhead.federation.snapshot import Snapshot, Store, load_snapshot, save_snapshot
from polyhead.federation.start import build_models, initial_state
from polyhead.flare.layout import STATES
from polyhead.sites import open_site, read_site, site_for
from polyhead.study_file import load_study
from tests.flare.houses import Houses

State = tuple[dict[str, torch.Tensor], dict[str, PrivateState]]


def simulated(study_file: Path, folder: Path, method: str = "ffl", seed: int = 0) -> State:
    """Train a study's method by `simulate`, on what the houses train on."""
    folder.mkdir()
    (folder / "agreement.json").write_text(agreement_of(study := load_study(study_file)))
    agreed = read_agreement(folder / "agreement.json")
    sites = _sites(study, method)
    plan, store = plan_of(agreed, method, seed), Store(folder, "key")
    models = build_models(sites, agreed.model, plan.sharing, seed, torch.device("cpu"))
    start = save_snapshot(initial_state(models, plan.sharing, store), store)
    end = simulate(sites, models, plan, start, store, Watch(lambda rows, repeated: None))
    return dict(end.shared), {name: load_private(folder, name, end.private[name]) for name in models}


def deployed(houses: Houses, method: str = "ffl", seed: int = 0) -> State:
    """Read the state that a deployed federation ended in: the server's part, and each site's from its own disk."""
    end = _snapshot(houses, method, seed)
    private = {}
    for site, kit in houses.kits.sites.items():
        states = OwnStates(kit / STATES / method / f"seed-{seed}", site, f"{houses.agreed.sha256}/{method}/{seed}")
        private[site] = load_own(states, end.private[site].rounds_done, PrivateState({}))
    return dict(end.shared), private


def _snapshot(houses: Houses, method: str, seed: int) -> Snapshot:
    end = load_snapshot(houses.store(method, seed), houses.agreed.sites)
    assert end is not None
    return end


def _sites(study: StudyConfig, method: str) -> list[Site]:
    sources = [open_site(site, read_site(site), study, None) for site in study.site]
    aliases = study.findings.aliases
    chosen = METHODS[method].findings({one.name: one.manifest.findings for one in sources}, aliases)
    return [site_for(one, chosen[one.name], aliases) for one in sources]
