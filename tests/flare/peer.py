"""One end of the engine's own line, without anything of ours: a server that notes what arrives, or a site that sends.

Run as ``python -m tests.flare.peer KIT PORT``; what it has to say are lines on the standard output.
"""

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

from nvflare.fuel.f3.cellnet.cell import Cell
from nvflare.fuel.f3.cellnet.utils import new_cell_message
from nvflare.fuel.f3.drivers.driver_params import DriverParams

CHANNEL, TOPIC = "server_command", "update"
# Seconds until the site takes a message for lost, and sends it again.
RECEIPT = 4.0


def update(number: int) -> bytes:
    """As long as a small network's, and never the same."""
    return number.to_bytes(4, "big") + hashlib.shake_256(str(number).encode()).digest(336_000)


def open_cell(kit: Path, port: int) -> Any:
    """Open the end that a kit is for."""
    names = {"a": "a", "server": "localhost"}
    server = (kit / "startup" / "server.key").exists()
    who = (
        (DriverParams.SERVER_CERT, DriverParams.SERVER_KEY)
        if server
        else (DriverParams.CLIENT_CERT, DriverParams.CLIENT_KEY)
    )
    files = ("server.crt", "server.key") if server else ("client.crt", "client.key")
    keys = {DriverParams.CA_CERT.value: str(kit / "startup" / "rootCA.pem")}
    keys |= {one.value: str(kit / "startup" / file) for one, file in zip(who, files, strict=True)}
    name = "server" if server else "a"
    url = f"grpc://localhost:{port}"
    return Cell(name, url, True, keys, False, auth_identity=names[name], auth_identity_map=names)


def listen(cell: Any) -> None:
    """Say of each update its number, and whether it is what was sent."""

    def receive(message: Any) -> Any:
        content = bytes(message.payload)
        number = int.from_bytes(content[:4], "big")
        print(number, content == update(number), flush=True)
        return new_cell_message({"return_code": "ok"}, b"received")

    cell.register_request_cb(channel=CHANNEL, topic=TOPIC, cb=receive)
    cell.start()
    while True:
        time.sleep(60)


def send(cell: Any) -> None:
    """Send one update after the other, each until there is a receipt."""
    cell.start()
    number = 0
    while True:
        message = new_cell_message({}, update(number))
        reply = cell.send_request(
            channel=CHANNEL, target="server", topic=TOPIC, request=message, timeout=RECEIPT, optional=True
        )
        if reply.get_header("return_code") == "ok":
            print(number, flush=True)
            number += 1
        time.sleep(0.3)


if __name__ == "__main__":
    kit = Path(sys.argv[1])
    end = open_cell(kit, int(sys.argv[2]))
    try:
        (listen if (kit / "startup" / "server.key").exists() else send)(end)
    finally:
        os._exit(0)
