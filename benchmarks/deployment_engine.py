"""The two federations of `deployment.py` on NVIDIA FLARE: ours, and its own FedAvg on kits as it ships them."""

import contextlib
import json
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.fuel.flare_api.flare_api import Session
from nvflare.lighter.entity import Project
from nvflare.lighter.impl.cert import CertBuilder
from nvflare.lighter.impl.static_file import StaticFileBuilder
from nvflare.lighter.impl.workspace import WorkspaceBuilder
from nvflare.lighter.provisioner import Provisioner

from deployment_parts import (
    BATCH,
    IMAGES,
    MODELS,
    SIZE,
    Case,
    Result,
    Wire,
    differences,
    free_ports,
    marked,
    memory_watched,
    wait_for,
    within,
)
from polyhead.deployment.agreed import agreement_of, read_agreement
from polyhead.deployment.audit import verify
from polyhead.deployment.coordinator import EVENTS, store_of
from polyhead.deployment.events import read_events
from polyhead.flare.jobs import SERVER_SETTINGS, SITE_SETTINGS
from polyhead.flare.kits import Server, provision
from polyhead.flare.layout import AGREEMENT, AUDIT, SITE_FILE, STATES, local_folder
from polyhead.flare.processes import end, silenced, start
from polyhead.flare.supervisor import Patience, Post, run_federation, session_of
from polyhead.phantom import Acquisition, write_site
from polyhead.study_file import load_study

ADMIN = "coordinator@federation.example"
ROLES = {"server's job": "runner_process", "site's job": "worker_process"}
SCRIPT = Path(__file__).with_name("deployment_script.py")
SEGMENTS = 2


@dataclass(frozen=True)
class Deployment:
    """Kits, and the port at which the server listens."""

    server: Path
    sites: Mapping[str, Path]
    post: Post
    port: int


def ours(case: Case, folder: Path, through: bool = False) -> list[Result]:
    """Measure our federation: two segments of rounds; or, for the bytes alone, one that passes through a `Wire`."""
    result = Result("ours")
    rounds = case.rounds if through else SEGMENTS * case.rounds
    study_file = write_study(case, folder, rounds)
    study = load_study(study_file)
    with silenced():
        port = free_ports(1)[0]
        kits = provision(folder / "kits", agreement_of(study), case.names, Server("localhost", port, port), ADMIN)
    for site in study.site:
        (local_folder(kits.sites[site.name]) / SITE_FILE).write_text(f'manifest = "{site.manifest}"\n')
    agreed = read_agreement(local_folder(kits.server) / AGREEMENT)
    post = Post(kits.admin, ADMIN, kits.server / STATES)
    houses = Deployment(kits.server, kits.sites, post, port)
    with opened(houses, folder, result, through) as wire:
        began = time.time()
        call = partial(run_federation, post, agreed, "ffl", 0, Patience(sites=60, deadline=120), case.rounds)
        with memory_watched(folder, ROLES, result.memory):
            within(case.limit, partial(call, lambda event: None))
        over = time.time()
    events = read_events(store_of(agreed, post.states, "ffl", 0).folder / EVENTS)
    if wire:
        result.wire = _bytes_of(wire, [e["time"] for e in events if e["event"] == "round"], case)
        audits = [verify(kit / AUDIT).bytes for kit in kits.sites.values()]
        result.wire["in, tensors alone"] = statistics.mean(audit["in"] for audit in audits) / (rounds + 1)
        result.wire["out, tensors alone"] = statistics.mean(audit["out"] for audit in audits) / rounds
    else:
        _read_events(result, events, began, over)
    return [result]


def fedavg(case: Case, folder: Path) -> list[Result]:
    """Measure the engine's own FedAvg: two jobs of one deployment, with settings as shipped and with ours."""
    port = free_ports(1)[0]
    houses = stock_kits(case, folder / "kits", port)
    shipped, tuned = Result("FedAvg, as shipped"), Result("FedAvg, our settings")
    with opened(houses, folder, shipped, False), session_of(houses.post) as session:
        for result, settings in ((shipped, ({}, {})), (tuned, (SERVER_SETTINGS, SITE_SETTINGS))):
            stamps = folder / f"stamps-{len(result.peer)}"
            stamps.mkdir()
            job = write_recipe(case, folder / f"job-{len(result.peer)}", stamps, *settings)
            with memory_watched(folder, ROLES, result.memory):
                within(case.limit, partial(_run_job, session, job, result))
            _read_stamps(result, stamps, case)
    return [shipped, tuned]


@contextlib.contextmanager
def opened(houses: Deployment, folder: Path, result: Result, through: bool) -> Iterator[Wire | None]:
    """Start a server and its sites, note how long that took, and end them all afterwards."""
    running, wire = [], None
    with contextlib.ExitStack() as stack:
        stack.enter_context(marked(folder))
        if through:
            door = free_ports(1)[0]
            wire = Wire(door, houses.port)
            stack.callback(wire.close)
            for kit in houses.sites.values():
                file = kit / "startup" / "fed_client.json"
                file.write_text(file.read_text().replace(f"localhost:{houses.port}", f"localhost:{door}"))
        try:
            running.append((_start(houses.server), houses.server))
            ready = partial(_says, houses.server, "Server started")
            result.starts["server ready"] = wait_for(ready, 60, "the server listens")
            running += [(_start(kit), kit) for kit in houses.sites.values()]
            everybody = [partial(_says, kit, "Successfully registered client") for kit in houses.sites.values()]
            here: Callable[[], bool] = lambda: all(one() for one in everybody)  # noqa: E731
            result.starts["sites connected"] = wait_for(here, 120, "all sites are connected")
            yield wire
        finally:
            for process, kit in reversed(running):
                end(process, kit, patience=0.0)


def _start(kit: Path) -> Any:
    with (kit / "output.txt").open("wb") as log:
        return start(kit, log)


def _says(kit: Path, words: str) -> bool:
    return words.lower() in (kit / "output.txt").read_text(errors="replace").lower()


def write_study(case: Case, folder: Path, rounds: int) -> Path:
    """Draw a few images a site, and write a study in which training is next to nothing: a step of two images."""
    for place, name in enumerate(case.names):
        write_site(
            folder / name,
            site=name,
            findings=("Edema",),
            train=IMAGES,
            val=4,
            test=4,
            acquisition=Acquisition(),
            seed=place,
            size=SIZE,
        )
    model = MODELS[case.model]
    sites = "".join(f'[[site]]\nname = "{name}"\nmanifest = "{name}/manifest.csv"\n' for name in case.names)
    settings = (
        f'[model]\nbackbone = "{model.backbone}"\nwidth = {model.width}\nimage_size = {SIZE}\n'
        f"[federation]\nrounds = {rounds}\nlocal_steps = 1\n"
        f'[training]\nbatch_size = {BATCH}\ndevice = "cpu"\n'
    )
    file = folder / "study.toml"
    file.write_text(f'name = "benchmark"\nmethods = ["ffl"]\n{sites}{settings}')
    return file


def _read_events(result: Result, events: list[dict[str, Any]], began: float, over: float) -> None:
    """Read what the server itself wrote: when a segment began, and when each of its rounds was on disk."""
    segments: dict[str, dict[str, list[float]]] = {}
    for event in events:
        segments.setdefault(event["segment"], {}).setdefault(event["event"], []).append(event["time"])
        if event["event"] == "round" and any(row["status"] != "averaged" for row in event["rows"]):
            raise RuntimeError(f"a site was left out of round {event['round']}: {event['rows']}")
    first, last = list(segments.values())
    result.rounds = differences(first["round"]) + differences(last["round"])
    usual = statistics.mean(result.rounds)
    result.starts |= {
        "called to segment begun": first["begun"][0] - began,
        "begun to first round": max(0.0, first["round"][0] - first["begun"][0] - usual),
        "between segments": last["round"][0] - first["round"][-1] - usual,
        "last round to return": over - last["round"][-1],
    }


def _bytes_of(wire: Wire, times: list[float], case: Case) -> dict[str, float]:
    up, down = wire.between(times[0], times[-1])
    parts = (len(times) - 1) * case.sites
    return {"in, on the wire": down / parts, "out, on the wire": up / parts}


def stock_kits(case: Case, out: Path, port: int) -> Deployment:
    """Make kits by the engine's own provisioning, as it ships them; only the place of its jobs is ours."""
    project = Project("benchmark", "", props={"api_version": 3})
    project.set_server("localhost", "all", {"fed_learn_port": port, "admin_port": port})
    for site in case.names:
        project.add_client(site, "all", {})
    # Of the roles as shipped the one that may submit code.
    project.add_admin(ADMIN, "all", {"role": "lead"})
    out.mkdir()
    builders = [WorkspaceBuilder(), StaticFileBuilder(config_folder="config", scheme="grpc"), CertBuilder()]
    with silenced():
        Provisioner(str(out), builders).provision(project)
    made = out / "benchmark" / "prod_00"
    for name in ("localhost", *case.names):
        local = local_folder(made / name)
        shutil.copyfile(local / "resources.json.default", local / "resources.json")
    sites = {name: made / name for name in case.names}
    return Deployment(made / "localhost", sites, Post(made / ADMIN, ADMIN, out), port)


def write_recipe(case: Case, folder: Path, stamps: Path, server: Mapping[str, Any], site: Mapping[str, Any]) -> Path:
    """Write a job of the engine's recipe, with these settings at its server and its sites."""
    with silenced():
        recipe = FedAvgRecipe(
            name="fedavg",
            model={"class_path": "deployment_script.Net", "args": {"model": case.model}},
            min_clients=case.sites,
            num_rounds=case.rounds,
            train_script=str(SCRIPT),
            train_args=f"--model {case.model} --rounds {case.rounds} --stamps {stamps}",
        )
        for file in (SCRIPT, SCRIPT.with_name("deployment_parts.py")):
            recipe.add_server_file(str(file))
        recipe.add_client_file(str(SCRIPT.with_name("deployment_parts.py")))
        recipe.export(str(folder))
    job = next(folder.glob("*/meta.json")).parent
    for name, added in (("config_fed_server.json", server), ("config_fed_client.json", site)):
        for file in job.rglob(name):
            file.write_text(json.dumps({**json.loads(file.read_text()), **added}, indent=2))
    return job


def _run_job(session: Session, job: Path, result: Result) -> None:
    submitted = time.time()
    name = session.submit_job(str(job))
    while not (status := str(session.get_job_meta(name).get("status", ""))).startswith("FINISHED"):
        if status.startswith(("FAILED", "ABANDONED")):
            break
        time.sleep(0.5)
    result.starts["submitted"] = submitted
    result.starts["over"] = time.time()
    if status != "FINISHED:COMPLETED":
        raise RuntimeError(f"the engine's own job ended as {status}")


def _read_stamps(result: Result, stamps: Path, case: Case) -> None:
    """Read when each site received the model of each round; mean over sites."""
    received: dict[int, list[float]] = {}
    for file in stamps.iterdir():
        for line in file.read_text().splitlines():
            stamp = json.loads(line)
            received.setdefault(stamp["round"], []).append(stamp["time"])
    if [len(times) for times in received.values()] != [case.sites] * case.rounds:
        raise RuntimeError(f"not every site took part in every round: {received}")
    times = [statistics.mean(received[round_]) for round_ in sorted(received)]
    # As with ours, without the first round of a job.
    result.rounds = differences(times)[1:] or differences(times)
    result.starts["submitted to first round"] = times[0] - result.starts.pop("submitted")
    result.starts["last round to end of job"] = result.starts.pop("over") - times[-1]
