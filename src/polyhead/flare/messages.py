"""Questions and updates as the engine carries them: plain arrays and numbers, the same bits on both ends.

An update's message holds the fields of a `SiteUpdate` and nothing else. Whatever arrives, it is made into tensors
without running any of it, or refused.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from nvflare.apis.shareable import Shareable

from polyhead.deployment.audit import Part
from polyhead.deployment.question import Question
from polyhead.errors import UpdateError
from polyhead.federation.update import SiteUpdate, check_update

__all__ = [
    "arrays_of",
    "content_of",
    "failure_message",
    "question_message",
    "read_question",
    "read_update",
    "update_message",
]

_BODY = "polyhead"
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
    fields = {name: getattr(question, name) for name in ("agreement", "method", "seed", "round", "own")}
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
        kept = tuple(_count(one) for one in body["kept"])
        seed, round_, own = (_count(body[name]) for name in ("seed", "round", "own"))
        shared = _tensors(body["shared"])
        return Question(str(body["agreement"]), str(body["method"]), seed, round_, own, kept, shared)
    except (KeyError, TypeError, ValueError) as problem:
        raise UpdateError(f"the server's message is no question ({problem}). Both need the same version.") from problem


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


def read_update(message: Shareable, site: str) -> SiteUpdate | str:
    """Read what a site sent: its update, still to be judged, or the reason why there is none.

    Parameters
    ----------
    site
        Whose certificate it came with.

    Raises
    ------
    UpdateError
        If it is neither.
    """
    body = message.get(_BODY)
    if isinstance(body, dict) and body.keys() == {"failure"}:
        return str(body["failure"])
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
