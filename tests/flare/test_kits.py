"""Kits hold what their owner needs, nothing of another's, and close what the engine leaves open."""

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.fl_exception import NotAuthenticated

from polyhead.errors import RunError
from polyhead.flare.inner import InnerDriver
from polyhead.flare.kits import Kits, Server, provision, settle
from polyhead.flare.twin import TwinGuard

ADMIN = "coordinator@federation.example"


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Kits:
    out = tmp_path_factory.mktemp("federation") / "kits"
    return provision(out, '{"agreed": 1}', ["a", "b"], Server("localhost", 8002, 8003), ADMIN)


def local(kit: Path, name: str) -> Any:
    return json.loads((kit / "local" / name).read_text())


def components(kit: Path) -> dict[str, Any]:
    return {one["id"]: one for one in local(kit, "resources.json")["components"]}


def test_everybody_holds_the_same_agreement(kits: Kits) -> None:
    for kit in (kits.server, *kits.sites.values()):
        assert (kit / "local" / "agreement.json").read_text() == '{"agreed": 1}'


def test_a_certificate_carries_its_owners_name_and_no_key_is_in_two_kits(kits: Kits) -> None:
    keys = set()
    for name, kit, file in (
        ("localhost", kits.server, "server"),
        (ADMIN, kits.admin, "client"),
        *((site, kit, "client") for site, kit in kits.sites.items()),
    ):
        certificate = x509.load_pem_x509_certificate((kit / "startup" / f"{file}.crt").read_bytes())
        assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == name
        keys.add((kit / "startup" / f"{file}.key").read_text())
    assert len(keys) == 4


def test_what_was_lost_with_its_line_is_sent_again_within_two_minutes(kits: Kits) -> None:
    # The engine's own variables for single questions cannot make it shorter than this one.
    for kit in kits.sites.values():
        assert local(kit, "resources.json")["client"]["communication_timeout"] == 120


def test_only_our_classes_may_be_named_by_a_job_and_none_may_be_shipped(kits: Kits) -> None:
    for kit in (kits.server, *kits.sites.values()):
        settings = local(kit, "resources.json")
        assert settings["class_list_enforcement_mode"] == "enforce"
        # A package would allow every callable that any of its modules imports.
        assert settings["class_allow_list"] == [
            "polyhead.flare.controller.FederationController",
            "polyhead.flare.executor.FederationExecutor",
        ]
        roles = local(kit, "authorization.json")["permissions"]
        assert [(role["byoc"], role["shell_commands"]) for role in roles.values()] == [("none", "none")]


def test_a_gate_stands_at_each_house(kits: Kits) -> None:
    for kit in (kits.server, *kits.sites.values()):
        assert components(kit)["gate"]["path"] == "polyhead.flare.gate.Gate"


def test_the_processes_of_a_house_speak_on_lines_that_no_other_user_has(kits: Kits) -> None:
    for kit in (kits.server, *kits.sites.values()):
        assert local(kit, "comm_config.json")["internal"]["scheme"] == InnerDriver.supported_transports()[0]


def test_sites_stream_no_logs_and_outlive_the_death_of_a_job(kits: Kits) -> None:
    for kit in kits.sites.values():
        assert local(kit, "resources.json")["allow_log_streaming"] is False
        assert "site_log_streamer" not in components(kit)
        assert components(kit)["process_launcher"]["path"] == "polyhead.flare.launcher.SiteJobLauncher"
    assert "log_receiver" not in components(kits.server)


def test_what_the_server_keeps_is_in_its_kit(kits: Kits) -> None:
    # Where the engine keeps jobs unless told otherwise: two servers of a machine would share it.
    assert "/tmp/nvflare" not in (kits.server / "local" / "resources.json").read_text()  # noqa: S108
    assert components(kits.server)["job_manager"]["args"]["uri_root"].startswith(str(kits.server.absolute()))


def test_the_authority_keeps_its_own_key_and_nobody_elses(kits: Kits) -> None:
    (file,) = (path for path in (kits.server.parent / "authority").rglob("*") if path.is_file())
    assert file.stat().st_mode & 0o077 == 0
    content = json.loads(file.read_text())
    assert "PRIVATE KEY" in content.pop("root_pri_key")
    assert "PRIVATE KEY" not in json.dumps(content)


def test_no_key_but_its_own_is_in_a_kit(kits: Kits) -> None:
    for kit, own in ((kits.server, "server"), *((kit, "client") for kit in (kits.admin, *kits.sites.values()))):
        files = (path for path in kit.rglob("*") if path.is_file() and "PRIVATE KEY" in path.read_text())
        assert [file.name for file in files] == [f"{own}.key"]


def test_only_its_owner_can_look_into_a_kit(kits: Kits) -> None:
    for kit in (kits.server, kits.admin, *kits.sites.values(), kits.server.parent / "authority"):
        assert kit.stat().st_mode & 0o077 == 0


def test_server_and_sites_hold_the_initial_weights_for_reading_alone(tmp_path: Path) -> None:
    (tmp_path / "start").write_bytes(b"weights")
    made = provision(tmp_path / "kits", "{}", ["a"], Server("localhost", 8002, 8003), ADMIN, weights=tmp_path / "start")
    for kit in (made.server, made.sites["a"]):
        file = kit / "local" / "weights.safetensors"
        assert file.read_bytes() == b"weights"
        assert file.stat().st_mode & 0o777 == 0o400
    assert not (made.admin / "local" / "weights.safetensors").exists()


def test_keys_are_never_overwritten(kits: Kits) -> None:
    with pytest.raises(RunError, match="never overwritten"):
        provision(kits.server.parent, "{}", ["a"], Server("localhost", 8002, 8003), ADMIN)


def test_a_kit_may_be_carried_elsewhere(kits: Kits, tmp_path: Path) -> None:
    moved = tmp_path / "server"
    shutil.copytree(kits.server, moved)
    settle(moved)
    assert str(kits.server) not in (moved / "local" / "resources.json").read_text()


def registering(name: str, here: Mapping[str, float]) -> FLContext:
    """What the engine tells when a site registers; `here` says when the others gave a sign of life."""
    clients = [SimpleNamespace(name=site, last_connect_time=heard) for site, heard in here.items()]
    context, peer = FLContext(), FLContext()
    peer.set_prop(ReservedKey.IDENTITY_NAME, name, private=False)
    context.set_peer_context(peer)
    context.set_prop(ReservedKey.ENGINE, SimpleNamespace(get_clients=lambda: clients))
    return context


@pytest.mark.parametrize(("silent", "refused"), [(0, True), (20, True), (30, False)])
def test_a_name_is_free_once_its_house_is_silent(kits: Kits, silent: float, refused: bool) -> None:
    guard = TwinGuard(**components(kits.server)["twin_guard"]["args"])
    context = registering("a", {"a": time.time() - silent, "b": time.time()})
    guard.handle_event(EventType.CLIENT_REGISTER_RECEIVED, context)
    problems = context.get_prop(FLContextKey.EXCEPTIONS) or {}
    assert [type(problem) for problem in problems.values()] == ([NotAuthenticated] if refused else [])


def test_a_name_that_nobody_has_is_free() -> None:
    context = registering("a", {"b": time.time()})
    TwinGuard(25).handle_event(EventType.CLIENT_REGISTER_RECEIVED, context)
    assert not context.get_prop(FLContextKey.EXCEPTIONS)
