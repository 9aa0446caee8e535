"""What a deployed federation costs beside training, against the engine's own FedAvg and Flower, with real processes.

    python benchmarks/deployment.py [--sites 2 5] [--models small resnet18 resnet50] [--rounds 8]
        [--peers alone ours wire fedavg flower] [--limit 400] [--flower PYTHON] [--json FILE]

All on 127.0.0.1 over mutual TLS, one thread a process. A site takes one step of two noise images at 64 pixels a round,
so that training is next to nothing.

1. Seconds of a round: ours from the server's own events (a round's end to the next one's, when both are on disk); the
   others' from one round's begin to the next. The first round of a job is left out. FedAvg is the recipe of the
   installed NVIDIA FLARE, on kits as its own provisioning makes them, with as many sites, the same tensors and the same
   step: once as shipped, once with our jobs' settings. Flower takes no step at all.
2. `alone`: the same step without federation: a plain process a site, all at once, that meet after each round.
   What a round costs beyond training is the difference.
3. Starts: the server, the sites, a job; and between two segments of ours all that is not a round: the end of one, the
   supervisor, the start of the next. A segment of ``20 x`` so many seconds of rounds loses 5 % by it.
4. Largest resident memory of the job's processes, imports and all.
5. `wire`: bytes a round and site through a line that counts them, TLS and all, in a run of its own; beside them the
   bytes of tensors by the site's own record.

Flower is left out unless the interpreter of an environment that has it is named: it must not be the project's own.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

from deployment_engine import fedavg, ours
from deployment_flower import flower
from deployment_parts import MODELS, Case, Result, state_bytes, training_alone

PEERS = ("alone", "ours", "wire", "fedavg", "flower")
SHARE = 0.05
# Rounds of the run that only counts bytes.
WIRE_ROUNDS = 4


def main() -> None:
    options = read_options()
    # More threads than cores would measure the scheduler; the same for all.
    os.environ["OMP_NUM_THREADS"] = "1"
    # For the module that the engine's own server averages; processes of ours run none of it.
    given = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, [given]), str(Path(__file__).parent.resolve())])
    signal.signal(signal.SIGTERM, stopped)
    lines: list[dict[str, Any]] = []
    for model in options.models:
        for sites in options.sites:
            case = Case(model, sites, options.rounds, options.limit)
            found = [line for peer in options.peers for line in measure(peer, case, options.flower)]
            for line in found:
                print(json.dumps(line), flush=True)
            lines += found
            show(case, found)
    if options.json:
        options.json.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if any("failed" in line for line in lines):
        # What was given up may still wait for a server that is gone; all processes and folders are.
        sys.stdout.flush()
        os._exit(1)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, nargs="+", default=[2, 5])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=8, help="of a job; ours runs two of them (at least 3)")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--limit", type=float, default=400.0, help="seconds after which a job is given up")
    parser.add_argument("--flower", type=Path, help="Python of an environment with flwr")
    parser.add_argument("--json", type=Path, help="file for the lines")
    options = parser.parse_args()
    if options.rounds < 3:
        parser.error("--rounds: at least 3, of which the first is left out")
    return options


def stopped(number: int, frame: FrameType | None) -> None:
    sys.exit(f"ended by signal {number}")


def measure(peer: str, case: Case, python: Path | None) -> list[dict[str, Any]]:
    """Measure one peer in a folder of its own; what fails is told, and the others go on."""
    about = {"model": case.model, "sites": case.sites}
    if peer == "flower" and not python:
        print("Flower is left out: --flower names no environment that has it.")
        return []
    kinds: dict[str, Callable[[Case, Path], list[Result]]] = {
        "ours": ours,
        "wire": lambda given, folder: ours(Case(given.model, given.sites, WIRE_ROUNDS, given.limit), folder, True),
        "fedavg": fedavg,
        "flower": partial(flower, python=python or Path()),
    }
    with tempfile.TemporaryDirectory(prefix="polyhead-") as folder:
        try:
            if peer == "alone":
                return [{"peer": peer, **about, "seconds": training_alone(case), "bytes": state_bytes(case.model)}]
            results = kinds[peer](case, Path(folder).resolve())
        except Exception as problem:  # One peer that fails must not cost the figures of the others.
            traceback.print_exc()
            return [{"peer": peer, **about, "failed": str(problem)}]
        return [{**about, **asdict(one), "peer": "wire" if peer == "wire" else one.peer} for one in results]


def show(case: Case, lines: list[dict[str, Any]]) -> None:
    """Show a configuration as a table, each peer's round as a ratio to the engine's own FedAvg, too."""
    by_peer = {line["peer"]: line for line in lines}
    alone = by_peer.get("alone", {})
    names = ("Peer", "Round, s", "(min to max)", "Beyond training", "Ours / it", "Server's job, MB", "Site's job, MB")
    title = (
        f"{case.model}, {case.sites} sites; {alone.get('bytes', 0) / 1e6:.1f} MB, step {alone.get('seconds', 0):.2f} s"
    )
    table = Table(*names, title=title, title_justify="left")
    mine = by_peer.get("ours", {}).get("rounds")
    for line in lines:
        if rounds := line.get("rounds"):
            usual, cells = (
                statistics.mean(rounds),
                [line["memory"].get(f"{who}'s job", 0) for who in ("server", "site")],
            )
            step = 0.0 if line["peer"].startswith("Flower") else alone.get("seconds", 0.0)
            ratio = f"{statistics.mean(mine) / usual:.2f}" if mine else ""
            spread = f"({min(rounds):.2f} to {max(rounds):.2f})"
            table.add_row(
                line["peer"], f"{usual:.2f}", spread, f"{usual - step:.2f}", ratio, *(f"{n / 1e6:.0f}" for n in cells)
            )
    console = Console(width=140)
    console.print(table)
    for line in lines:
        for what in ("starts", "wire"):
            if values := line.get(what):
                unit, scale = (" s", 1.0) if what == "starts" else (" MB", 1e6)
                parts = (f"{name} {value / scale:.2f}{unit}" for name, value in values.items())
                console.print(f"{line['peer']}: {', '.join(parts)}", highlight=False)
    if mine:
        cost, usual = by_peer["ours"]["starts"]["between segments"], statistics.mean(mine)
        console.print(f"a segment for {SHARE:.0%}: {cost / SHARE:.0f} s, or {cost / SHARE / usual:.0f} such rounds")


if __name__ == "__main__":
    main()
