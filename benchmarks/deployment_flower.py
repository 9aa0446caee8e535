"""Flower's deployment for `deployment.py`: a SuperLink and SuperNodes over TLS, in an environment of its own.

Its sites send back what they received: no step is taken, and PyTorch is not even imported, which favours it.
"""

import os
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from deployment_engine import stock_kits
from deployment_parts import (
    FFL,
    Case,
    Result,
    differences,
    free_ports,
    marked,
    memory_watched,
    model_of,
    wait_for,
)
from polyhead.federation.start import part_model

ROLES = {"server's job": "serverapp", "site's job": "clientapp"}
_SETTINGS = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
_PROJECT = """[project]
name = "benchmark"
version = "1.0.0"
dependencies = ["flwr"]
[tool.flwr.app]
publisher = "benchmark"
[tool.flwr.app.components]
serverapp = "app:server"
clientapp = "app:client"
[tool.flwr.app.config]
folder = "{folder}"
sites = {sites}
rounds = {rounds}
"""
_APP = """import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

server = ServerApp()
client = ClientApp()


class Stamped(FedAvg):
    def configure_train(self, server_round, *about):
        with Path(self.stamps).open("a") as file:
            file.write(json.dumps(time.time()) + "\\n")
        return super().configure_train(server_round, *about)


@server.main()
def main(grid, context):
    config = context.run_config
    with np.load(Path(config["folder"], "state.npz")) as state:
        arrays = ArrayRecord([state[name] for name in state.files])
    count = config["sites"]
    strategy = Stamped(fraction_evaluate=0.0, min_train_nodes=count, min_available_nodes=count)
    strategy.stamps = Path(config["folder"], "stamps")
    # One round more, whose beginning is the end of the last that counts.
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=config["rounds"] + 1)


@client.train()
def train(message, context):
    content = RecordDict({"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})})
    return Message(content=content, reply_to=message)
"""


def flower(case: Case, folder: Path, python: Path) -> list[Result]:
    """Measure Flower.

    Parameters
    ----------
    python
        The interpreter of an environment that has ``flwr``.
    """
    result, began = Result("Flower, no step taken"), time.monotonic()
    ports = free_ports(1 + case.sites)
    _write(case, folder, ports[0])
    startup = stock_kits(case, folder / "kits", ports[0]).server / "startup"
    root = ["--root-certificates", startup / "rootCA.pem"]
    tls = ["--ssl-certfile", startup / "server.crt", "--ssl-keyfile", startup / "server.key"]
    tls += ["--ssl-ca-certfile", startup / "rootCA.pem"]
    with ExitStack() as stack:
        stack.enter_context(marked(folder))

        def begin(name: str, *words: object) -> "subprocess.Popen[bytes]":
            path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
            own = {**os.environ, **_SETTINGS, "FLWR_HOME": str(folder / "home"), "PATH": path, "PYTHONPATH": ""}
            log = stack.enter_context((folder / f"{name}.txt").open("wb"))
            command = [str(python.parent / str(words[0])), *map(str, words[1:])]
            return subprocess.Popen(command, stdout=log, stderr=log, env=own, cwd=folder)

        where = ("--host", "localhost", "--port")
        begin("server", "flower-superlink", *where, ports[0], *tls, "--disable-runtime-dependency-installation")
        result.starts["server ready"] = wait_for(lambda: _listens(ports[0]), 60, "Flower's server listens")
        for name, port in zip(case.names, ports[1:], strict=True):
            begin(name, "flower-supernode", "--superlink", f"localhost:{ports[0]}", *root, *where, port)
        stack.enter_context(memory_watched(folder, ROLES, result.memory))
        stamps, submitted = folder / "stamps", time.time()
        begin("run", "flwr", "run", folder / "app", "benchmark")
        left = case.limit - (time.monotonic() - began)
        wait_for(lambda: len(_stamps(stamps)) > case.rounds, left, f"{case.rounds} rounds of Flower")
    times = _stamps(stamps)
    result.rounds = differences(times)[1:]
    result.starts["submitted to first round"] = times[0] - submitted
    return [result]


def _write(case: Case, folder: Path, port: int) -> None:
    shared, _ = part_model(model_of(case.model, "any")[1], FFL)
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in shared.items()}
    np.savez(folder / "state.npz", **arrays)
    (folder / "app").mkdir()
    settings = {"folder": folder, "sites": case.sites, "rounds": case.rounds}
    (folder / "app" / "pyproject.toml").write_text(_PROJECT.format(**settings))
    (folder / "app" / "app.py").write_text(_APP)
    (folder / "home").mkdir()
    root = folder / "kits" / "benchmark" / "prod_00" / "localhost" / "startup" / "rootCA.pem"
    (folder / "home" / "config.toml").write_text(
        f'[superlink]\ndefault = "benchmark"\n[superlink.benchmark]\naddress = "localhost:{port}"\n'
        f'root-certificates = "{root}"\n'
    )


def _stamps(file: Path) -> list[float]:
    return [float(line) for line in file.read_text().splitlines()] if file.exists() else []


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
