"""Answers as bytes: a length, a JSON header and arrays, which a page reads without parsing numbers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from rattention._files import json_ready

Answer = dict[str, Any]
"""Plain values and arrays by name."""

ALIGNED = 8
"""Arrays begin at multiples of this many bytes."""
SENT = (np.dtype(np.float32), np.dtype(np.int32), np.dtype(np.uint8), np.dtype(np.uint16))
"""What a page can read."""


def encode(answer: Answer) -> bytes:
    """``uint32`` header length, little-endian; the header of `split` as JSON; the arrays.

    The header is padded, so that arrays begin at a multiple of `ALIGNED` bytes.
    """
    header, arrays = split(answer)
    text = json.dumps(header, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass")
    text += b" " * (-(len(text) + 4) % ALIGNED)
    return len(text).to_bytes(4, "little") + text + arrays


def split(answer: Answer) -> tuple[dict[str, Any], bytes]:
    """``{"values", "arrays"}`` as plain data, None for NaN; and the arrays, whose ``offset`` it has."""
    values, listed, blocks, offset = {}, {}, list[bytes](), 0
    for name, value in answer.items():
        if not isinstance(value, np.ndarray):
            values[name] = value
            continue
        block = _bytes(name, value)
        listed[name] = {
            "dtype": value.dtype.name,
            "shape": list(value.shape),
            "offset": offset,
            "length": value.size,
        }
        blocks += [block, bytes(-len(block) % ALIGNED)]
        offset += len(block) + len(blocks[-1])
    return {"values": json_ready(values), "arrays": listed}, b"".join(blocks)


def _bytes(name: str, array: np.ndarray[Any, Any]) -> bytes:
    if array.dtype not in SENT:
        raise TypeError(f"{name} must be one of {', '.join(d.name for d in SENT)}, got {array.dtype}")
    return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
