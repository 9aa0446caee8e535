"""Who may say what to whom; named in the ``resources.json`` of server and sites.

As shipped, the server passes on whatever one site sends to another, and a site does what a message asks, whoever sent
it: it asks for rights only where the message itself wants that.
"""

import logging
from collections.abc import Iterable
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.fuel.f3.cellnet.core_cell import make_reply
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, MessagePropKey, ReturnCode
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.fuel.f3.message import Message
from nvflare.private.defs import TrainingTopic
from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors

__all__ = ["NEEDED", "Gate"]

_log = logging.getLogger(__name__)

NEEDED = frozenset(
    {
        *(TrainingTopic.CHECK_RESOURCE, TrainingTopic.CANCEL_RESOURCE),
        *(TrainingTopic.DEPLOY, TrainingTopic.START_JOB, TrainingTopic.NOTIFY_JOB_STATUS),
        *(TrainingTopic.ABORT, TrainingTopic.DELETE_RUN, TrainingTopic.SHUTDOWN),
    }
)
"""All that a site does for its server beside answering questions: it takes up a job, ends it, and stops."""


class Gate(FLComponent):
    """Lets through what comes in its sender's own name and is for the server, or from it; takes away other commands."""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Stand at the entrance from the start on."""
        if event_type == EventType.SYSTEM_BOOTSTRAP:
            fl_ctx.get_prop(FLContextKey.SITE_OBJ).cell.core_cell.add_incoming_filter("*", "*", _refuse_stray)
            known = ClientRequestProcessors.request_processors
            known[:] = [one for one in known if _is_needed(one.get_topics())]


def _is_needed(topics: Iterable[str]) -> bool:
    return set(topics) <= NEEDED


def _refuse_stray(message: Message) -> Any:
    """Return None for a message that may pass, and else what the engine drops it for."""
    line = message.get_prop(MessagePropKey.ENDPOINT).name
    origin, goal = (message.get_header(key) for key in (MessageHeaderKey.ORIGIN, MessageHeaderKey.DESTINATION))
    # The engine holds the name of a line against its certificate; the other two are whatever the sender says.
    house, of, to = (FQCN.get_root(str(one)) for one in (line, origin, goal))
    if of == house and (of == to or FQCN.ROOT_SERVER in (of, to)):
        return None
    _log.warning("dropped a message of %s in the name of %s, for %s: houses speak with the server only.", line, of, to)
    return make_reply(ReturnCode.AUTHENTICATION_ERROR, "not for you")
