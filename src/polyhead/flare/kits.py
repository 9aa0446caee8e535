"""Kits: one folder a party, with its certificate, the agreement, and the engine set up as this federation needs it.

Certificates and scripts come from the engine's own provisioning. What its defaults leave open is closed here.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvflare.lighter.constants import CtxKey
from nvflare.lighter.entity import Project
from nvflare.lighter.impl.cert import CertBuilder
from nvflare.lighter.impl.static_file import StaticFileBuilder
from nvflare.lighter.impl.workspace import WorkspaceBuilder
from nvflare.lighter.provisioner import Provisioner

from polyhead.atomic import write_atomically
from polyhead.deployment.weights import WEIGHTS
from polyhead.errors import RunError, WeightsError
from polyhead.flare.controller import FederationController
from polyhead.flare.executor import FederationExecutor
from polyhead.flare.gate import Gate
from polyhead.flare.inner import SETTINGS
from polyhead.flare.jobs import path_of
from polyhead.flare.layout import AGREEMENT, local_folder
from polyhead.limited_file import read_limited

__all__ = ["Kits", "Server", "provision", "settle"]

_ORGANIZATION = "federation"
_PROJECT = "polyhead"
_MOST_WEIGHTS = 2**34
# Nobody ships code, runs shell commands, or starts another's job again.
_COORDINATOR = {
    **dict.fromkeys(("submit_job", "manage_job", "download_job", "view", "operate"), "any"),
    **dict.fromkeys(("clone_job", "shell_commands", "byoc", "server-predeployed-flwr"), "none"),
}
# Seconds without a sign of life after which a site is not connected, and after which another may take its name.
_SERVER_HEARTBEAT = 60
_TWIN_SILENCE = 25
# After so many seconds without a word a site takes what it asked, or its update, for lost with the line, and sends it
# again; 300 as shipped. A large network on a slow line needs its time: 94 MB at 10 Mbit/s are 75 s.
_RECEIPT = 120.0


@dataclass(frozen=True)
class Server:
    """Where the server is: its host name, under which sites reach it, and its two ports."""

    host: str
    port: int
    admin_port: int


@dataclass(frozen=True)
class Kits:
    """The folders of kits, to be handed to their owners."""

    server: Path
    sites: Mapping[str, Path]
    admin: Path
    admin_name: str


def provision(
    out: Path, agreement: str, sites: Sequence[str], server: Server, admin: str, weights: Path | None = None
) -> Kits:
    """Make the kits of a federation.

    Parameters
    ----------
    out
        A folder that is not there yet. The key of the federation's own authority goes to ``authority``: keep it safe,
        it can make kits for new sites.
    agreement
        See `polyhead.deployment.agreed.agreement_of`.
    admin
        The coordinator's name, such as an e-mail address.
    weights
        The agreement's initial weights. Server and sites get a copy: what stays at a site begins with them, too.

    Raises
    ------
    RunError
        If the folder is there, or the engine cannot make the kits.
    WeightsError
        If the weights cannot be read.
    """
    if out.exists():
        raise RunError(
            f"{out}: is there already, and a federation's keys are never overwritten. Choose another folder."
        )
    project = Project(_PROJECT, "", props={"api_version": 3})
    project.set_server(server.host, _ORGANIZATION, {"fed_learn_port": server.port, "admin_port": server.admin_port})
    for site in sites:
        project.add_client(site, _ORGANIZATION, {"allow_log_streaming": False})
    project.add_admin(admin, _ORGANIZATION, {"role": "project_admin"})
    made = out / "authority"
    made.mkdir(parents=True, mode=0o700)
    builders = [WorkspaceBuilder(), StaticFileBuilder(config_folder="config", scheme="grpc"), CertBuilder()]
    context = Provisioner(str(made), builders).provision(project)
    if context.get(CtxKey.BUILD_ERROR):
        raise RunError(f"{out}: the engine could not make the kits; its messages stand above.")
    _forget_keys(Path(context[CtxKey.CURRENT_PROD_DIR]).parent / "state" / "cert.json")
    kits = _move(Path(context[CtxKey.CURRENT_PROD_DIR]), out, sites, server, admin)
    # By it the coordinator sees whether a study is the one that was agreed on.
    write_atomically(local_folder(kits.admin) / AGREEMENT, agreement)
    _close_server(kits.server, agreement)
    for kit in kits.sites.values():
        _close_site(kit, agreement)
    if weights:
        raw = read_limited(weights, WeightsError, _MOST_WEIGHTS)
        for kit in (kits.server, *kits.sites.values()):
            write_atomically(local_folder(kit) / WEIGHTS, raw, mode=0o400)
    return kits


def settle(kit: Path) -> None:
    """Tell a server's kit where it is: the engine wants whole paths, and kits are carried about. Do it at each start.

    As shipped, jobs lie under the temporary folder, lost when the machine starts anew and open to all.
    """
    file = local_folder(kit) / "resources.json"
    settings = json.loads(file.read_text())
    if "snapshot_persistor" not in settings:
        return
    settings["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(kit.absolute() / "engine" / "snapshots")
    for component in settings["components"]:
        if component["id"] == "job_manager":
            component["args"]["uri_root"] = str(kit.absolute() / "engine" / "jobs")
    write_atomically(file, json.dumps(settings, indent=2))


def _move(made: Path, out: Path, sites: Sequence[str], server: Server, admin: str) -> Kits:
    places = {server.host: out / "server", admin: out / "admin", **{site: out / "sites" / site for site in sites}}
    for name, place in places.items():
        place.parent.mkdir(exist_ok=True)
        shutil.move(made / name, place)
        place.chmod(0o700)
    return Kits(out / "server", {site: places[site] for site in sites}, out / "admin", admin)


def _forget_keys(file: Path) -> None:
    """Leave the authority its own key only: as shipped, it keeps everybody's."""
    state = json.loads(file.read_text())
    for entry in state.values():
        if isinstance(entry, dict):
            entry.pop("pri_key", None)
    write_atomically(file, json.dumps(state), mode=0o600)


def _close_server(kit: Path, agreement: str) -> None:
    settings = _resources(kit)
    settings["servers"][0]["heart_beat_timeout"] = _SERVER_HEARTBEAT
    # Sites stream no logs, so nothing listens for them.
    _drop(settings, "log_receiver")
    guard = {"id": "twin_guard", "path": "polyhead.flare.twin.TwinGuard", "args": {"silence": _TWIN_SILENCE}}
    settings["components"].append(guard)
    _write(kit, settings, agreement)
    settle(kit)


def _close_site(kit: Path, agreement: str) -> None:
    settings = _resources(kit)
    settings["allow_log_streaming"] = False
    settings["client"]["communication_timeout"] = _RECEIPT
    _drop(settings, "site_log_streamer")
    for component in settings["components"]:
        if component["id"] == "process_launcher":
            component["path"] = "polyhead.flare.launcher.SiteJobLauncher"
    _write(kit, settings, agreement)


def _resources(kit: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((local_folder(kit) / "resources.json.default").read_text())
    # All that a job names. A whole package would do for any callable in its modules, `FileIO` and `open_memmap` among
    # them, with the job's own arguments.
    settings["class_allow_list"] = [path_of(FederationController), path_of(FederationExecutor)]
    settings["components"].append({"id": "gate", "path": path_of(Gate), "args": {}})
    return settings


def _drop(settings: dict[str, Any], component: str) -> None:
    settings["components"] = [one for one in settings["components"] if one["id"] != component]


def _write(kit: Path, settings: Mapping[str, Any], agreement: str) -> None:
    local = local_folder(kit)
    rights = {"format_version": "1.0", "permissions": {"project_admin": _COORDINATOR}}
    write_atomically(local / "resources.json", json.dumps(settings, indent=2))
    write_atomically(local / "authorization.json", json.dumps(rights, indent=2))
    write_atomically(local / "comm_config.json", json.dumps(SETTINGS, indent=2))
    write_atomically(local / AGREEMENT, agreement)
