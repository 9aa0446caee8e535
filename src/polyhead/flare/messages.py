"""Questions and answers as the engine carries them: plain numbers and one array, the same bits on both ends.

An update's message holds the fields of a `SiteUpdate`, but for its choice of rows, and nothing else; results hold the
columns of a `Release`; all other answers are one of a few words. The tensors of a message are one array, since the
engine adds its own words to every array. Whatever arrives is checked without running any of it, or refused.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from nvflare.apis.shareable import Shareable

from polyhead.deployment.agreed import Agreed
from polyhead.deployment.audit import Part
from polyhead.deployment.question import WORDS, Content, Question
from polyhead.deployment.release import Release, read_release
from polyhead.errors import UpdateError
from polyhead.federation.update import SiteUpdate, check_update
from polyhead.training.packed import pack_tensors, unpack_tensors
from polyhead.training.tensor_file import memory_of

__all__ = [
    "answer_message",
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


def question_message(question: Question, packed: NDArray[np.uint8]) -> Shareable:
    """Return a question as a message, with its shared entries as `pack_tensors` gives them, once for all sites."""
    message = Shareable()
    fields = {name: getattr(question, name) for name in _QUESTION if name not in ("kept", "shared")}
    message[_BODY] = {**fields, "kept": list(question.kept), "shared": packed}
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
        shared = unpack_tensors(body["shared"], UpdateError)
        return Question(str(body["agreement"]), str(body["method"]), seed, round_, own, kept, shared, body["kind"])
    except (AttributeError, KeyError, TypeError, ValueError, UpdateError) as problem:
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
    message[_BODY] = {**{name: getattr(update, name) for name in _FIELDS[:-1]}, "state": pack_tensors(update.state)}
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
    if not isinstance(body["site"], str) or body["site"] != site:
        raise UpdateError("the update carries another site's name. Send the name that the study gives it.")
    state = unpack_tensors(body["state"], UpdateError)
    return SiteUpdate(body["site"], body["round"], body["examples"], body["loss"], state)


def content_of(message: Shareable) -> tuple[dict[str, Any], list[Part]]:
    """Return what a message holds, for the record: everything but tensors, and what there is to say of those."""
    body = message.get(_BODY)
    fields = dict(body) if isinstance(body, dict) else {}
    packed = [fields.pop(name) for name in ("state", "shared") if name in fields]
    return fields, [part for one in packed for part in _parts(one)]


def _parts(packed: object) -> list[Part]:
    try:
        tensors = unpack_tensors(packed, UpdateError)
    except UpdateError:
        # What cannot be read is refused, but it came, and is on record.
        array = packed if isinstance(packed, np.ndarray) and packed.dtype.kind in "fiub" else np.zeros(0)
        raw = np.ascontiguousarray(array)
        sha256 = hashlib.sha256(raw.data).hexdigest()
        return [Part(f"unreadable: {type(packed).__name__[:100]}", str(raw.dtype), raw.shape, raw.nbytes, sha256)]
    return [_part(name, tensor) for name, tensor in sorted(tensors.items())]


def _part(name: str, tensor: torch.Tensor) -> Part:
    sha256 = hashlib.sha256(memory_of(tensor)).hexdigest()
    return Part(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), tensor.nbytes, sha256)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise ValueError("a count is none")
    return value
