"""A kit looked at before anything is started from it: whole, its owner's, of one federation, and not expired.

The engine itself says little: with a certificate missing or foreign a site tries for ever, in silence.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import Certificate, load_pem_x509_certificate
from cryptography.x509.oid import NameOID

from polyhead.deployment.agreed import Agreed, read_agreement
from polyhead.deployment.weights import check_weights
from polyhead.errors import RunError, StudyError
from polyhead.flare.layout import AGREEMENT, local_folder
from polyhead.limited_file import read_limited

__all__ = ["SOON", "Kit", "Role", "open_kit"]

Role = Literal["server", "site", "coordinator"]
"""Whose kit it is."""

SOON = 30
"""So many days before its certificate's last, a kit should be renewed."""

_MOST_BYTES = 2**20
_SETTINGS: Mapping[Role, str] = {
    "server": "fed_server.json",
    "site": "fed_client.json",
    "coordinator": "fed_admin.json",
}
_AGAIN = "Ask the coordinator for the kit again."


@dataclass(frozen=True)
class Kit:
    """A kit that is in order.

    Attributes
    ----------
    name
        Its owner's, as its certificate has it; of a server the host.
    host, port
        Where the server is.
    until
        When the first of its certificates expires.
    """

    folder: Path
    name: str
    host: str
    port: int
    agreed: Agreed
    until: datetime

    @property
    def days_left(self) -> int:
        """Whole days until a certificate expires."""
        return (self.until - datetime.now(UTC)).days


def open_kit(folder: Path, role: Role) -> Kit:
    """Check a kit.

    Raises
    ------
    RunError
        If it is not whole, another's, expired, or not of one federation.
    """
    startup = folder / "startup"
    settings = _settings(folder, role)
    name, host, port = _places(startup / _SETTINGS[role], settings, role)
    own = "server" if role == "server" else "client"
    files = {what: startup / file for what, file in _files(own).items()}
    for file in files.values():
        if not file.is_file():
            raise RunError(f"{file}: is missing. {_AGAIN}")
    certificate, authority = _certificate(files["certificate"]), _certificate(files["authority"])
    _check_pair(files, certificate)
    _check_issuer(files, certificate, authority)
    _check_name(files["certificate"], certificate, name)
    for file, one in ((files["certificate"], certificate), (files["authority"], authority)):
        _check_dates(file, one)
    until = min(certificate.not_valid_after_utc, authority.not_valid_after_utc)
    agreed = _agreement(folder, name if role == "site" else None)
    if agreed.weights and role != "coordinator":
        check_weights(agreed.weights)
    return Kit(folder, name, host, port, agreed, until)


def _files(own: str) -> dict[str, str]:
    return {"key": f"{own}.key", "certificate": f"{own}.crt", "authority": "rootCA.pem"}


def _settings(folder: Path, role: Role) -> Any:
    here = [one for one, file in _SETTINGS.items() if (folder / "startup" / file).is_file()]
    if not here:
        raise RunError(f"{folder}: is no kit: {folder / 'startup' / _SETTINGS[role]} is missing. {_AGAIN}")
    if role not in here:
        raise RunError(f"{folder}: is the kit of a {here[0]}; this command needs that of a {role}.")
    file = folder / "startup" / _SETTINGS[role]
    try:
        return json.loads(read_limited(file, RunError, _MOST_BYTES))
    except (ValueError, RecursionError) as problem:
        raise RunError(f"{file}: is damaged ({problem}). {_AGAIN}") from problem


def _places(file: Path, settings: Any, role: Role) -> tuple[str, str, int]:
    """Return the owner's name, and the server's host and port."""
    try:
        if role == "coordinator":
            about = settings["admin"]
            return str(about["username"]), str(about["host"]), int(about["port"])
        host, _, port = settings["servers"][0]["service"]["target"].rpartition(":")
        return host if role == "server" else str(settings["client"]["fqsn"]), str(host), int(port)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as problem:
        raise RunError(f"{file}: is damaged (no {problem}). {_AGAIN}") from problem


def _certificate(file: Path) -> Certificate:
    try:
        return load_pem_x509_certificate(read_limited(file, RunError, _MOST_BYTES))
    except ValueError as problem:
        raise RunError(f"{file}: is no certificate. {_AGAIN}") from problem


def _check_pair(files: Mapping[str, Path], certificate: Certificate) -> None:
    try:
        key = load_pem_private_key(read_limited(files["key"], RunError, _MOST_BYTES), password=None)
    except (ValueError, TypeError) as problem:
        raise RunError(f"{files['key']}: is no private key. {_AGAIN}") from problem
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise RunError(f"{files['key']}: does not belong to {files['certificate'].name}. {_AGAIN}")


def _check_issuer(files: Mapping[str, Path], certificate: Certificate, authority: Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as problem:
        raise RunError(
            f"{files['certificate']}: was not issued by the authority of this kit, {files['authority'].name}: it is of "
            f"another federation, or self-signed. {_AGAIN}"
        ) from problem


def _check_name(file: Path, certificate: Certificate, name: str) -> None:
    found = [str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if found != [name]:
        raise RunError(f"{file}: is of {', '.join(found) or 'nobody'}, the kit of {name}. {_AGAIN}")


def _check_dates(file: Path, certificate: Certificate) -> None:
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        day = certificate.not_valid_after_utc.date()
        raise RunError(f"{file}: expired on {day}. Ask the coordinator for kits of a new federation.")
    if now < certificate.not_valid_before_utc:
        began = certificate.not_valid_before_utc
        raise RunError(f"{file}: is valid from {began:%Y-%m-%d %H:%M} UTC on. Set this machine's clock, or wait.")


def _agreement(folder: Path, site: str | None) -> Agreed:
    file = local_folder(folder) / AGREEMENT
    try:
        agreed = read_agreement(file)
    except StudyError as problem:
        raise RunError(str(problem)) from problem
    if site is not None and site not in agreed.sites:
        raise RunError(f"{file}: its sites are {', '.join(agreed.sites)}, and the kit's is {site}. {_AGAIN}")
    return agreed
