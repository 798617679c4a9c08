"""The cache as bytes: there and back, and bytes that are damaged, foreign or forged."""

from __future__ import annotations

import pickle
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import rattention as ra
from rattention.mechanisms.cache_bytes import CHECKED_FROM, HEADER

from tests.decoding import CONFIGURATIONS, cache_for, draw, filled, next_rows


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("tokens", [0, 5, 8, 25])
def test_bytes_there_and_back(tokens: int, configuration: str, dtype: str) -> None:
    cache, inputs = filled(tokens, dtype=dtype, **CONFIGURATIONS[configuration])
    data = cache.to_bytes()
    for source in (data, bytearray(data), memoryview(b"x" + data)[1:]):
        back = ra.RAttentionCache.from_bytes(source)
        assert repr(back) == repr(cache)
        assert back.to_bytes() == data
    np.testing.assert_array_equal(next_rows(back, inputs), next_rows(cache, inputs))
    assert back.to_bytes() == cache.to_bytes()


def test_ragged_and_empty_caches_as_bytes() -> None:
    inputs = draw(12, batch=3)
    cache = cache_for(inputs, 5)
    ra.rattention_step(**inputs, cache=cache, lengths=np.array([12, 0, 4]))
    assert ra.RAttentionCache.from_bytes(cache.to_bytes()).lengths.tolist() == [12, 0, 4]
    for sizes in ((0, 2, 4, 3), (2, 0, 4, 3), (2, 2, 4, 0)):
        empty = ra.RAttentionCache(*sizes)
        assert repr(ra.RAttentionCache.from_bytes(empty.to_bytes())) == repr(empty)


def test_data_cut_off_anywhere() -> None:
    cache = ra.RAttentionCache(1, 1, 1, 1)
    data = cache.to_bytes()
    for size in range(len(data)):
        with pytest.raises(ValueError, match=r"data is (cut off|damaged or cut off|no saved)"):
            ra.RAttentionCache.from_bytes(data[:size])
    with pytest.raises(ValueError, match="data is damaged"):
        ra.RAttentionCache.from_bytes(data + b"\0")


def test_data_with_any_bit_flipped() -> None:
    data = filled(3, window=2)[0].to_bytes()
    for bit in range(0, len(data) * 8, 7):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="data"):
            ra.RAttentionCache.from_bytes(damaged)


FOREIGN = {
    "nothing": b"",
    "text": b"not a cache at all, though long enough for a header: " * 3,
    "zeros": bytes(500),
    "a pickle": pickle.dumps({"window": 3}) * 20,
}


@pytest.mark.parametrize("case", FOREIGN)
def test_data_of_something_else(case: str) -> None:
    with pytest.raises(ValueError, match="data is"):
        ra.RAttentionCache.from_bytes(FOREIGN[case])


def forged(*, at: int, value: bytes) -> bytes:
    """Bytes with something else written at an offset, and a checksum that agrees."""
    data = bytearray(ra.RAttentionCache(1, 1, 2, 3).to_bytes())
    data[at : at + len(value)] = value
    data[CHECKED_FROM - 4 : CHECKED_FROM] = struct.pack("<I", zlib.crc32(data[CHECKED_FROM:]))
    return bytes(data)


FORGERIES = {
    "an older version": (8, struct.pack("<I", 1), "version 1 of the format; this release reads version 4"),
    "a negative batch": (16, struct.pack("<q", -1), "makes no sense"),
    "a huge window": (48, struct.pack("<q", 2**61), "its header says"),
    "a huge head_dim": (32, struct.pack("<q", 2**60), "its header says"),
    "an unknown feature map": (56, b"\x07", "makes no sense"),
    "an unknown dtype": (57, b"\x07", "makes no sense"),
    "a rotary embedding that is not there": (58, b"\x01", "its header says"),
    "two rotary embeddings": (58, b"\x02", "makes no sense"),
    "an infinite scale": (64, struct.pack("<d", np.inf), "scale must be finite"),
    "an eps of 0": (72, struct.pack("<d", 0.0), "eps must be > 0"),
    "weights of -2 heads": (80, struct.pack("<q", -2), "makes no sense"),
    "weights that are not there": (88, struct.pack("<q", 3), "its header says"),
    "a negative length": (HEADER.size, struct.pack("<q", -5), "length of sequence 0"),
    "an endless length": (HEADER.size, struct.pack("<q", 2**62), "length of sequence 0"),
}


@pytest.mark.parametrize("case", FORGERIES)
def test_data_that_lies(case: str) -> None:
    at, value, message = FORGERIES[case]
    with pytest.raises(ValueError, match=message):
        ra.RAttentionCache.from_bytes(forged(at=at, value=value))


@pytest.mark.parametrize("data", [None, "text", [1, 2], 5])
def test_data_that_is_no_bytes(data: Any) -> None:
    with pytest.raises(TypeError, match="data must be bytes"):
        ra.RAttentionCache.from_bytes(data)
