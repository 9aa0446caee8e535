"""The engine's own bookkeeping with our controller, in one process: each answer counts once, and in its own round."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask
from nvflare.apis.fl_constant import ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.wf_comm_server import WFCommServer
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from polyhead.deployment.agreed import Agreed
from polyhead.deployment.question import Question, Reply
from polyhead.federation.update import SiteUpdate
from polyhead.flare.controller import TASK, FederationController
from polyhead.flare.messages import update_message

AGREED = Agreed({"methods": ["ffl"], "seeds": [0]}, ("a", "b"), "f" * 64)
SHARED = {"backbone.w": torch.zeros(3)}
CLIENTS = {name: Client(name, f"token of {name}") for name in AGREED.sites}


@pytest.fixture
def context() -> FLContext:
    @contextmanager
    def new_context() -> Iterator[FLContext]:
        yield context

    context = FLContext()
    engine = SimpleNamespace(
        get_clients=lambda: list(CLIENTS.values()), fire_event=lambda *given: None, new_context=new_context
    )
    context.set_prop(ReservedKey.ENGINE, engine, private=True, sticky=False)
    return context


@pytest.fixture
def server(context: FLContext) -> WFCommServer:
    controller = FederationController("ffl", 0, 9, "segment", deadline=20.0, silence=20.0)
    communicator = WFCommServer()
    controller.set_communicator(communicator)
    communicator._engine = context.get_engine()
    return communicator


def update(site: str, round_: int, value: float = 0.0) -> Shareable:
    content = SiteUpdate(site, round_, 10, 0.5, {"backbone.w": torch.full((3,), value)})
    return update_message(content, SHARED)


def ask(server: WFCommServer, context: FLContext, round_: int, act: Callable[[dict[str, str]], None]) -> list[Reply]:
    """Ask a and b for a round; `act` gets the engine's number of each one's question, and answers for them."""
    question = Question(AGREED.sha256, "ffl", 0, round_, round_, (), SHARED)
    replies: list[Reply] = []
    asking = threading.Thread(
        target=lambda: replies.extend(
            server.controller._carry(AGREED, dict.fromkeys(AGREED.sites, question), context, Signal())
        )
    )
    asking.start()
    act({site: fetch(server, context, site) for site in AGREED.sites})
    asking.join(20)
    assert not asking.is_alive()
    # As the engine does every half second.
    server.check_tasks()
    return replies


def fetch(server: WFCommServer, context: FLContext, site: str) -> str:
    """Let a site fetch its question, and return its number."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        name, number, _ = server.process_task_request(CLIENTS[site], context)
        if name == TASK:
            return str(number)
        time.sleep(0.01)
    raise AssertionError(f"no question for {site}")


def values(replies: list[Reply]) -> dict[str, float]:
    return {
        one.site: float(one.content.state["backbone.w"][0]) for one in replies if isinstance(one.content, SiteUpdate)
    }


def test_an_answer_of_an_earlier_round_is_dropped_with_a_line_in_the_log(
    server: WFCommServer, context: FLContext, caplog: pytest.LogCaptureFixture
) -> None:
    def send(site: str, number: str, message: Shareable) -> None:
        server.process_submission(CLIENTS[site], TASK, number, message, context)

    stale: dict[str, str] = {}
    tasks: dict[str, ClientTask] = {}

    def late(numbers: dict[str, str]) -> None:
        stale.update(numbers)
        tasks.update({site: server._client_task_map[number] for site, number in numbers.items()})
        server.controller._deadline = 0.1
        send("a", numbers["a"], update("a", 0, 1.0))

    def on_time(numbers: dict[str, str]) -> None:
        server.controller._deadline = 20.0
        # b's last answer comes before that of this round, and a's comes twice.
        send("b", stale["b"], update("b", 0, 2.0))
        send("a", stale["a"], update("a", 0, 1.0))
        # One that the engine took just before the round was over is told of just after.
        tasks["b"].result = update("b", 0, 5.0)
        server.controller._receive(tasks["b"], context)
        for site, value in {"a": 3.0, "b": 4.0}.items():
            send(site, numbers[site], update(site, 1, value))

    first = ask(server, context, 0, late)
    assert values(first) == {"a": 1.0}
    assert "no answer within" in first[1].failure
    with caplog.at_level(logging.INFO):
        assert values(ask(server, context, 1, on_time)) == {"a": 3.0, "b": 4.0}
    said = [(one.levelname, one.getMessage()) for one in caplog.records]
    assert ("WARNING", "site b: an answer came too late, and is dropped.") in said
    assert [text for _, text in said if "already received - submission dropped" in text]


def test_an_answer_that_comes_twice_counts_once(
    server: WFCommServer, context: FLContext, caplog: pytest.LogCaptureFixture
) -> None:
    def twice(numbers: dict[str, str]) -> None:
        for value in (1.0, 2.0):
            server.process_submission(CLIENTS["a"], TASK, numbers["a"], update("a", 0, value), context)
        server.process_submission(CLIENTS["b"], TASK, numbers["b"], update("b", 0, 3.0), context)

    with caplog.at_level(logging.INFO):
        assert values(ask(server, context, 0, twice)) == {"a": 1.0, "b": 3.0}
    assert "already received - submission dropped" in caplog.text
    assert not server.controller._arrived


def test_nobody_answers_in_anothers_place(
    server: WFCommServer, context: FLContext, caplog: pytest.LogCaptureFixture
) -> None:
    def meddle(numbers: dict[str, str]) -> None:
        # b answers a's question; then a sends what carries b's name.
        server.process_submission(CLIENTS["b"], TASK, numbers["a"], update("a", 0, 9.0), context)
        server.process_submission(CLIENTS["a"], TASK, numbers["a"], update("b", 0, 1.0), context)
        server.process_submission(CLIENTS["b"], TASK, numbers["b"], update("b", 0, 2.0), context)

    replies: Any = ask(server, context, 0, meddle)
    assert values(replies) == {"b": 2.0}
    assert "carries another site's name" in replies[0].failure
    assert "submission client mismatch" in caplog.text
