"""Whatever a site sends, the server goes on with the others, and keeps little of it."""

from typing import Any

import numpy as np
import pytest
from nvflare.apis.shareable import Shareable

from polyhead.deployment.agreed import Agreed
from polyhead.flare.controller import _reply

AGREED = Agreed({"methods": ["ffl"], "seeds": [0]}, ("a", "b"), "f" * 64)
UPDATE = {"site": "a", "round": 0, "examples": 1, "loss": 0.0, "state": {}}


def said(body: Any, code: str = "OK") -> Shareable:
    message = Shareable()
    message["polyhead"] = body
    message.set_return_code(code)
    return message


@pytest.mark.parametrize(
    "body",
    [
        {**UPDATE, "site": np.array(["a", "b"])},
        {**UPDATE, "state": {"bfloat16 bits/w": np.array(1)}},
        {**UPDATE, "state": {"bfloat16 bits/w": np.zeros(3, np.uint8)}},
        {**UPDATE, "round": object()},
        {"failure": object()},
    ],
)
def test_a_message_that_breaks_its_reader_is_the_site_s_affair(body: object) -> None:
    reply = _reply("a", 1.0, said(body), "round", AGREED)
    assert reply.failure or reply.content


@pytest.mark.parametrize("message", [said({"failure": "x" * 10**6}), said(None, "y" * 10**6)])
def test_no_site_fills_the_events(message: Shareable) -> None:
    reply = _reply("a", 1.0, message, "round", AGREED)
    assert reply.content is None
    assert 500 < len(reply.failure) < 2000
