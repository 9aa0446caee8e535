"""Safetensors files that are made to harm."""

import json
import struct
from typing import Any

from polyhead.training.tensor_file import MOST_HEADER_BYTES


def tensor(dtype: str = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def file(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def hostile() -> dict[str, bytes]:
    """Files that no reader may accept, by what is wrong with them."""
    one = json.dumps(tensor()).encode()
    long = MOST_HEADER_BYTES - 200
    return {
        "empty": b"",
        "seven bytes": b"\0" * 7,
        "no header": struct.pack("<Q", 0),
        "header of 2**63": file({"a": tensor()}, bytes(4), 2**63),
        "header of 2**64 - 1": file({"a": tensor()}, bytes(4), 2**64 - 1),
        "header of 2**64 - 8": file({"a": tensor()}, bytes(4), 2**64 - 8),
        "header beyond the file": file({"a": tensor()}, b"", 500),
        "header above the limit": file(b"{}" + b" " * MOST_HEADER_BYTES, b""),
        "brackets": file(b"[" * long),
        "braces": file(b'{"a":' * (long // 5)),
        "brackets in a shape": file(b'{"a":{"dtype":"F32","shape":' + b"[" * long),
        "empty lists": file(b'{"a":[' + b"[]," * (long // 3) + b"[]]}"),
        "a long number": file(b'{"a":{"dtype":"F32","shape":[' + b"9" * long + b"]}}"),
        "100,000 entries": file({f"a{n}": tensor("U8", [0], [0, 0]) for n in range(100_000)}),
        "60,000 entries": file({f"{n}": tensor("U8", [0], [0, 0]) for n in range(60_000)}),
        "60,000 times one entry": file(
            b"{" + b",".join([b'"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'] * 60_000) + b"}"
        ),
        "a long shape": file({"a": tensor("U8", [1] * 1_000_000, [0, 1])}, b"x"),
        "overlapping": file({"a": tensor(), "b": tensor()}, bytes(4)),
        "half overlapping": file({"a": tensor(), "b": tensor(offsets=(2, 6))}, bytes(6)),
        "a gap": file({"a": tensor(), "b": tensor(offsets=(8, 12))}, bytes(12)),
        "out of the file": file({"a": tensor(shape=[100], offsets=[0, 400])}, bytes(4)),
        "out of every file": file({"a": tensor(shape=[2**60], offsets=[0, 2**62])}, bytes(4)),
        "bytes of nobody": file({"a": tensor()}, bytes(8)),
        "ends before it begins": file({"a": tensor(offsets=(4, 0))}, bytes(4)),
        "negative shape": file({"a": tensor(shape=[-1])}, bytes(4)),
        "negative offset": file({"a": tensor(offsets=[-4, 0])}, bytes(4)),
        "shape of 2**64": file({"a": tensor(shape=[2**32, 2**32], offsets=[0, 0])}),
        "shape beyond 2**63, empty": file({"a": tensor(shape=[0, 2**63], offsets=[0, 0])}),
        "shape beyond 2**64, empty": file({"a": tensor(shape=[2**62, 2**62, 0], offsets=[0, 0])}),
        "shape and bytes differ": file({"a": tensor(shape=[2])}, bytes(4)),
        "shape of fractions": file({"a": tensor(shape=[1.0])}, bytes(4)),
        "shape is text": file({"a": tensor(shape="1")}, bytes(4)),
        "a name twice, alike": file(b'{"a":' + one + b',"a":' + one + b"}", bytes(4)),
        "a name twice, apart": file(b'{"a":' + one + b',"a":' + one.replace(b"[0, 4]", b"[4, 8]") + b"}", bytes(8)),
        "a key twice": file(b'{"a":' + one.replace(b"{", b'{"dtype":"F32",') + b"}", bytes(4)),
        "dtype NaN": file({"a": tensor("NaN")}, bytes(4)),
        "dtype is NaN": file({"a": {**tensor(), "dtype": float("nan")}}, bytes(4)),
        "dtype of another library": file({"a": tensor("F6_E2M3", [4], [0, 3])}, bytes(3)),
        "dtype of eight bits": file({"a": tensor("F8_E4M3", [4])}, bytes(4)),
        "dtype complex": file({"a": tensor("C64", [1], [0, 8])}, bytes(8)),
        "key missing": file({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
        "not UTF-8": file(b'{"\xff":' + one + b"}", bytes(4)),
        "half a pair of surrogates": file(b'{"\\ud800":' + one + b"}", bytes(4)),
        "a list": file([1]),
        "a number": file(7),
        "null": file(b"null"),
        "nothing": file(b" " * 64),
        "text after the header": file(b"{}x"),
        "metadata is a list": file({"__metadata__": [1]}),
        "metadata of a number": file({"__metadata__": {"a": 1}}),
        "metadata twice": file(b'{"__metadata__":{"a":"b","a":"b"}}'),
        "metadata of brackets": file(b'{"__metadata__":{"a":' + b"[" * long),
        "nine dimensions": file({"a": tensor(shape=[1] * 9)}, bytes(4)),
    }
