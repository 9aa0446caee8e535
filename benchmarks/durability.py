"""What it costs that a run may be killed at any moment, against the same training with everything in memory.

    python benchmarks/durability.py [--sites 3] [--size 64] [--rounds 2] [--repeats 5] [--kills 6]

1. Rounds of a ResNet-18 and 20 local steps: with a snapshot, and rows of rounds.csv, after each, against a loop of the
   same `site_round` and `weighted_mean` that writes and checks nothing. From three sites on updates wait on disk for
   the distance rule, too. The images are noise; their content costs nothing.
2. In one such run, the time within what writes and reads state / the rest: pairs of whole runs are noisier than it.
3. Bytes that a round writes.
4. The time that one kill at a random moment costs, as a share of a round: the work that is done again, and starting.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from federation import CPU, FFL, paired_ratio, site
from polyhead.config import Federation, Model, Training
from polyhead.federation import aggregate as aggregate_module
from polyhead.federation import federate as federate_module
from polyhead.federation import simulate as simulate_module
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
STATE_WORK = [
    *((simulate_module, name) for name in ("load_private", "save_private")),
    (federate_module, "save_snapshot"),
    *((aggregate_module, name) for name in ("spool_state", "clear_spool")),
]


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
    ratio = paired_ratio(durable, in_memory, options.repeats) if options.repeats else "not measured"
    what = f"{options.rounds} rounds of {options.sites} sites, ResNet-18 at {options.size} pixels"
    print(f"{what}, durable / in memory: {ratio}", flush=True)
    on_disk, rest = on_disk_and_rest(options.sites, options.size, options.rounds)
    print(f"of one such run writing and reading state took {on_disk:.2f} s, the rest {rest:.2f} s", flush=True)
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


def on_disk_and_rest(count: int, size: int, rounds: int) -> tuple[float, float]:
    """Return the seconds of a run within what writes and reads state, the first snapshot left out, and of the rest."""
    spent: list[float] = []

    def timed(work: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*about: Any) -> Any:
            began = time.perf_counter()
            result = work(*about)
            spent.append(time.perf_counter() - began)
            return result

        return measured

    sites = make_sites(count, size)
    models = build_models(sites, settings(size), FFL, 0, CPU)
    plan = replace(PLAN, federation=Federation(rounds=rounds, local_steps=20))
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder, ExitStack() as stack:
        for module, name in STATE_WORK:
            stack.enter_context(mock.patch.object(module, name, timed(getattr(module, name))))
        store = Store(Path(folder), "")
        start = save_snapshot(initial_state(models, FFL, store), store)
        watch = Watch(timed(lambda rows, repeated: append_rounds(Path(folder), "ffl", 0, rows)))
        began = time.perf_counter()
        simulate(sites, models, plan, start, store, watch)
        return sum(spent), time.perf_counter() - began - sum(spent)


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
    plan = replace(PLAN, federation=Federation(rounds=ROUNDS_TO_KILL, local_steps=20))
    load_snapshot(Store(folder / "state", ""), list(models))
    (folder / "ready").touch()
    train(sites, models, plan, folder)


def lost_to_a_kill(count: int, size: int, kills: int) -> str:
    """Kill a process of its own at random moments: the work since the last snapshot is lost, and starting again."""
    chance = random.Random(0)  # noqa: S311
    a_round = undisturbed(count, size)
    found = [killed(count, size, chance.uniform(0.2, 2.8) * a_round) for _ in range(kills)]
    shares = [(lost + starting) / a_round for lost, starting in found]
    return (
        f"mean {statistics.mean(shares):.2f} of a round ({min(shares):.2f} to {max(shares):.2f}); a round takes "
        f"{a_round:.1f} s, and starting Python and reading the snapshot {statistics.mean(s for _, s in found):.1f} s"
    )


def undisturbed(count: int, size: int) -> float:
    """Return how long a round takes: the last of four."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        subprocess.run(worker(count, size, folder), check=True)
        last, before = (snapshot_time(Path(folder), rounds) for rounds in (ROUNDS_TO_KILL, ROUNDS_TO_KILL - 1))
        return last - before


def killed(count: int, size: int, after: float) -> tuple[float, float]:
    """Kill a run so many seconds after its training began; return the seconds lost, and those of starting again."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        ready = Path(folder, "ready")
        end(subprocess.Popen(worker(count, size, folder)), ready, after)
        ended = time.time()
        newest = max(Path(folder, "state").glob("round-*.json"), key=lambda file: file.stat().st_mtime)
        ready.unlink()
        end(subprocess.Popen(worker(count, size, folder)), ready, 0.0)
        return ended - newest.stat().st_mtime, time.time() - ended


def end(process: "subprocess.Popen[bytes]", ready: Path, after: float) -> None:
    while not ready.exists():
        time.sleep(0.01)
    time.sleep(after)
    process.kill()
    process.wait()


def worker(count: int, size: int, folder: str) -> list[str]:
    return [sys.executable, __file__, "--sites", str(count), "--size", str(size), "--worker", folder]


def snapshot_time(folder: Path, rounds_done: int) -> float:
    return (folder / "state" / f"round-{rounds_done}.json").stat().st_mtime


if __name__ == "__main__":
    main()
