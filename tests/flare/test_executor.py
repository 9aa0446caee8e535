"""Whatever a server sends, a site answers in words that may leave, and its record stays whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.apis.workspace import Workspace

from polyhead.deployment.audit import verify
from polyhead.flare.executor import FederationExecutor
from polyhead.flare.layout import AUDIT


def ask(kit: Path, body: Any) -> Any:
    for folder in ("startup", "local"):
        (kit / folder).mkdir(exist_ok=True)
    context, message = FLContext(), Shareable()
    context.set_prop(FLContextKey.WORKSPACE_OBJECT, Workspace(str(kit), "a"), private=True)
    context.set_prop(ReservedKey.IDENTITY_NAME, "a", private=True)
    message["polyhead"] = body
    return FederationExecutor().execute("question", message, context, Signal())["polyhead"]


@pytest.mark.parametrize(
    "body",
    [
        None,
        {"method": b"x"},
        {"method": "x" * 2**24},
        {"shared": {"w": "no array"}},
        {"shared": {"w": np.zeros(1), 2: np.zeros(1)}},
        {"shared": ["w"]},
        {"state": {"w": np.zeros(1)}, "shared": {"w": np.zeros(1)}},
    ],
)
def test_what_is_no_question_is_answered_in_words_and_leaves_the_record_whole(body: object, tmp_path: Path) -> None:
    answer = ask(tmp_path, body)
    assert answer.keys() == {"failure"}
    assert str(tmp_path) not in answer["failure"]
    assert verify(tmp_path / AUDIT).messages["out"] == 1
