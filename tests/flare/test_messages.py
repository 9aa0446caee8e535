"""What the engine carries is what was sent, bit for bit, and nothing else."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from nvflare.apis.shareable import Shareable
from nvflare.app_common.decomposers import numpy_decomposers

from polyhead.deployment.question import Question
from polyhead.errors import UpdateError
from polyhead.federation.update import SiteUpdate
from polyhead.flare.messages import (
    arrays_of,
    failure_message,
    question_message,
    read_question,
    read_update,
    update_message,
)
from polyhead.training.tensor_file import memory_of

STATE = {
    "backbone.conv": torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last),
    "backbone.half": torch.tensor([1.5, float("inf"), -0.0], dtype=torch.float16),
    "backbone.brain": torch.tensor([1.1, -3.3e38, float("nan")], dtype=torch.bfloat16),
    "backbone.double": torch.randn(3, dtype=torch.float64),
    "backbone.empty": torch.zeros(0, 2),
    "backbone.scalar": torch.tensor(0.1),
    "backbone.num_batches_tracked": torch.tensor(2**53 - 1),
}


def through(message: Shareable) -> Shareable:
    numpy_decomposers.register()
    return Shareable.from_bytes(message.to_bytes())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    def form(state: dict[str, torch.Tensor]) -> dict[str, tuple[torch.dtype, torch.Size, bytes]]:
        return {name: (tensor.dtype, tensor.shape, bytes(memory_of(tensor))) for name, tensor in state.items()}

    return form(one) == form(other)


def test_an_update_arrives_bit_for_bit() -> None:
    update = SiteUpdate("a", 3, 24, 0.1 + 0.2, STATE)
    arrived = read_update(through(update_message(update, STATE)), "a")
    assert isinstance(arrived, SiteUpdate)
    assert same(arrived.state, STATE)
    assert (arrived.site, arrived.round, arrived.examples, arrived.loss) == ("a", 3, 24, 0.1 + 0.2)


def test_a_question_arrives_bit_for_bit() -> None:
    question = Question("f" * 64, "ffl", 7, 3, 2, (1, 2), STATE)
    arrived = read_question(through(question_message(question, arrays_of(STATE))))
    assert same(dict(arrived.shared), STATE)
    assert (arrived.agreement, arrived.method, arrived.seed, arrived.round, arrived.own, arrived.kept) == (
        *("f" * 64, "ffl", 7, 3, 2),
        (1, 2),
    )


def test_a_message_holds_the_fields_of_an_update_and_nothing_else() -> None:
    message = update_message(SiteUpdate("a", 3, 24, 0.5, STATE), STATE)
    assert set(message) == {"polyhead", "__headers__"}
    assert set(message["polyhead"]) == {field.name for field in fields(SiteUpdate)}
    assert not message["__headers__"]


def test_a_head_is_refused_before_it_is_sent() -> None:
    with pytest.raises(UpdateError, match="head stays"):
        update_message(SiteUpdate("a", 3, 24, 0.5, {**STATE, "head.weight": torch.zeros(2)}), STATE)


def test_what_was_sent_does_not_change_with_the_model() -> None:
    weights = {"backbone.w": torch.zeros(3)}
    arrays = arrays_of(weights)
    weights["backbone.w"] += 1
    assert not arrays["backbone.w"].any()


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"site": "a"},
        {"site": "b", "round": 0, "examples": 1, "loss": 0.0, "state": {}},
        {"site": "a", "round": 0, "examples": 1, "loss": 0.0, "state": {"w": np.array(["x"])}},
        {"site": "a", "round": 0, "examples": 1, "loss": 0.0, "state": {"w": np.zeros(2, ">f4")}},
        {"site": "a", "round": 0, "examples": 1, "loss": 0.0, "state": {"w": np.zeros(2, np.complex64)}},
        {"site": "a", "round": 0, "examples": 1, "loss": 0.0, "state": {1: np.zeros(2)}},
        {"site": "a", "round": 0, "examples": 1, "loss": 0.0, "state": [1]},
        {"site": "a", "round": 0, "examples": 1, "loss": 0.0, "state": {}, "patients": 3},
    ],
)
def test_what_is_no_update_is_refused(body: object) -> None:
    message = Shareable()
    message["polyhead"] = body
    with pytest.raises(UpdateError):
        read_update(message, "a")


def test_a_failure_arrives_in_words() -> None:
    assert read_update(through(failure_message("not enough memory.")), "a") == "not enough memory."
