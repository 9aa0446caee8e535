"""A kit that cannot work is told from one that can before anything is started from it."""

import datetime
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from polyhead.cli import main
from polyhead.errors import RunError
from polyhead.flare import preflight
from polyhead.flare.kits import Kits, Server, provision
from polyhead.flare.preflight import Role, open_kit
from polyhead.flare.processes import remove_jobs, silenced
from tests.flare.identity import certify

ADMIN = "coordinator@federation.example"
AGREEMENT = json.dumps({"settings": {}, "sites": ["a", "b"]})


def kits_in(folder: Path) -> Kits:
    with silenced():
        return provision(folder, AGREEMENT, ["a", "b"], Server("localhost", 8002, 8002), ADMIN)


@pytest.fixture(scope="module")
def federations(tmp_path_factory: pytest.TempPathFactory) -> tuple[Kits, Kits]:
    folder = tmp_path_factory.mktemp("federations")
    return kits_in(folder / "ours"), kits_in(folder / "theirs")


@pytest.fixture
def kit(federations: tuple[Kits, Kits], tmp_path: Path) -> Path:
    """A copy of the kit of site a, to spoil."""
    return Path(shutil.copytree(federations[0].sites["a"], tmp_path / "a"))


def refused(
    kit: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...] = ()
) -> str:
    """Join with a kit; return the one line that is said."""

    def start(kit: Path, log: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr("polyhead.flare.foreground.start", start)
    given = command or ("site", "join", str(kit), "absent.toml", "--yes")
    monkeypatch.setattr(sys, "argv", ["polyhead", *given])
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 1
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err


def test_a_whole_kit_is_read(federations: tuple[Kits, Kits]) -> None:
    ours = federations[0]
    whose: list[tuple[Path, Role, str]] = [(ours.server, "server", "localhost"), (ours.sites["b"], "site", "b")]
    for folder, role, name in whose:
        kit = open_kit(folder, role)
        assert (kit.name, kit.host, kit.port, kit.agreed.sites) == (name, "localhost", 8002, ("a", "b"))
        assert 355 <= kit.days_left <= 360


def lose(file: str) -> Callable[[Path, Kits], None]:
    return lambda kit, theirs: (kit / file).unlink()


def write(file: str, text: str) -> Callable[[Path, Kits], None]:
    return lambda kit, theirs: (kit / file).write_text(text) and None


def take(*files: str, whose: str = "a") -> Callable[[Path, Kits], None]:
    """Put files of another federation's kit, or of another site, in their places."""

    def spoil(kit: Path, theirs: Kits) -> None:
        for file in files:
            shutil.copy(theirs.sites[whose] / "startup" / file, kit / "startup" / file)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lose("startup/client.key"), "client.key: is missing. Ask the coordinator for the kit again."),
        (lose("startup/client.crt"), "client.crt: is missing."),
        (lose("startup/rootCA.pem"), "rootCA.pem: is missing."),
        (lose("startup/fed_client.json"), "is no kit"),
        (lose("local/agreement.json"), "agreement.json: cannot be read"),
        (write("startup/client.key", "secret"), "client.key: is no private key."),
        (write("startup/client.crt", "-----BEGIN CERTIFICATE-----"), "client.crt: is no certificate."),
        (write("startup/fed_client.json", "{}"), "fed_client.json: is damaged"),
        (write("startup/fed_client.json", "[" * 100_000), "fed_client.json: is damaged"),
        (write("local/agreement.json", "{"), "agreement.json: is no agreement of hospitals"),
        (write("local/agreement.json", '{"settings": {}, "sites": ["b"]}'), "its sites are b, and the kit's is a."),
        (take("client.key"), "client.key: does not belong to client.crt."),
        (take("client.crt", "client.key"), "it is of another federation, or self-signed."),
        (take("rootCA.pem"), "it is of another federation, or self-signed."),
    ],
)
def test_a_kit_that_is_not_whole_is_refused_in_one_line(
    spoil: Callable[[Path, Kits], None],
    said: str,
    kit: Path,
    federations: tuple[Kits, Kits],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(kit, federations[1])
    assert said in refused(kit, monkeypatch, capsys)


def test_anothers_certificate_is_refused(
    kit: Path, federations: tuple[Kits, Kits], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    take("client.crt", "client.key", whose="b")(kit, federations[0])
    assert "client.crt: is of b, the kit of a." in refused(kit, monkeypatch, capsys)


def test_a_certificate_signed_by_itself_is_refused(
    kit: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    certify(kit, "a", None)
    assert "or self-signed." in refused(kit, monkeypatch, capsys)


def test_an_expired_certificate_is_refused_with_its_day(
    kit: Path, federations: tuple[Kits, Kits], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = federations[0].server.parent / "authority"
    certify(kit, "a", authority, expired=True)
    yesterday = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)).date()
    assert f"client.crt: expired on {yesterday}." in refused(kit, monkeypatch, capsys)


def test_a_certificate_that_is_about_to_expire_is_warned_about(
    kit: Path, federations: tuple[Kits, Kits], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    certify(kit, "a", federations[0].server.parent / "authority")
    assert open_kit(kit, "site").days_left == 0
    monkeypatch.setattr(sys, "argv", ["polyhead", "site", "join", str(kit), "absent.toml", "--yes"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err.startswith("warning: this kit's certificates expire in 0 days")


def test_a_clock_that_is_wrong_is_named(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return datetime.datetime(2001, 1, 1, tzinfo=tz)

    monkeypatch.setattr(preflight, "datetime", Clock)
    with pytest.raises(RunError, match="Set this machine's clock"):
        open_kit(kit, "site")


def test_a_kit_is_used_for_what_it_is(
    federations: tuple[Kits, Kits], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = federations[0]
    said = refused(ours.server, monkeypatch, capsys)
    assert "is the kit of a server; this command needs that of a site." in said
    said = refused(ours.sites["a"], monkeypatch, capsys, ("federation", "server", str(ours.sites["a"])))
    assert "is the kit of a site; this command needs that of a server." in said


def test_folders_of_jobs_are_removed_and_nothing_else(kit: Path) -> None:
    job = kit / "0b0c6d4e-1c9e-4cf1-9a2e-3c2f8f9b8a11"
    job.mkdir()
    (job / "meta.json").write_text("{}")
    before = sorted(path.name for path in kit.iterdir() if path != job)
    remove_jobs(kit)
    assert sorted(path.name for path in kit.iterdir()) == before


def test_other_initial_weights_than_were_agreed_on_are_told(kit: Path) -> None:
    weights = kit / "local" / "weights.safetensors"
    agreed = {"settings": {}, "sites": ["a", "b"], "weights": hashlib.sha256(b"ours").hexdigest()}
    (kit / "local" / "agreement.json").write_text(json.dumps(agreed))
    with pytest.raises(RunError, match=r"weights\.safetensors: cannot be read"):
        open_kit(kit, "site")
    weights.write_bytes(b"theirs")
    with pytest.raises(RunError, match=r"not what the hospitals agreed on.*Ask the coordinator"):
        open_kit(kit, "site")
    weights.write_bytes(b"ours")
    assert open_kit(kit, "site").agreed.weights is not None
