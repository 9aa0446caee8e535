"""Tensors on disk, as safetensors; a stranger's file is held against limits before anything parses it.

Nothing is ever unpickled.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedReader
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from polyhead.atomic import write_atomically
from polyhead.errors import PolyheadError
from polyhead.limited_file import limited_file

__all__ = [
    "CODES",
    "MOST_DIMENSIONS",
    "MOST_HEADER_BYTES",
    "MOST_TENSORS",
    "Stored",
    "check_stored",
    "header_of",
    "memory_of",
    "read_tensors",
    "write_tensors",
]

MOST_HEADER_BYTES = 2**22
"""Largest header that is read, in bytes."""

MOST_TENSORS = 20_000
"""Most tensors that are read."""

MOST_DIMENSIONS = 8
"""Most dimensions of a tensor that is read."""

CODES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8"},
    torch.bool: "BOOL",
}
"""What a header calls each type."""

_CONVERT = "Polyhead never unpickles: convert it to safetensors with safetensors.torch.save_file"
# How files that are often taken for weights begin. A safetensors file may begin so, too: asked only of those that fail.
_OTHER_KINDS = {
    b"PK\x03\x04": f"is a PyTorch pickle; {_CONVERT}",
    b"\x80": f"is a pickle; {_CONVERT}",
    b"\x93NUMPY": "is a NumPy array, not safetensors",
    b"\x89HDF": "is an HDF5 file, not safetensors",
}
# What safetensors, and PyTorch under it, raise for headers that are odd but pass its own checks.
_PARSE_ERRORS = (SafetensorError, OSError, ValueError, TypeError, KeyError, OverflowError, RuntimeError, MemoryError)


@dataclass(frozen=True)
class Stored:
    """What a file is known by: its size in bytes and its SHA-256 in hexadecimal digits."""

    bytes: int
    sha256: str


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], *, mode: int = 0o666) -> Stored:
    """Write tensors, atomically.

    Parameters
    ----------
    mode
        Permissions of the file; see `polyhead.atomic.write_atomically`.

    Returns
    -------
    Stored
        To hold the file against when it is read.

    Raises
    ------
    DiskError
        If the disk is full; the old file stays.
    """
    parts = _parts(tensors)
    with ThreadPoolExecutor(1) as beside:  # Hashing takes as long as writing, and both wait for nobody.
        sha256 = beside.submit(_hash_of, parts)
        write_atomically(path, *parts, mode=mode)
    return Stored(sum(map(len, parts)), sha256.result())


def _hash_of(parts: Sequence[bytes | memoryview]) -> str:
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(part)
    return sha256.hexdigest()


def _parts(tensors: Mapping[str, torch.Tensor]) -> list[bytes | memoryview]:
    """Return a safetensors file in parts: the header, then each tensor's own memory.

    The library's writer copies every tensor twice, which for what a site writes after every round took as long as
    hashing, writing and flushing it.
    """
    header, ordered = header_of(tensors)
    return [header, *map(memory_of, ordered)]


def header_of(tensors: Mapping[str, torch.Tensor]) -> tuple[bytes, list[torch.Tensor]]:
    """Return how a safetensors file begins, and the tensors whose bytes follow, without gaps, in this order.

    Every tensor begins at a multiple of its type's size.
    """
    # As the library does: large types first.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    ends = [0, *accumulate(tensor.numel() * tensor.element_size() for _, tensor in ordered)]
    header = {
        name: {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        for (name, tensor), begin, end in zip(ordered, ends, ends[1:], strict=False)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, [tensor for _, tensor in ordered]


def memory_of(tensor: torch.Tensor) -> memoryview:
    """Return a tensor's bytes in the usual order; its own memory, not a copy, if it lies so."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def read_tensors(
    path: Path, error: type[PolyheadError], *, most_bytes: int, stored: Stored | None = None
) -> dict[str, torch.Tensor]:
    """Read tensors; whatever else a file says about itself is ignored.

    Parameters
    ----------
    most_bytes
        A larger file is refused unread.
    stored
        What the file was when it was written; None if that is not known.

    Returns
    -------
    dict
        The tensors, by name, which may map the file: replace it, do not write into it.

    Raises
    ------
    PolyheadError
        Of the class `error`: the file is missing, no regular file, too large, not as it was stored, or no safetensors
        file of at most 4 MiB of header and 20,000 tensors of the usual types.
    """
    with limited_file(path, error, most_bytes) as file:
        if stored:
            check_stored(path, error, file, stored)
        header = _header(path, error, file)
    try:
        # Lazily, after the names are counted: the header alone could ask for more tensors than there is time for.
        with safe_open(path, framework="pt") as opened:
            names = list(opened.keys())
            if len(names) > MOST_TENSORS:
                raise ValueError(f"{len(names):,} tensors; at most {MOST_TENSORS:,} are allowed")
            json.loads(header, object_pairs_hook=_refuse_repeats)
            return {name: _checked(name, opened.get_tensor(name)) for name in names}
    except _PARSE_ERRORS as problem:
        raise error(
            f"{path}: cannot be read as safetensors ({str(problem)[:300]}). The file is damaged or was made by another "
            "program; put a whole copy in its place."
        ) from problem


def check_stored(path: Path, error: type[PolyheadError], file: BufferedReader, stored: Stored) -> None:
    """Hold an open file, at its beginning, against what was written; it is there again afterwards.

    Raises
    ------
    PolyheadError
        Of the class `error`: its size or its hash is another.
    """
    size = os.fstat(file.fileno()).st_size
    if size != stored.bytes:
        raise error(f"{path}: {size} bytes instead of the {stored.bytes} that were written. Restore the file.")
    if hashlib.file_digest(file, "sha256").hexdigest() != stored.sha256:
        raise error(f"{path}: is not what was written (another SHA-256): it was changed or damaged. Restore the file.")
    file.seek(0)


def _header(path: Path, error: type[PolyheadError], file: BufferedReader) -> bytes:
    """Return the header's bytes if its length is allowed."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(MOST_HEADER_BYTES, size - 8):
        for beginning, kind in _OTHER_KINDS.items():
            if start.startswith(beginning):
                raise error(f"{path}: {kind}.")
        found = f"a header of {length:,} bytes" if len(start) == 8 else f"{size} bytes"
        raise error(
            f"{path}: is no safetensors file, or a part of one ({found} in {size:,} bytes; allowed: at most "
            f"{MOST_HEADER_BYTES:,}, within the file). Put a whole copy in its place."
        )
    return file.read(length)


def _refuse_repeats(pairs: list[tuple[str, Any]]) -> None:
    """Refuse a name that stands twice in an object; safetensors keeps the last. Nothing is built: it would be large."""
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name stands twice in the header")


def _checked(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype not in CODES:
        raise ValueError(f"tensor {name[:100]!r} is of type {tensor.dtype}; allowed are ordinary numbers and booleans")
    if tensor.dim() > MOST_DIMENSIONS:
        raise ValueError(f"tensor {name[:100]!r} has {tensor.dim()} dimensions; at most {MOST_DIMENSIONS} are allowed")
    return tensor
