"""ONNX's own backend cases of attention, linear attention and rotary embedding, by the public functions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import rattention as ra

pytest.importorskip("onnx", reason="needs onnx")
pytest.importorskip("onnx.backend.test.case.node.attention", reason="this onnx has no cases of Attention")

from tests.onnx_nodes import NotExpressible, load_cases, run

CASES = {case.name: case for case in load_cases()}
TOLERANCE = {"float32": (1e-5, 1e-6), "float16": (2e-3, 2e-3), "bfloat16": (1.6e-2, 1.6e-2)}
"""Relative and absolute, by dtype: ONNX's reference rounds every step to it, products of scores included."""


def outcome(name: str) -> str:
    """ "passed", or what is not expressible; an assertion where the answer is wrong."""
    case = CASES[name]
    try:
        results = run(case)
    except NotExpressible as missing:
        return str(missing)
    for output, got, expected in results:
        assert got.shape == expected.shape, output
        relative, absolute = TOLERANCE[expected.dtype.name]
        np.testing.assert_allclose(
            got.astype(np.float64),
            expected.astype(np.float64),
            rtol=relative,
            atol=absolute,
            err_msg=output,
        )
    return "passed"


@pytest.mark.parametrize("name", sorted(CASES))
def test_case(name: str) -> None:
    result = outcome(name)
    if result != "passed":
        pytest.skip(result)


def test_counts(capsys: Any) -> None:
    """None is wrong, which would have raised, and most are expressible; numbers are those of onnx 1.23."""
    counts = Counter(outcome(name) for name in CASES)
    with capsys.disabled():
        print(f"\n{len(CASES)} cases of ONNX: {dict(counts)}")
    missing = sum(number for result, number in counts.items() if result.startswith("not expressible"))
    assert counts["passed"] + missing == len(CASES)
    operators = Counter(CASES[name].model.graph.node[0].op_type for name in CASES)
    if operators == {"Attention": 93, "LinearAttention": 14, "RotaryEmbedding": 8}:
        assert counts["passed"] >= 92
    assert counts["passed"] > missing


def test_a_wrong_answer_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison itself: with another scale the first case fails."""
    exact = ra.attention
    monkeypatch.setattr(ra, "attention", lambda *args, **options: exact(*args, **options | {"scale": 0.3}))
    with pytest.raises(AssertionError):
        outcome("test_attention_4d")
