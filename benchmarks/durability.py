"""What it costs that a run may be killed at any moment, against the same training with everything in memory.

    python benchmarks/durability.py [--size 64] [--rounds 2] [--repeats 5] [--kills 6]

1. Rounds of two sites with a ResNet-18 and 20 local steps: with a snapshot after each, against a loop of the same
   `site_round` and `weighted_mean` that writes nothing. The images are noise; their content costs nothing.
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
from polyhead.federation.simulate import Watch, simulate
from polyhead.federation.site import Plan, Site, site_round
from polyhead.federation.snapshot import Store, load_snapshot, save_snapshot
from polyhead.federation.start import build_models, initial_state, part_model
from polyhead.federation.update import SiteUpdate

PLAN = Plan(0, Federation(rounds=2, local_steps=20), Training(device="cpu"), FFL)
ROUNDS_TO_KILL = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--worker", type=Path, help="used by the benchmark itself")
    options = parser.parse_args()
    if options.worker:
        go_on(options.worker, options.size)
        return
    durable, in_memory = federations(options.size, options.rounds)
    ratio = paired_ratio(durable, in_memory, options.repeats)
    print(f"{options.rounds} rounds of ResNet-18 at {options.size} pixels, durable / in memory: {ratio}", flush=True)
    print(f"bytes a round writes, two sites: {bytes_a_round(options.size):,}", flush=True)
    if options.kills:
        print(f"time lost to one kill: {lost_to_a_kill(options.size, options.kills)}")


def two_sites(size: int) -> list[Site]:
    return [site("small", 150, ["Viral Pneumonia"], size), site("large", 500, ["Bacterial Pneumonia"], size)]


def settings(size: int) -> Model:
    return Model(backbone="resnet18", image_size=size)


def federations(size: int, rounds: int) -> tuple[Callable[[], object], Callable[[], object]]:
    sites = two_sites(size)
    plan = replace(PLAN, federation=Federation(rounds=rounds, local_steps=20))

    def durable() -> None:
        models = build_models(sites, settings(size), FFL, 0, CPU)
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            store = Store(Path(folder), "")
            simulate(sites, models, plan, initial_state(models, FFL, store), store, Watch(lambda rows, repeated: None))

    def in_memory() -> None:
        models = build_models(sites, settings(size), FFL, 0, CPU)
        parts = {name: part_model(model, FFL) for name, model in models.items()}
        shared, private = parts["small"][0], {name: own for name, (_, own) in parts.items()}

        def updates(round_: int, shared: dict[str, torch.Tensor]) -> Iterator[SiteUpdate]:
            for one in sorted(sites, key=lambda one: one.name):
                update, private[one.name] = site_round(one, models[one.name], plan, round_, shared, private[one.name])
                yield update

        for round_ in range(rounds):
            shared = weighted_mean(updates(round_, shared), shared, "equal")

    return durable, in_memory


def bytes_a_round(size: int) -> int:
    """Return the size of a snapshot's files: shared state, private states and manifest."""
    sites = two_sites(size)
    models = build_models(sites, settings(size), FFL, 0, CPU)
    plan = replace(PLAN, federation=Federation(rounds=1, local_steps=1))
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        store = Store(Path(folder), "")
        simulate(sites, models, plan, initial_state(models, FFL, store), store, Watch(lambda rows, repeated: None))
        newest = [*Path(folder).glob("*-1.*"), *Path(folder).glob("*/*-1.*")]
        return sum(file.stat().st_size for file in newest)


def go_on(folder: Path, size: int) -> None:
    """Train from the last snapshot, or from the start, to the end."""
    sites = two_sites(size)
    models = build_models(sites, settings(size), FFL, 0, CPU)
    store = Store(folder, "")
    start = load_snapshot(store, list(models))
    if start is None:
        start = initial_state(models, FFL, store)
        save_snapshot(start, store)
    plan = replace(PLAN, federation=Federation(rounds=ROUNDS_TO_KILL, local_steps=20))
    simulate(sites, models, plan, start, store, Watch(lambda rows, repeated: None))


def lost_to_a_kill(size: int, kills: int) -> str:
    """Run in processes of their own: undisturbed, then killed once at a random moment and started again."""
    undisturbed = run_worker(size, [])
    chance = random.Random(0)  # noqa: S311
    lost = [run_worker(size, [chance.uniform(0.1, 0.9) * undisturbed]) - undisturbed for _ in range(kills)]
    start = run_worker(size, [], ready=True)
    a_round = (undisturbed - start) / ROUNDS_TO_KILL
    shares = [seconds / a_round for seconds in lost]
    return (
        f"mean {statistics.mean(shares):.2f} of a round ({min(shares):.2f} to {max(shares):.2f}); a round takes "
        f"{a_round:.1f} s, of the loss {start:.1f} s are starting Python and reading the snapshot"
    )


def run_worker(size: int, kills: list[float], ready: bool = False) -> float:
    """Return the seconds that training takes, kills included; or, `ready`, those of starting on what is finished."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        command = [sys.executable, __file__, "--size", str(size), "--worker", folder]
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
