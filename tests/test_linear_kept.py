"""What a forward pass of the linear family keeps: the backward pass has the same bits with it and without."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import rattention as ra
from rattention.mechanisms.row import LinearFunctions

from tests.linear_family import Arrays, draw, draw_gated

FUNCTIONS = [
    functions
    for name in ("residual_linear", "gated_linear", "rattention")
    if isinstance(functions := ra.MECHANISMS[name].functions, LinearFunctions)
]
GATED = ra.MECHANISMS["gated_linear"].functions
each = pytest.mark.parametrize("functions", FUNCTIONS, ids=lambda functions: functions.forward.__name__)


def inputs_of(functions: LinearFunctions, length: int) -> Arrays:
    return draw_gated(length) if functions is GATED else draw(length)


@each
@pytest.mark.parametrize("threads", [1, 5])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 3), (8, 1)])
@pytest.mark.parametrize("length", [1, 47, 384, 385, 900])
def test_gradients_have_the_same_bits(
    functions: LinearFunctions, length: int, heads: int, kv_heads: int, threads: int, use_threads: Any
) -> None:
    use_threads(threads)
    rng = np.random.default_rng(length)
    sizes = {"query": heads, "key": kv_heads, "value": kv_heads}
    drawn = {name: rng.standard_normal((2, h, length, 8), np.float32) for name, h in sizes.items()}
    more: dict[str, Any] = {}
    if functions is GATED:
        more = {"log_gate": -rng.random((2, kv_heads, length), np.float32), "feature_map": "softmax"}
    grad = rng.standard_normal((2, heads, length, 8), np.float32)
    states = [None, *(rng.standard_normal((2, h, 16, 8), np.float32) for h in (kv_heads, heads))]
    for window, state, segments in product((-1, 5, 100), states, (1, 3)):
        ids = np.sort(rng.integers(0, segments, (2, length)), axis=1)
        call: dict[str, Any] = {**drawn, **more, "window": window, "segment_ids": ids, "initial_state": state}
        result = functions.keeping(**call)
        shapes = drawn["query"].shape, drawn["key"].shape
        assert result.kept is not None
        assert result.kept.size == functions.kept(*shapes, 8, state is not None)
        np.testing.assert_array_equal(result.output, functions.forward(**call))
        again = functions.backward(grad, **call)
        for name, gradient in functions.backward(grad, **call, kept=result.kept).items():
            np.testing.assert_array_equal(gradient, again[name], err_msg=name)


@each
def test_what_another_call_kept_is_refused(functions: LinearFunctions) -> None:
    inputs, result = inputs_of(functions, 600), functions.keeping(**inputs_of(functions, 1000), window=9)
    with pytest.raises(ValueError, match="kept must be what the forward pass of the same call kept"):
        functions.backward(inputs["query"], **inputs, window=9, kept=result.kept)


@each
def test_what_is_kept_may_begin_anywhere(functions: LinearFunctions) -> None:
    """As a part of a larger array does, such as one of several calls under vmap."""
    inputs = inputs_of(functions, 500)
    result = functions.keeping(**inputs, window=9)
    assert result.kept is not None
    shifted = np.empty(result.kept.size + 1, np.int32)[1:]
    shifted[:] = result.kept
    grad = np.ones_like(result.output)
    wanted = functions.backward(grad, **inputs, window=9, kept=result.kept)
    for name, gradient in functions.backward(grad, **inputs, window=9, kept=shifted).items():
        np.testing.assert_array_equal(gradient, wanted[name], err_msg=name)
