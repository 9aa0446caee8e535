"""Questions and answers as the engine carries them: plain arrays and numbers, the same bits on both ends.

An update's message holds the fields of a `SiteUpdate` and nothing else; results hold the columns of a `Release`; all
other answers are one of a few words. Whatever arrives is checked without running any of it, or refused.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from nvflare.apis.shareable import Shareable

from polyhead.deployment.agreed import Agreed
from polyhead.deployment.audit import Part
from polyhead.deployment.question import WORDS, Content, Question
from polyhead.deployment.release import Release, read_release
from polyhead.errors import UpdateError
from polyhead.federation.update import SiteUpdate, check_update

__all__ = [
    "answer_message",
    "arrays_of",
    "content_of",
    "failure_message",
    "question_message",
    "read_answer",
    "read_question",
    "update_message",
]

_BODY = "polyhead"
_QUESTION = ("agreement", "method", "seed", "round", "own", "kept", "shared", "kind")
_RESULTS = ("metrics", "comparisons")
_FIELDS = ("site", "round", "examples", "loss", "state")
# NumPy has no bfloat16: its bits travel under this prefix as whole numbers.
_BITS = "bfloat16 bits/"
_KINDS = "fiub"


def arrays_of(state: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    """Return copies of a state's tensors as arrays in the usual order of memory."""
    arrays = {}
    for name, tensor in state.items():
        # A copy: the engine may read it after the model has been trained on.
        plain = tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        if plain.dtype == torch.bfloat16:
            arrays[_BITS + name] = plain.view(torch.int16).numpy()
        else:
            arrays[name] = plain.numpy()
    return arrays


def question_message(question: Question, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Shareable:
    """Return a question as a message; the arrays are its shared entries, made once for all sites."""
    message = Shareable()
    fields = {name: getattr(question, name) for name in _QUESTION if name not in ("kept", "shared")}
    message[_BODY] = {**fields, "kept": list(question.kept), "shared": dict(arrays)}
    return message


def read_question(message: Shareable) -> Question:
    """Read a server's question.

    Raises
    ------
    UpdateError
        If it is none.
    """
    body = message.get(_BODY)
    try:
        if body.keys() != set(_QUESTION) or body["kind"] not in WORDS:
            raise ValueError("other fields")
        kept = tuple(_count(one) for one in body["kept"])
        seed, round_, own = (_count(body[name]) for name in ("seed", "round", "own"))
        shared = _tensors(body["shared"])
        return Question(str(body["agreement"]), str(body["method"]), seed, round_, own, kept, shared, body["kind"])
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise UpdateError(f"the server's message is no question ({problem}). Both need the same version.") from problem


def answer_message(content: Content, question: Question, agreed: Agreed) -> Shareable:
    """Return a site's answer to a question as a message.

    Raises
    ------
    UpdateError
        If it holds anything but what may leave: it stays here then.
    """
    if isinstance(content, SiteUpdate):
        return update_message(content, question.shared)
    message = Shareable()
    if isinstance(content, Release):
        body = {"metrics": [dict(row) for row in content.metrics], "comparisons": list(map(dict, content.comparisons))}
        read_release(body, agreed.settings["methods"], agreed.settings["seeds"])
        message[_BODY] = body
    elif content in WORDS[question.kind]:
        message[_BODY] = {"word": content}
    else:
        raise UpdateError("what was to be sent is no answer.")
    return message


def read_answer(message: Shareable, site: str, kind: str, agreed: Agreed) -> tuple[Content | None, str]:
    """Read what a site sent: the answer to a question of this kind, or the reason why there is none.

    Raises
    ------
    UpdateError
        If it is neither.
    """
    body = message.get(_BODY)
    if isinstance(body, dict) and body.keys() == {"failure"}:
        return None, str(body["failure"])
    if kind == "round":
        return _update(message, site), ""
    if isinstance(body, dict) and body.keys() == {"word"} and body["word"] in WORDS[kind]:
        return str(body["word"]), ""
    if isinstance(body, dict) and kind == "evaluate" and body.keys() == set(_RESULTS):
        return read_release(body, agreed.settings["methods"], agreed.settings["seeds"]), ""
    raise UpdateError(f"what it sent is no answer (the engine says {message.get_return_code()!r}).")


def update_message(update: SiteUpdate, shared: Mapping[str, torch.Tensor]) -> Shareable:
    """Return an update as a message.

    Raises
    ------
    UpdateError
        If it holds anything but what the server's own entries allow: it stays here then.
    """
    check_update(update, shared)
    message = Shareable()
    message[_BODY] = {**{name: getattr(update, name) for name in _FIELDS[:-1]}, "state": arrays_of(update.state)}
    return message


def failure_message(reason: str) -> Shareable:
    """Return that a site failed, and why, as a message."""
    message = Shareable()
    message[_BODY] = {"failure": reason}
    return message


def _update(message: Shareable, site: str) -> SiteUpdate:
    """Read an update, still to be judged."""
    body = message.get(_BODY)
    if not isinstance(body, dict) or body.keys() != set(_FIELDS):
        raise UpdateError(f"what it sent is no update (the engine says {message.get_return_code()!r}).")
    if body["site"] != site:
        raise UpdateError("the update carries another site's name. Send the name that the study gives it.")
    try:
        state = _tensors(body["state"])
        return SiteUpdate(body["site"], body["round"], body["examples"], body["loss"], state)
    except (TypeError, ValueError) as problem:
        raise UpdateError(f"what it sent are no tensors ({problem}).") from problem


def content_of(message: Shareable) -> tuple[dict[str, Any], list[Part]]:
    """Return what a message holds, for the record: everything but arrays, and what there is to say of those."""
    body = message.get(_BODY)
    fields = dict(body) if isinstance(body, dict) else {}
    arrays = fields.pop("state", None) or fields.pop("shared", None) or {}
    return fields, [_part(name, array) for name, array in sorted(arrays.items())]


def _part(name: str, array: np.ndarray[Any, Any]) -> Part:
    raw = np.ascontiguousarray(array)
    return Part(name, str(array.dtype), array.shape, array.nbytes, hashlib.sha256(raw.data).hexdigest())


def _tensors(arrays: object) -> dict[str, torch.Tensor]:
    if not isinstance(arrays, dict):
        raise TypeError("no table of arrays")
    tensors = {}
    for name, array in arrays.items():
        if not isinstance(name, str) or type(array) is not np.ndarray or array.dtype.kind not in _KINDS:
            raise TypeError("an entry is no array of numbers")
        tensor = torch.from_numpy(array)
        if name.startswith(_BITS):
            tensors[name.removeprefix(_BITS)] = tensor.view(torch.bfloat16)
        else:
            tensors[name] = tensor
    return tensors


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise ValueError("a count is none")
    return value
