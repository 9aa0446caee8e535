"""What it costs that a run may be killed at any moment, against the same training with everything in memory.

    python benchmarks/durability.py [--sites 3] [--size 64] [--rounds 2] [--repeats 5] [--kills 6]

1. Rounds of a ResNet-18 and 20 local steps: with a snapshot, and rows of rounds.csv, after each, against a loop of the
   same `site_round` and `weighted_mean` that writes and checks nothing. From three sites on updates wait on disk for
   the distance rule, too. The images are noise; their content costs nothing.
2. Bytes that a round writes.
3. The time that one kill at a random moment costs, as a share of a round: the work that is done again, and starting.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from federation import CPU, FFL, paired_ratio, site
from polyhead.config import Federation, Model, Training
from polyhead.federation.means import weighted_mean
from polyhead.federation.rounds import append_rounds
from polyhead.federation.simulate import Watch, simulate
from polyhead.federation.site import Plan, Site, site_round
from polyhead.federation.snapshot import Store, load_snapshot, save_snapshot
from polyhead.federation.start import build_models, initial_state, part_model
from polyhead.federation.update import SiteUpdate
from polyhead.training.model import SiteModel

PLAN = Plan(0, Federation(rounds=2, local_steps=20), Training(device="cpu"), FFL)
ROUNDS_TO_KILL = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--worker", type=Path, help="used by the benchmark itself")
    options = parser.parse_args()
    if options.worker:
        go_on(options.worker, options.sites, options.size)
        return
    durable, in_memory = federations(options.sites, options.size, options.rounds)
    ratio = paired_ratio(durable, in_memory, options.repeats)
    what = f"{options.rounds} rounds of {options.sites} sites, ResNet-18 at {options.size} pixels"
    print(f"{what}, durable / in memory: {ratio}", flush=True)
    print(f"bytes of a round's snapshot: {bytes_a_round(options.sites, options.size):,}", flush=True)
    if options.kills:
        print(f"time lost to one kill: {lost_to_a_kill(options.sites, options.size, options.kills)}")


def make_sites(count: int, size: int) -> list[Site]:
    return [site(f"site-{number}", 150 + 350 * number, ["Pneumonia"], size) for number in range(count)]


def train(sites: list[Site], models: dict[str, SiteModel], plan: Plan, folder: Path) -> None:
    """Train from the last snapshot in the folder, or from the start, to the end."""
    store = Store(folder / "state", "")
    start = load_snapshot(store, list(models))
    if start is None:
        start = save_snapshot(initial_state(models, FFL, store), store)
    watch = Watch(lambda rows, repeated: append_rounds(folder, "ffl", 0, rows))
    simulate(sites, models, plan, start, store, watch)


def settings(size: int) -> Model:
    return Model(backbone="resnet18", image_size=size)


def federations(count: int, size: int, rounds: int) -> tuple[Callable[[], object], Callable[[], object]]:
    sites = make_sites(count, size)
    plan = replace(PLAN, federation=Federation(rounds=rounds, local_steps=20))

    def durable() -> None:
        models = build_models(sites, settings(size), FFL, 0, CPU)
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            train(sites, models, plan, Path(folder))

    def in_memory() -> None:
        models = build_models(sites, settings(size), FFL, 0, CPU)
        parts = {name: part_model(model, FFL) for name, model in models.items()}
        shared, private = parts[sites[0].name][0], {name: own for name, (_, own) in parts.items()}

        def updates(round_: int, shared: dict[str, torch.Tensor]) -> Iterator[SiteUpdate]:
            for one in sorted(sites, key=lambda one: one.name):
                update, private[one.name] = site_round(one, models[one.name], plan, round_, shared, private[one.name])
                yield update

        for round_ in range(rounds):
            shared = weighted_mean(updates(round_, shared), shared, "equal")

    return durable, in_memory


def bytes_a_round(count: int, size: int) -> int:
    """Return the size of a snapshot's files: shared state, private states and manifest."""
    sites = make_sites(count, size)
    models = build_models(sites, settings(size), FFL, 0, CPU)
    plan = replace(PLAN, federation=Federation(rounds=1, local_steps=1))
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        train(sites, models, plan, Path(folder))
        return sum(file.stat().st_size for file in Path(folder).rglob("*-1.*"))


def go_on(folder: Path, count: int, size: int) -> None:
    sites = make_sites(count, size)
    models = build_models(sites, settings(size), FFL, 0, CPU)
    train(sites, models, replace(PLAN, federation=Federation(rounds=ROUNDS_TO_KILL, local_steps=20)), folder)


def lost_to_a_kill(count: int, size: int, kills: int) -> str:
    """Run in processes of their own: undisturbed, then killed once at a random moment and started again."""
    undisturbed = run_worker(count, size, [])
    chance = random.Random(0)  # noqa: S311
    lost = [run_worker(count, size, [chance.uniform(0.1, 0.9) * undisturbed]) - undisturbed for _ in range(kills)]
    start = run_worker(count, size, [], ready=True)
    a_round = (undisturbed - start) / ROUNDS_TO_KILL
    shares = [seconds / a_round for seconds in lost]
    return (
        f"mean {statistics.mean(shares):.2f} of a round ({min(shares):.2f} to {max(shares):.2f}); a round takes "
        f"{a_round:.1f} s, of the loss {start:.1f} s are starting Python and reading the snapshot"
    )


def run_worker(count: int, size: int, kills: list[float], ready: bool = False) -> float:
    """Return the seconds that training takes, kills included; or, `ready`, those of starting on what is finished."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        command = [sys.executable, __file__, "--sites", str(count), "--size", str(size), "--worker", folder]
        if ready:
            subprocess.run(command, check=True)
        began = time.perf_counter()
        for seconds in kills:
            process = subprocess.Popen(command)
            time.sleep(seconds)
            process.kill()
            process.wait()
        subprocess.run(command, check=True)
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
