"""Answers as the page reads them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rattention.explorer.wire import encode


def decode(data: bytes):
    size = int.from_bytes(data[:4], "little")
    header = json.loads(data[4 : 4 + size])
    answer = dict(header["values"])
    for name, about in header["arrays"].items():
        assert about["offset"] % 8 == 0
        assert (4 + size) % 8 == 0
        array = np.frombuffer(data, about["dtype"], about["length"], 4 + size + about["offset"])
        answer[name] = array.reshape(about["shape"])
    return answer


def test_round_trip():
    answer = {
        "text": "<b>😀\u202e\ud800",
        "nothing": None,
        "share": float("nan"),
        "weights": np.arange(6, dtype=np.float32).reshape(2, 3) * np.nan,
        "kept": np.array([1, 0, 1], np.uint8),
        "empty": np.zeros((0, 4), np.int32),
        "turned": np.arange(6, dtype=np.int32).reshape(2, 3).T,
    }
    got = decode(encode(answer))
    assert got["text"] == answer["text"]
    assert got["nothing"] is None
    assert got["share"] is None
    for name in ("weights", "kept", "empty", "turned"):
        np.testing.assert_array_equal(got[name], answer[name])


def test_what_pages_cannot_read():
    with pytest.raises(TypeError, match="keys must be one of float32, int32, uint8, uint16, got int64"):
        encode({"keys": np.arange(3)})
