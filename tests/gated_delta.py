"""What the tests of the gated delta rule share: inputs, masks, and the comparison with the law."""

from __future__ import annotations

from typing import Any

import numpy as np
import rattention as ra
from numpy.typing import NDArray
from rattention.mechanisms import gated_delta_rule_backward, reference_gated_delta_rule

from tests.linear_family import assert_is_derivative, relative_error
from tests.mechanisms import Arrays

TOLERANCE = 1e-5


def draw(
    length: int = 62,
    *,
    batch: int = 1,
    heads: int = 2,
    kv_heads: int | None = None,
    dim: int = 8,
    value_dim: int | None = None,
    channels: bool = False,
    strongest: float = 3.0,
    state: bool = False,
    seed: int = 0,
    dtype: Any = np.float32,
) -> Arrays:
    """Betas from 0 to 2, gates from 1 to e^-strongest, many of them near 1."""
    rng = np.random.default_rng(seed)
    kv_heads, value_dim = kv_heads or heads, value_dim or dim
    gates = (batch, heads, length, dim) if channels else (batch, heads, length)
    inputs = {
        "query": rng.standard_normal((batch, heads, length, dim), np.float32).astype(dtype),
        "key": rng.standard_normal((batch, kv_heads, length, dim), np.float32).astype(dtype),
        "value": rng.standard_normal((batch, kv_heads, length, value_dim), np.float32).astype(dtype),
        "log_gate": -np.float32(strongest) * rng.random(gates, np.float32) ** 4,
        "beta": 2 * rng.random((batch, heads, length), np.float32),
    }
    if state:
        inputs["initial_state"] = rng.standard_normal((batch, heads, dim, value_dim), np.float32)
    return inputs


def grads_like(inputs: Arrays, seed: int = 1) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gradients of output and state."""
    rng = np.random.default_rng(seed)
    (batch, heads, length, dim), value_dim = inputs["query"].shape, inputs["value"].shape[3]
    output = rng.standard_normal((batch, heads, length, value_dim), np.float32)
    return output, rng.standard_normal((batch, heads, dim, value_dim), np.float32)


def assert_follows_the_law(inputs: Arrays, **options: Any) -> None:
    options = {"normalize": True} | options
    got = ra.gated_delta_rule(**inputs, **options, return_state=True)
    exact = reference_gated_delta_rule(**inputs, **options)
    for mine, law in zip(got, exact, strict=True):
        assert relative_error(mine, law) <= TOLERANCE


def assert_gradients(inputs: Arrays, **options: Any) -> None:
    """Of output and state, against central differences of the law."""
    options = {"normalize": True} | options
    grads = grads_like(inputs)
    got = gated_delta_rule_backward(grads[0], **inputs, **options, grad_state=grads[1])
    assert set(got) == set(inputs)
    for name in inputs:
        assert_is_derivative(got[name], reference_gated_delta_rule, inputs, grads, name, **options)
