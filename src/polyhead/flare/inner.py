"""The lines between the processes of one house: a Unix socket, each end of which asks the kernel whose the other is.

As shipped, they talk over a clear port of 127.0.0.1, where every user of the machine may give orders.
"""

import logging
import os
import secrets
import socket
import struct
from collections.abc import Mapping
from socketserver import ThreadingUnixStreamServer
from typing import Any

from nvflare.fuel.f3.comm_error import CommError
from nvflare.fuel.f3.communicator import driver_mgr
from nvflare.fuel.f3.drivers.connector_info import ConnectorInfo
from nvflare.fuel.f3.drivers.driver_params import DriverParams
from nvflare.fuel.f3.drivers.socket_conn import ConnectionHandler, SocketConnection
from nvflare.fuel.f3.drivers.tcp_driver import TcpDriver

__all__ = ["SETTINGS", "InnerDriver", "offer"]

_log = logging.getLogger(__name__)
_SCHEME = "house"
# Process, user and group, as the kernel wrote them down when the line was made: nobody can claim another's.
_WHO = struct.Struct("iII")

SETTINGS: Mapping[str, Any] = {"internal": {"scheme": _SCHEME, "resources": {"connection_security": "clear"}}}
"""What a kit's ``comm_config.json`` says. Without `offer` the engine finds no driver, and opens no line at all."""


def offer() -> None:
    """Let the engine of this process find the driver."""
    if driver_mgr.find_driver_class(_SCHEME) is None:
        driver_mgr.register(InnerDriver)


class InnerDriver(TcpDriver):
    """Takes a line only from, and to, a process of the same user. Needs Linux."""

    @staticmethod
    def supported_transports() -> list[str]:
        """Name the scheme of the lines' addresses."""
        return [_SCHEME]

    @staticmethod
    def capabilities() -> dict[str, Any]:
        """Say that the engine must give signs of life itself, and that there is no TLS."""
        return {**TcpDriver.capabilities(), "support_ssl": False}

    @staticmethod
    def get_urls(scheme: str, resources: Mapping[str, Any]) -> tuple[str, str]:
        """Choose where to listen: a name that is no file, gone with its process, and that nobody can take before."""
        url = f"{scheme}://{secrets.token_hex(16)}"
        return url, url

    def listen(self, connector: ConnectorInfo) -> None:
        """Take lines until the engine stops."""
        self.connector = connector
        self.server = _Door(self, connector)
        self.server.serve_forever()

    def connect(self, connector: ConnectorInfo) -> None:
        """Open a line, and read from it until it is closed.

        Raises
        ------
        CommError
            If who listens is another user.
        """
        self.connector = connector
        line = _Line(socket.AF_UNIX, socket.SOCK_STREAM)
        line.connect(_address(connector))
        if not _is_ours(line):
            line.close()
            raise CommError(CommError.ERROR, "another user listens where this house's own process should")
        connection = SocketConnection(line, connector)
        self.add_connection(connection)
        connection.read_loop()
        self.close_connection(connection)


class _Line(socket.socket):
    """Reads a frame of the engine, of a megabyte, with one call.

    The kernel holds a fifth of one at a time. Each further call has to wait its turn among the threads of its process,
    of which a server with several sites has dozens.
    """

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        return super().recv_into(buffer, nbytes, flags | socket.MSG_WAITALL)


class _Door(ThreadingUnixStreamServer):
    """Where a house's process listens."""

    def __init__(self, driver: InnerDriver, connector: ConnectorInfo) -> None:
        # What the engine's handler of lines looks for.
        self.driver, self.connector, self.ssl_context = driver, connector, None
        super().__init__(_address(connector), ConnectionHandler)

    def get_request(self) -> tuple[_Line, Any]:
        """Take a line."""
        taken, address = self.socket.accept()
        return _Line(fileno=taken.detach()), address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse another user's line, before a byte of it is read."""
        return _is_ours(request)


def _address(connector: ConnectorInfo) -> bytes:
    # The zero makes it a name of the kernel's own.
    return b"\0polyhead-" + str(connector.params[DriverParams.HOST.value]).encode()


def _is_ours(line: socket.socket) -> bool:
    process, user, _ = _WHO.unpack(line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _WHO.size))
    if user != os.geteuid():
        _log.warning("refused a line of user %d, process %d: only this house's own processes talk here.", user, process)
    return bool(user == os.geteuid())
