"""One house a name: the server refuses a second one while the first gives signs of life.

As shipped, who comes last with a site's kit takes over its name: the first loses its line, and then its place.
"""

import time
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.fl_exception import NotAuthenticated
from nvflare.fuel.f3.comm_error import CommError
from nvflare.fuel.f3.drivers.driver_params import DriverParams
from nvflare.fuel.f3.sfm.constants import HandshakeKeys

__all__ = ["TwinGuard"]


class TwinGuard(FLComponent):
    """Watches who comes in; named in the server's ``resources.json``.

    A site that restarts after a crash is taken for a twin until its last sign of life is old enough. The engine's
    script tries five times, each at least five seconds after the last, so that it is in within half a minute or so.

    Parameters
    ----------
    silence
        Seconds without a sign of life after which the name is free. Sites give one every ten seconds.
    """

    def __init__(self, silence: float) -> None:
        super().__init__()
        self._silence = silence

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Watch the server's lines from its start on, and who registers."""
        if event_type == EventType.SYSTEM_BOOTSTRAP:
            self._watch(fl_ctx.get_prop(FLContextKey.SITE_OBJ).cell.core_cell.communicator.conn_manager)
        elif event_type == EventType.CLIENT_REGISTER_RECEIVED:
            self._check(fl_ctx)

    def _watch(self, lines: Any) -> None:
        """Refuse a second line of a house: the engine would cut the first, and whatever was being said on it."""
        admit = lines.update_endpoint

        def admit_one(line: Any, about: dict[str, Any]) -> None:
            name = about[HandshakeKeys.ENDPOINT_NAME]
            first = lines.sfm_endpoints.get(name)
            # Whose certificate has another name is refused by the engine; a job's process has a name of its own.
            if first and name == line.conn.get_conn_properties().get(DriverParams.PEER_CN.value):
                for other in list(first.connections):
                    age = time.time() - other.last_activity
                    if other is not line and age < self._silence:
                        line.conn.close()
                        raise CommError(CommError.BAD_DATA, self._refusal(name, age))
            admit(line, about)

        lines.update_endpoint = admit_one

    def _check(self, fl_ctx: FLContext) -> None:
        """Refuse who registers in the moment in which the first has no line."""
        name = fl_ctx.get_peer_context().get_identity_name()
        for client in fl_ctx.get_engine().get_clients():
            age = time.time() - client.last_connect_time
            if client.name == name and age < self._silence:
                # Raised here, the engine would log it with a traceback.
                refused = fl_ctx.get_prop(FLContextKey.EXCEPTIONS) or {}
                refused[self.name] = NotAuthenticated(self._refusal(name, age))
                fl_ctx.set_prop(FLContextKey.EXCEPTIONS, refused, private=True, sticky=False)

    def _refusal(self, name: str, age: float) -> str:
        return (
            f"site {name!r} is here already; its last sign of life came {age:.0f} s ago. Only one house may use a kit: "
            f"end one of the two. After a crash it is let in {self._silence:g} s after that sign."
        )
