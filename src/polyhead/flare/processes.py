"""Starting and stopping what runs from a kit."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

from polyhead.flare.kits import settle

__all__ = ["request_stop", "start"]

# The engine waits so many seconds for the last word of sites after a job, 900 as shipped; ours was said before.
_SETTINGS = {"NVFLARE_CLIENT_OUTCOME_WAIT_TIMEOUT": "5"}


def start(kit: Path, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Start server or site from its kit, in a process group of its own: the engine kills its whole group at times.

    Parameters
    ----------
    log
        Where what it prints goes.
    """
    settle(kit)
    # The engine's scripts take whatever `python3` comes first.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    script = (kit / "startup" / "sub_start.sh").absolute()
    environment = {**os.environ, **_SETTINGS, "PATH": path}
    return subprocess.Popen(  # noqa: S603
        [str(script)], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
    )


def request_stop(kit: Path) -> None:
    """Ask what runs from a kit to stop; it takes some ten seconds."""
    (kit / "shutdown.fl").touch()
