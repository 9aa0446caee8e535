"""Loaded by every Python process of a site under test: writes down each frame to the server, before TLS."""

import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_DRIVER = "nvflare.fuel.f3.drivers.grpc_driver"
_TO = Path(os.environ["POLYHEAD_WIRETAP"])


class _Tap(MetaPathFinder):
    """Replaces one method of the driver as soon as the driver is imported."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != _DRIVER:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        spec.loader = _Tapped(spec.loader)
        return spec


class _Tapped(Loader):
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        self._loader.exec_module(module)
        send = module.StreamConnection.send_frame

        def send_frame(connection: Any, frame: Any) -> None:
            with (_TO / str(os.getpid())).open("ab") as file:
                file.write(bytes(frame))
            send(connection, frame)

        module.StreamConnection.send_frame = send_frame


sys.meta_path.insert(0, _Tap())
