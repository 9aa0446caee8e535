"""People who sit at the same machine, and what a house under test shows them."""

import os
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import psutil
from nvflare.fuel.f3.endpoint import Endpoint
from nvflare.fuel.f3.sfm.constants import Types
from nvflare.fuel.f3.sfm.sfm_conn import SfmConnection

from tests.flare.houses import Houses

NOBODY = 65534
# Becomes another user once it has loaded what it needs: Python may lie where that one may not look. Says what it heard.
_SPEAK = """
import os, socket, sys
os.setuid(int(sys.argv[2]))
line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
line.settimeout(20)
line.connect(b"\\0" + sys.argv[1].encode())
try:
    line.sendall(bytes.fromhex(sys.argv[3]))
    print(line.recv(1000).hex())
except ConnectionError:
    print()
"""


def speak(door: str, words: bytes, user: int | None = None) -> bytes:
    """Say something at a door as another user, who is root's to choose; return the answer, empty if there is none."""
    given = [sys.executable, "-c", _SPEAK, door, str(os.getuid() if user is None else user), words.hex()]
    return bytes.fromhex(subprocess.run(given, capture_output=True, text=True, check=True, timeout=60).stdout.strip())


def hello(name: str) -> bytes:
    """Return what a process says first in the engine's language."""
    said: list[bytes] = []
    line = SimpleNamespace(name="one", send_frame=lambda frame: said.append(bytes(frame)))
    SfmConnection(line, Endpoint(name)).send_handshake(Types.HELLO)
    return b"".join(said)


def doors_of(houses: Houses, name: str) -> tuple[set[int], set[str]]:
    """Return at which ports, and under which names, the processes of a house listen."""
    ports, names = set(), set()
    parent = psutil.Process(houses.running[name].pid)
    for one in (parent, *parent.children(recursive=True)):
        # A job's process may end meanwhile.
        with suppress(psutil.NoSuchProcess):
            for line in one.net_connections("all"):
                if line.status == psutil.CONN_LISTEN:
                    ports.add(line.laddr.port)
                elif str(line.laddr).startswith("@polyhead-"):
                    names.add(str(line.laddr).removeprefix("@"))
    return ports, names
