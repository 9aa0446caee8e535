"""Tensors as one row of bytes: the same bits come out, and nothing else goes in."""

import json
import struct
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load

from polyhead.errors import UpdateError
from polyhead.training.packed import pack_tensors, unpack_tensors
from polyhead.training.tensor_file import CODES, memory_of
from tests.training.hostile_files import file, hostile, tensor

TYPES = list(CODES)
STATE = {"w": torch.arange(60.0).reshape(1, 3, 4, 5).to(memory_format=torch.channels_last), "n": torch.tensor(7)}


def packed(raw: bytes) -> np.ndarray[Any, Any]:
    return np.frombuffer(bytearray(raw), np.uint8)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    def form(state: dict[str, torch.Tensor]) -> dict[str, tuple[torch.dtype, torch.Size, bytes]]:
        return {name: (tensor.dtype, tensor.shape, bytes(memory_of(tensor))) for name, tensor in state.items()}

    return form(one) == form(other)


@st.composite
def states(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    state = {}
    for name in draw(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), unique=True, max_size=6)):
        shape = draw(st.lists(st.integers(0, 4), max_size=5))
        dtype = draw(st.sampled_from(TYPES))
        size = int(np.prod([1, *shape])) * dtype.itemsize
        # Any bits, NaN's too; of a boolean only two are values.
        byte = st.integers(0, 1 if dtype == torch.bool else 255)
        raw = torch.tensor(draw(st.lists(byte, min_size=size, max_size=size)), dtype=torch.uint8)
        value = raw.view(dtype).view(shape)
        state[name] = value.transpose(0, -1) if shape and draw(st.booleans()) else value
    return state


@given(states())
def test_what_is_packed_is_unpacked_bit_for_bit_and_is_a_safetensors_file(state: dict[str, torch.Tensor]) -> None:
    row = pack_tensors(state)
    assert same(unpack_tensors(row, UpdateError), state)
    assert same(load(row.tobytes()), state)


def test_it_is_as_small_as_its_tensors_and_their_names() -> None:
    state = {f"backbone.layer{n}.conv1.weight": torch.zeros(64, 32, 3, 3) for n in range(100)}
    assert pack_tensors(state).nbytes < 1.002 * sum(one.nbytes for one in state.values())


def test_what_is_packed_is_a_copy_and_what_is_unpacked_is_none() -> None:
    state = {"w": torch.zeros(3)}
    row = pack_tensors(state)
    state["w"] += 1
    found = unpack_tensors(row, UpdateError)["w"]
    assert not found.any()
    row[-4:] = np.frombuffer(np.float32(2).tobytes(), np.uint8)
    assert found[2] == 2


def test_hostile_rows_are_refused_in_a_short_sentence() -> None:
    # In one test: to make them takes a second.
    told = {kind: refusal_of(aligned(content)) for kind, content in hostile().items()}
    assert {kind: text for kind, text in told.items() if not 0 < len(text) < 500} == {}


def aligned(content: bytes) -> bytes:
    """Pad a header to a multiple of 8, so that it is not refused for that."""
    length = int.from_bytes(content[:8], "little")
    if length > len(content) - 8:
        return content
    text = content[8 : 8 + length]
    return file(text + b" " * (-len(text) % 8), content[8 + length :])


def refusal_of(content: bytes) -> str:
    try:
        unpack_tensors(packed(content), UpdateError)
    except UpdateError as problem:
        return str(problem)
    return ""


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": {**tensor(shape=[1]), "more": 1}}, 4),
        ({"a": tensor("U8", [1], [0, 1]), "b": tensor("F32", [1], [1, 5])}, 5),
        ({"b": tensor(shape=[1], offsets=[4, 8]), "a": tensor(shape=[1])}, 8),
        ({"a": tensor(shape=[True])}, 4),
        ({"a": tensor(shape=[1], offsets=[0, 4.5])}, 4),
        ({"a": tensor(shape=[1])}, 3),
        ({"a": tensor(shape=[1]), "__metadata__": {}}, 4),
        ({"a": 3}, 0),
        ({"a": tensor(["F32"], [1])}, 4),
    ],
)
def test_a_table_that_says_anything_else_is_refused(header: Any, data: int) -> None:
    text = json.dumps(header).encode()
    row = packed(file(text + b" " * (-len(text) % 8), bytes(data)))
    with pytest.raises(UpdateError, match="cannot be read"):
        unpack_tensors(row, UpdateError)


def test_what_begins_at_odd_bytes_is_refused() -> None:
    with pytest.raises(UpdateError, match="a header of 9 bytes"):
        unpack_tensors(packed(struct.pack("<Q", 9) + b"{}       "), UpdateError)


@pytest.mark.parametrize(
    "row",
    [
        *(None, b"", [1], {}, np.zeros(16), np.zeros((2, 8), np.uint8), np.zeros(32, np.uint8)[::2], np.array(["x"])),
        np.array([object()]),
    ],
)
def test_what_is_no_row_of_bytes_is_refused(row: object) -> None:
    with pytest.raises(UpdateError, match="one row of bytes"):
        unpack_tensors(row, UpdateError)


@given(st.data())
@settings(max_examples=300)
def test_whatever_happens_to_a_byte_it_is_refused_or_is_a_state(data: st.DataObject) -> None:
    row = pack_tensors(STATE)
    for _ in range(data.draw(st.integers(1, 3))):
        row[data.draw(st.integers(0, len(row) - 1))] = data.draw(st.integers(0, 255))
    row = row[: data.draw(st.integers(0, len(row)) | st.just(len(row)))]
    try:
        found = unpack_tensors(row, UpdateError)
    except UpdateError:
        return
    assert sum(one.nbytes for one in found.values()) == 248
