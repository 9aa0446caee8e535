"""A house hears its server, and the server each house for itself; nobody is asked for more than a job."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, MessagePropKey
from nvflare.fuel.f3.message import Message
from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors

from polyhead.flare.gate import NEEDED, Gate

Judge = Callable[[Message], Any]


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    """What the gate hangs into the engine."""
    monkeypatch.setattr(ClientRequestProcessors, "request_processors", list(ClientRequestProcessors.request_processors))
    hung: list[Judge] = []
    core = SimpleNamespace(add_incoming_filter=lambda channel, topic, cb: hung.append(cb))
    context = FLContext()
    context.set_prop(FLContextKey.SITE_OBJ, SimpleNamespace(cell=SimpleNamespace(core_cell=core)), private=True)
    Gate().handle_event(EventType.SYSTEM_BOOTSTRAP, context)
    (one,) = hung
    return one


def message(line: str, origin: str, goal: str) -> Message:
    made = Message({MessageHeaderKey.ORIGIN: origin, MessageHeaderKey.DESTINATION: goal})
    made.set_prop(MessagePropKey.ENDPOINT, SimpleNamespace(name=line))
    return made


@pytest.mark.parametrize(
    ("line", "origin", "goal"),
    [
        ("a", "a", "server"),
        ("a.job", "a.job", "server.job"),
        ("a", "a.job", "server.job"),
        ("server", "server.job", "a.job"),
        ("server.job", "server.job", "a.job"),
        ("a.job", "a.job", "a"),
        ("_admin_1", "_admin_1", "server"),
    ],
)
def test_what_comes_in_its_own_name_for_or_from_the_server_passes(
    judge: Judge, line: str, origin: str, goal: str
) -> None:
    assert judge(message(line, origin, goal)) is None


@pytest.mark.parametrize(
    ("line", "origin", "goal"),
    [
        ("b", "b", "a"),
        ("b.job", "b.job", "a.job"),
        ("b", "server", "a"),
        ("b", "a", "server"),
        ("b", "a.job", "server.job"),
        ("server", "b", "a"),
        ("_admin_1", "_admin_1", "a"),
        ("_admin_1", "server", "server"),
        ("ab", "a", "server"),
    ],
)
def test_what_comes_in_anothers_name_or_is_for_another_house_is_dropped(
    judge: Judge, line: str, origin: str, goal: str
) -> None:
    assert judge(message(line, origin, goal)) is not None


def test_a_site_does_nothing_for_its_server_but_a_job(judge: Judge) -> None:
    assert {topic for one in ClientRequestProcessors.request_processors for topic in one.get_topics()} == NEEDED
    assert not [topic for topic in NEEDED if "shell" in topic or "log" in topic or "report" in topic]
