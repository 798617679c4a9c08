"""ONNX's own backend cases of attention, linear attention and rotary embedding, by the public functions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import rattention as ra

pytest.importorskip("onnx", reason="needs onnx")
pytest.importorskip("onnx.backend.test.case.node.attention", reason="this onnx has no cases of Attention")

from tests.onnx_nodes import load_cases, run

CASES = {case.name: case for case in load_cases()}
TOLERANCE = {"float32": (1e-5, 1e-6), "float16": (2e-3, 2e-3), "bfloat16": (1.6e-2, 1.6e-2)}
"""Relative and absolute, by dtype: ONNX's reference rounds every step to it, products of scores included."""


def assert_is_right(name: str) -> None:
    for output, got, expected in run(CASES[name]):
        assert got.shape == expected.shape, output
        relative, absolute = TOLERANCE[expected.dtype.name]
        np.testing.assert_allclose(
            got.astype(np.float64),
            expected.astype(np.float64),
            rtol=relative,
            atol=absolute,
            err_msg=output,
        )


@pytest.mark.parametrize("name", sorted(CASES))
def test_case(name: str) -> None:
    assert_is_right(name)


def test_counts(capsys: Any) -> None:
    """All are there; numbers are those of onnx 1.23."""
    counts = Counter(case.model.graph.node[0].op_type for case in CASES.values())
    with capsys.disabled():
        print(f"\n{len(CASES)} cases of ONNX: {dict(counts)}")
    assert counts["Attention"] >= 93
    if "LinearAttention" in counts:
        assert counts["LinearAttention"] >= 14
    assert counts["RotaryEmbedding"] >= 8


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("attention", "test_attention_4d"),
        ("gated_linear_attention", "test_linear_attention_gated"),
        ("gated_delta_rule", "test_linear_attention_gated_delta"),
    ],
)
def test_a_wrong_answer_is_seen(function: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison itself: with another scale a case fails."""
    if name not in CASES:
        pytest.skip(f"this onnx has no case {name}")
    exact = getattr(ra, function)
    monkeypatch.setattr(ra, function, lambda *args, **options: exact(*args, **options | {"scale": 0.3}))
    with pytest.raises(AssertionError):
        assert_is_right(name)
