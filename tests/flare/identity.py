"""Kits of people who should not get in, and what else the tests of houses share."""

import datetime
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from polyhead.flare.processes import start
from tests.flare.houses import Houses

DAY = datetime.timedelta(days=1)


def wait_for(what: str, happened: Callable[[], bool], seconds: float = 60) -> float:
    """Wait until something happened; return after how many seconds."""
    began = time.monotonic()
    while not happened():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - began


def output(kit: Path) -> str:
    """What the processes of a kit printed so far."""
    file = kit / "output.txt"
    return file.read_text(errors="replace") if file.exists() else ""


def copy_kit(kit: Path, to: Path) -> Path:
    """Copy a kit as somebody would carry it to another machine: without the traces of what runs."""
    return Path(shutil.copytree(kit, to, ignore=shutil.ignore_patterns("*.fl", "output.txt")))


def start_kit(houses: Houses, name: str, kit: Path) -> None:
    """Start a kit that is none of the federation's own; it ends with the houses."""
    with (kit / "output.txt").open("ab") as log:
        houses.running[name] = start(kit, log)


@contextmanager
def with_module(folder: str, name: str, value: Path) -> Iterator[None]:
    """Have what is started meanwhile load the `sitecustomize` of a folder beside this file, and tell it a place."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(Path(__file__).parent / folder), prepend=os.pathsep)
        patched.setenv(name, str(value))
        yield


def certify(kit: Path, name: str, authority: Path | None, expired: bool = False) -> None:
    """Give a site's kit a new key and a certificate for a name: of a federation's authority, or signed by itself."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    issuer, signer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key
    if authority:
        state = json.loads((authority / "polyhead" / "state" / "cert.json").read_text())
        signer = serialization.load_pem_private_key(state["root_pri_key"].encode(), None)
        issuer = x509.load_pem_x509_certificate(state["root_cert"].encode()).subject
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 30 * DAY)
        .not_valid_after(now - DAY if expired else now + DAY)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    (kit / "startup" / "client.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = (serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    (kit / "startup" / "client.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))


def ports_of(houses: Houses) -> tuple[int, int]:
    """Where the server listens for sites and for the coordinator."""
    about = json.loads((houses.kits.server / "startup" / "fed_server.json").read_text())["servers"][0]
    return int(about["service"]["target"].split(":")[1]), int(about["admin_port"])
