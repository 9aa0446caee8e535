"""Many tensors as one row of bytes, for a message: what a safetensors file holds, in memory.

One array instead of one for each tensor: an engine adds words of its own to every array that it carries. Who receives
it finds the tensors where they lie, without a copy; nothing is allocated for what a stranger's header says.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from polyhead.errors import PolyheadError
from polyhead.training.tensor_file import CODES, MOST_DIMENSIONS, MOST_HEADER_BYTES, MOST_TENSORS, header_of

__all__ = ["pack_tensors", "unpack_tensors"]

_TYPES = {code: dtype for dtype, code in CODES.items()}
_KEYS = {"dtype", "shape", "data_offsets"}


def pack_tensors(tensors: Mapping[str, torch.Tensor]) -> NDArray[np.uint8]:
    """Copy tensors, each once, into a new array, shape ``(bytes,)``."""
    header, ordered = header_of(tensors)
    begin = len(header)
    packed = np.empty(begin + sum(tensor.numel() * tensor.element_size() for tensor in ordered), np.uint8)
    packed[:begin] = np.frombuffer(header, np.uint8)
    for tensor in ordered:
        end = begin + tensor.numel() * tensor.element_size()
        torch.from_numpy(packed[begin:end]).view(tensor.dtype).view(tensor.shape).copy_(tensor.detach())
        begin = end
    return packed


def unpack_tensors(packed: object, error: type[PolyheadError]) -> dict[str, torch.Tensor]:
    """Return the tensors that a stranger packed, as views of the array.

    Raises
    ------
    PolyheadError
        Of the class `error`: it is not what `pack_tensors` makes, of at most 4 MiB of header and 20,000 tensors.
    """
    if type(packed) is not np.ndarray or packed.dtype != np.uint8 or packed.ndim != 1 or not packed.flags.c_contiguous:
        kind = type(packed).__name__[:100]
        raise error(f"tensors must come as one row of bytes, not as {kind}. Both ends need the same version.")
    begin = 8 + int.from_bytes(packed[:8].tobytes(), "little")
    if begin > min(MOST_HEADER_BYTES + 8, len(packed)) or begin % 8:
        raise error(f"the tensors cannot be read: a header of {begin - 8:,} bytes in {len(packed):,}.")
    try:
        table = json.loads(packed[8:begin].tobytes(), object_pairs_hook=_without_repeats)
        return dict(_tensors(table, packed[begin:]))
    # What json, and PyTorch for shapes beyond its integers, raise.
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError, OverflowError, RuntimeError) as problem:
        raise error(f"the tensors cannot be read ({str(problem)[:300]}). Both ends need the same version.") from problem


def _tensors(table: Mapping[str, Any], data: NDArray[np.uint8]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors; together they must be all of the data, in the order of the table."""
    if len(table) > MOST_TENSORS:
        raise ValueError(f"{len(table):,} tensors; at most {MOST_TENSORS:,} are allowed")
    at = 0
    for name, entry in table.items():
        dtype, shape, end = _entry(name, entry, at)
        name.encode()  # Half a pair of surrogates is no text, and could not be recorded.
        # A slice ends with the data, whatever a stranger says.
        yield name, torch.from_numpy(data[at:end]).view(dtype).view(shape)
        at = end
    if at != len(data):
        raise ValueError(f"{len(data):,} bytes of tensors instead of {at:,}")


def _entry(name: str, entry: Mapping[str, Any], at: int) -> tuple[torch.dtype, list[int], int]:
    """Return type, shape and end of a tensor that must begin at `at`."""
    if entry.keys() != _KEYS:
        raise ValueError(f"tensor {name[:100]!r} is described by other words")
    dtype, shape = _TYPES[entry["dtype"]], entry["shape"]
    if not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS or not all(map(_is_size, shape)):
        raise ValueError(f"tensor {name[:100]!r} has no shape of at most {MOST_DIMENSIONS} dimensions")
    end = at + math.prod(shape) * dtype.itemsize
    if entry["data_offsets"] != [at, end] or at % dtype.itemsize:
        raise ValueError(f"tensor {name[:100]!r} lies elsewhere than its shape says")
    return dtype, shape, end


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name stands twice in the header")
    return table
