"""What half precision on the way costs and saves: the same federations with transfer = "full" and "half".

    python benchmarks/transfer.py [--study examples/small_hospital.toml] [--rounds 30] [--seeds 5]

Two hospitals of phantoms, or the sites of a study, with a ResNet-18 of a quarter of the width at 64 pixels. Prints the
bytes that a site sends and receives in a round; the mean test AUROC over sites and findings; and by how much half
differs from full, with the smallest and largest difference over the seeds.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from polyhead.config import Federation, Model, StudyConfig, StudySite, Training
from polyhead.evaluation import auroc
from polyhead.federation.methods import METHODS
from polyhead.federation.private_state import load_private
from polyhead.federation.rounds import RoundRow
from polyhead.federation.simulate import Watch, simulate
from polyhead.federation.site import Plan, Site
from polyhead.federation.snapshot import Store
from polyhead.federation.start import build_models, initial_state
from polyhead.federation.transfer import narrowed
from polyhead.phantom import Acquisition, write_site
from polyhead.sites import open_site, read_site, site_for
from polyhead.study_file import load_study
from polyhead.training.model import SiteModel, load_state
from polyhead.training.predict import predict_split

CPU = torch.device("cpu")
PHANTOMS = {"a": ("Pleural Effusion", "Cardiomegaly"), "b": ("Pleural Effusion", "Edema")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = load_study(options.study) if options.study else phantoms(Path(folder))
        model = Model(backbone="resnet18", width=0.25, image_size=64)
        federation = study.federation.model_copy(update={"rounds": options.rounds, "finetune": "none"})
        compare(study.model_copy(update={"model": model, "federation": federation}), options.seeds)


def compare(study: StudyConfig, seeds: int) -> None:
    sites = opened(study)
    full, half = ([trained(study, sites, seed, way) for seed in range(seeds)] for way in ("full", "half"))
    differences = [ours[0] - theirs[0] for ours, theirs in zip(half, full, strict=True)]
    for way, found in (("full", full), ("half", half)):
        print(f"{way}: {found[0][1]:,} bytes up, {found[0][2]:,} bytes down per round and site; {shown(found)}")
    print(f"bytes, half / full: {half[0][1] / full[0][1]:.4f}")
    print(
        f"AUROC, half - full: {statistics.mean(differences):+.4f} over {seeds} seeds "
        f"({min(differences):+.4f} to {max(differences):+.4f})"
    )


def shown(found: Sequence[tuple[float, int, int]]) -> str:
    values = [value for value, _, _ in found]
    return f"AUROC {statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def phantoms(folder: Path) -> StudyConfig:
    for place, (name, findings) in enumerate(PHANTOMS.items()):
        look, images = Acquisition(portable=0.1 + 0.3 * place), 200 + 200 * place
        about: dict[str, Any] = {"site": name, "findings": findings, "acquisition": look, "seed": place}
        write_site(folder / name, **about, train=images, val=20, test=200, size=64)
    sites = [StudySite(name=name, manifest=folder / name / "manifest.csv") for name in PHANTOMS]
    return StudyConfig(name="phantoms", site=sites, federation=Federation(local_steps=5), training=Training())


def opened(study: StudyConfig) -> list[Site]:
    sources = [open_site(site, read_site(site), study, None) for site in study.site]
    chosen = METHODS["ffl"].findings({one.name: one.manifest.findings for one in sources}, study.findings)
    return [site_for(one, chosen[one.name], study.findings.aliases) for one in sources]


def trained(
    study: StudyConfig, sites: list[Site], seed: int, transfer: Literal["full", "half"]
) -> tuple[float, int, int]:
    """Return the mean test AUROC after ffl, and what a site sends and receives in a round."""
    rules = study.federation.model_copy(update={"transfer": transfer})
    plan, rows = Plan(seed, rules, study.training, METHODS["ffl"].sharing(rules)), list[RoundRow]()
    models = build_models(sites, study.model, plan.sharing, seed, CPU)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder), "")
        start = initial_state(models, plan.sharing, store)
        end = simulate(sites, models, plan, start, store, Watch(lambda new, repeated: rows.extend(new)))
        values = []
        for site in sites:
            own = load_private(store.folder, site.name, end.private[site.name])
            load_state(models[site.name], {**narrowed(end.shared, transfer), **own.model})
            values += aurocs(models[site.name], site)
    return statistics.mean(values), rows[-1].bytes_up, rows[-1].bytes_down


def aurocs(model: SiteModel, site: Site) -> list[float]:
    scores, labels = predict_split(model, site.test), site.test.labels
    known = labels == labels
    columns = range(labels.shape[1])
    return [auroc(labels[known[:, c], c].astype(bool), scores[known[:, c], c]) for c in columns]


if __name__ == "__main__":
    main()
