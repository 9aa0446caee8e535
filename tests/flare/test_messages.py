"""What the engine carries is what was sent, bit for bit, and nothing else."""

import hashlib
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from nvflare.apis.shareable import Shareable
from nvflare.app_common.decomposers import numpy_decomposers

from polyhead.deployment.agreed import Agreed
from polyhead.deployment.question import FINISHED, IDLE, READY, UNFINISHED, Question
from polyhead.deployment.release import Release
from polyhead.errors import UpdateError
from polyhead.federation.site import round_key
from polyhead.federation.update import SiteUpdate
from polyhead.flare.messages import (
    answer_message,
    content_of,
    failure_message,
    question_message,
    read_answer,
    read_question,
    update_message,
)
from polyhead.training.packed import pack_tensors
from polyhead.training.tensor_file import memory_of
from tests.federation.test_private_rounds import PLAN, SECRET, a_round, begin, sites

STATE = {
    "backbone.conv": torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last),
    "backbone.half": torch.tensor([1.5, float("inf"), -0.0], dtype=torch.float16),
    "backbone.brain": torch.tensor([1.1, -3.3e38, float("nan")], dtype=torch.bfloat16),
    "backbone.double": torch.randn(3, dtype=torch.float64),
    "backbone.empty": torch.zeros(0, 2),
    "backbone.scalar": torch.tensor(0.1),
    "backbone.num_batches_tracked": torch.tensor(2**53 - 1),
}
AGREED = Agreed({"methods": ["local", "ffl"], "seeds": [0]}, ("a", "b"), "f" * 64)
METRIC = {"method": "ffl", "seed": "all", "finding": "Edema", "value": 0.5, "low": 0.25, "high": None}
METRIC |= {"positives": 20, "negatives": 30, "patients": 50}
COMPARISON = {"method": "ffl", "reference": "local", "finding": "Edema", "difference": 0.125, "low": 0.0, "high": 0.5}
COMPARISON |= {"p": 0.5, "p_holm": None}
GOOD = {"site": "a", "round": 0, "examples": 1, "loss": 0.0, "state": pack_tensors({})}


def asked(kind: str) -> Question:
    return Question("f" * 64, "ffl", 7, 3, 2, (1, 2), STATE, kind)


def through(message: Shareable) -> Shareable:
    numpy_decomposers.register()
    return Shareable.from_bytes(message.to_bytes())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    def form(state: dict[str, torch.Tensor]) -> dict[str, tuple[torch.dtype, torch.Size, bytes]]:
        return {name: (tensor.dtype, tensor.shape, bytes(memory_of(tensor))) for name, tensor in state.items()}

    return form(one) == form(other)


def test_an_update_arrives_bit_for_bit() -> None:
    update = SiteUpdate("a", 3, 24, 0.1 + 0.2, STATE)
    arrived, _ = read_answer(through(answer_message(update, asked("round"), AGREED)), "a", "round", AGREED)
    assert isinstance(arrived, SiteUpdate)
    assert same(arrived.state, STATE)
    assert (arrived.site, arrived.round, arrived.examples, arrived.loss) == ("a", 3, 24, 0.1 + 0.2)


def test_a_question_arrives_bit_for_bit() -> None:
    arrived = read_question(through(question_message(asked("finish"), pack_tensors(STATE))))
    assert same(dict(arrived.shared), STATE)
    assert (arrived.agreement, arrived.method, arrived.seed, arrived.round, arrived.own, arrived.kept) == (
        *("f" * 64, "ffl", 7, 3, 2),
        (1, 2),
    )
    assert arrived.kind == "finish"


@pytest.mark.parametrize(
    "change",
    [{"kind": "head"}, {"path": "/etc"}, {"own": -1}, {"kept": 3}, {"seed": 0.5}, {"shared": {"w": np.zeros(2)}}],
)
def test_what_is_no_question_is_refused(change: dict[str, object]) -> None:
    message = question_message(asked("round"), pack_tensors(STATE))
    message["polyhead"] |= change
    with pytest.raises(UpdateError, match="no question"):
        read_question(message)


def test_that_there_is_no_loss_arrives_too() -> None:
    message = through(update_message(SiteUpdate("a", 3, 1, None, {}), {}))
    arrived, _ = read_answer(message, "a", "round", AGREED)
    assert isinstance(arrived, SiteUpdate)
    assert (arrived.examples, arrived.loss) == (1, None)


def test_neither_secret_nor_key_nor_head_is_in_the_message_of_a_round_with_noise() -> None:
    site = replace(sites()[0], secret=SECRET)
    shared, own = begin(site)
    key = round_key(site, PLAN, 0, shared, own)
    update, after = a_round(site)
    raw = update_message(update, shared).to_bytes()
    assert bytes(memory_of(update.state["backbone.conv1.weight"])) in raw
    heads = [bytes(memory_of(state.model["head.weight"]))[:32] for state in (own, after)]
    for canary in (SECRET, key, *heads):
        assert canary not in raw
        assert canary.hex().encode() not in raw


def test_a_message_holds_the_fields_of_an_update_and_nothing_else() -> None:
    message = update_message(SiteUpdate("a", 3, 24, 0.5, STATE), STATE)
    assert set(message) == {"polyhead", "__headers__"}
    # Which findings a site annotates is for methods that do not run between houses.
    assert set(message["polyhead"]) == {field.name for field in fields(SiteUpdate)} - {"rows"}
    assert not message["__headers__"]


def test_which_findings_a_site_annotates_is_refused_before_it_is_sent() -> None:
    with pytest.raises(UpdateError, match="row"):
        update_message(SiteUpdate("a", 3, 24, 0.5, STATE, rows=(True, False)), STATE)


def test_a_head_is_refused_before_it_is_sent() -> None:
    with pytest.raises(UpdateError, match="head stays"):
        update_message(SiteUpdate("a", 3, 24, 0.5, {**STATE, "head.weight": torch.zeros(2)}), STATE)


def test_what_was_sent_does_not_change_with_the_model() -> None:
    weights = {"backbone.w": torch.zeros(3)}
    message = update_message(SiteUpdate("a", 3, 24, 0.5, weights), weights)
    weights["backbone.w"] += 1
    arrived, _ = read_answer(message, "a", "round", AGREED)
    assert isinstance(arrived, SiteUpdate)
    assert not arrived.state["backbone.w"].any()


def test_the_tensors_of_a_message_are_one_array() -> None:
    # A row for each of a network's hundred tensors made messages of a small network 7 % longer.
    sent = {f"backbone.layer{number}.weight": torch.randn(40, 40) for number in range(100)}
    tensors = sum(tensor.nbytes for tensor in sent.values())
    for message in (
        update_message(SiteUpdate("a", 3, 24, 0.5, sent), sent),
        question_message(asked("round"), pack_tensors(sent)),
    ):
        numpy_decomposers.register()
        assert tensors < len(message.to_bytes()) < 1.02 * tensors


def test_the_record_lists_every_tensor_with_its_hash() -> None:
    sent = {"backbone.w": torch.arange(6.0).reshape(2, 3), "backbone.n": torch.tensor(3, dtype=torch.bfloat16)}
    about, parts = content_of(through(question_message(asked("round"), pack_tensors(sent))))
    assert "shared" not in about
    assert [(part.name, part.dtype, part.shape, part.bytes) for part in parts] == [
        ("backbone.n", "bfloat16", (), 2),
        ("backbone.w", "float32", (2, 3), 24),
    ]
    assert parts[1].sha256 == hashlib.sha256(np.arange(6, dtype="<f4").tobytes()).hexdigest()
    assert content_of(update_message(SiteUpdate("a", 3, 24, 0.5, sent), sent))[1] == parts


@pytest.mark.parametrize("came", [np.arange(5), np.array(["x"]), {"w": np.zeros(2)}, None, b"x"])
def test_what_cannot_be_read_is_on_record_too(came: object) -> None:
    message = Shareable()
    message["polyhead"] = {"kind": "round", "shared": came}
    about, parts = content_of(message)
    assert about == {"kind": "round"}
    assert parts[0].name == f"unreadable: {type(came).__name__}"
    assert parts[0].bytes == (40 if isinstance(came, np.ndarray) and came.dtype.kind == "i" else 0)


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"site": "a"},
        {**GOOD, "site": "b"},
        {**GOOD, "patients": 3},
        *({**GOOD, "state": state} for state in ({}, [1], {"w": np.zeros(2)}, np.zeros(2), np.array(["x"]), b"")),
        *({**GOOD, "state": pack_tensors(STATE)[:place]} for place in (0, 7, 100, -1)),
    ],
)
def test_what_is_no_update_is_refused(body: object) -> None:
    message = Shareable()
    message["polyhead"] = body
    with pytest.raises(UpdateError):
        read_answer(message, "a", "round", AGREED)


def test_what_the_refused_were_changed_from_is_an_update() -> None:
    message = Shareable()
    message["polyhead"] = GOOD
    assert read_answer(message, "a", "round", AGREED) == (SiteUpdate("a", 0, 1, 0.0, {}), "")


def test_a_failure_arrives_in_words() -> None:
    message = through(failure_message("not enough memory."))
    assert read_answer(message, "a", "round", AGREED) == (None, "not enough memory.")


@pytest.mark.parametrize(
    ("kind", "word"), [("join", READY), ("join", IDLE), ("finish", FINISHED), ("evaluate", UNFINISHED)]
)
def test_a_word_arrives_and_nothing_else_is_in_its_message(kind: str, word: str) -> None:
    message = through(answer_message(word, asked(kind), AGREED))
    assert message["polyhead"] == {"word": word}
    assert read_answer(message, "a", kind, AGREED) == (word, "")


@pytest.mark.parametrize(
    ("kind", "word"), [("join", FINISHED), ("finish", READY), ("round", FINISHED), ("join", "p17")]
)
def test_a_word_that_answers_another_question_is_refused_at_both_ends(kind: str, word: str) -> None:
    with pytest.raises(UpdateError):
        answer_message(word, asked(kind), AGREED)
    message = Shareable()
    message["polyhead"] = {"word": word}
    with pytest.raises(UpdateError):
        read_answer(message, "a", kind, AGREED)


RELEASE = Release((METRIC,), (COMPARISON,))


def test_results_arrive_as_they_were_sent_and_are_on_record_whole() -> None:
    message = through(answer_message(RELEASE, asked("evaluate"), AGREED))
    assert read_answer(message, "a", "evaluate", AGREED) == (RELEASE, "")
    assert content_of(message) == ({"metrics": [METRIC], "comparisons": [COMPARISON]}, [])


@pytest.mark.parametrize(
    "results",
    [
        Release(({**METRIC, "threshold": 0.5},), ()),
        Release(({**METRIC, "finding": "=1"},), ()),
        Release((METRIC, METRIC), ()),
        Release((), (METRIC,)),
        Release((), ({**COMPARISON, "reference": "Miller"},)),
    ],
)
def test_results_with_anything_else_are_refused_at_both_ends(results: Release) -> None:
    body: Any = {"metrics": list(results.metrics), "comparisons": list(results.comparisons)}
    with pytest.raises(UpdateError):
        answer_message(results, asked("evaluate"), AGREED)
    message = Shareable()
    message["polyhead"] = body
    with pytest.raises(UpdateError):
        read_answer(message, "a", "evaluate", AGREED)


@pytest.mark.parametrize("kind", ["join", "round", "finish"])
def test_results_are_taken_only_where_they_were_asked_for(kind: str) -> None:
    message = answer_message(RELEASE, asked("evaluate"), AGREED)
    with pytest.raises(UpdateError):
        read_answer(message, "a", kind, AGREED)
