"""Gradients of every mechanism of the softmax family, against central differences of the float64 law."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
import rattention as ra
from numpy.typing import NDArray
from rattention.mechanisms.row import Mechanism

from tests.variants import SOFTMAX_FAMILY

by_mechanism = pytest.mark.parametrize("mechanism", SOFTMAX_FAMILY, ids=lambda m: m.name)

MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "causal": {"causal": True},
    "window": {"causal": True, "window": 7},
    "two-sided": {"window": (3, 5)},
    "padding": {"key_mask": np.arange(33)[None] % 3 > 0},
    "segments": {"segment_ids": np.arange(33)[None] // 9},
    "dense": {"attn_mask": (np.arange(29)[:, None] + np.arange(33)) % 4 > 0},
}


def draw(
    mechanism: Mechanism, rows: int = 29, keys: int = 33, heads: int = 4, kv_heads: int = 2
) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    shapes = {
        "query": (1, heads, rows, 5),
        "key": (1, kv_heads, keys, 5),
        "value": (1, kv_heads, keys, 6),
        "query_mass": (1, heads, rows),
        "key_mass": (1, heads, keys),
    }
    inputs: dict[str, Any] = {}
    for name in mechanism.parameters:
        if name in shapes:
            numbers = rng.standard_normal(shapes[name]).astype(np.float32)
            inputs[name] = np.abs(numbers) if name.endswith("mass") else numbers
    if "gravity" in mechanism.parameters:
        inputs |= {"gravity": np.linspace(0.5, 1.5, heads, dtype=np.float32), "eps": 0.7}
    if "exponent" in mechanism.parameters:
        inputs["exponent"] = np.array([1, 2, 0.7, 3], np.float32)[:heads]
    if "log_discount" in mechanism.parameters:
        per_query = mechanism.argument("log_discount").kind == "array"
        shape = (1, heads, rows) if per_query else (heads,)
        inputs["log_discount"] = np.linspace(-0.2, -0.05, prod(shape), dtype=np.float32).reshape(shape)
    if "sinks" in mechanism.parameters:
        inputs["sinks"] = np.linspace(-1, 2, heads, dtype=np.float32)
    if "relative_bias" in mechanism.parameters:
        inputs["relative_bias"] = rng.standard_normal((heads, 21), np.float32)
    return inputs


def gradients(
    mechanism: Mechanism, inputs: dict[str, Any], grad: NDArray[Any], **masks: Any
) -> dict[str, Any]:
    result = mechanism.forward(**inputs, **masks, return_lse=True)
    return mechanism.backward(grad, **inputs, result=result, **masks)


def directional(
    mechanism: Mechanism, inputs: dict[str, Any], grad: NDArray[Any], name: str, **masks: Any
) -> tuple[Any, Any]:
    """The derivative of sum(output * grad) along a random direction of one input, and that direction."""
    wide = {n: np.asarray(a, np.float64) if isinstance(a, np.ndarray) else a for n, a in inputs.items()}
    direction = np.random.default_rng(3).standard_normal(wide[name].shape)
    step = 1e-6

    def value(sign: int) -> float:
        moved = wide | {name: wide[name] + sign * step * direction}
        return float((mechanism.reference(**moved, **masks).output * grad).sum())

    return (value(1) - value(-1)) / (2 * step), direction


@pytest.mark.row("N3")
@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
@by_mechanism
def test_gradients_are_the_derivatives(mechanism: Mechanism, masks: dict[str, Any]) -> None:
    inputs = draw(mechanism)
    grad = np.random.default_rng(1).standard_normal((1, 4, 29, 6)).astype(np.float32)
    got = gradients(mechanism, inputs, grad, **masks)
    assert set(got) == set(mechanism.parameters)
    for name in mechanism.parameters:
        expected, direction = directional(mechanism, inputs, grad, name, **masks)
        assert got[name].shape == direction.shape
        scale = np.abs(got[name] * direction).sum() + 1e-3
        assert abs((got[name] * direction).sum() - expected) <= 2e-5 * scale, name


@pytest.mark.row("N13")
@by_mechanism
def test_gradients_are_the_same_for_any_number_of_threads(mechanism: Mechanism) -> None:
    inputs = draw(mechanism, rows=1500, keys=1500, heads=2, kv_heads=1)
    grad = np.random.default_rng(1).standard_normal((1, 2, 1500, 6)).astype(np.float32)
    try:
        ra.set_num_threads(1)
        first = gradients(mechanism, inputs, grad, causal=True)
        for threads in (2, 3, 8):
            ra.set_num_threads(threads)
            again = gradients(mechanism, inputs, grad, causal=True)
            assert all(np.array_equal(first[name], again[name]) for name in first)
    finally:
        ra.set_num_threads(0)


@pytest.mark.row("S1")
@by_mechanism
def test_rows_that_see_nothing_have_no_gradient(mechanism: Mechanism) -> None:
    inputs = draw(mechanism)
    hidden = np.zeros((29, 33), bool)
    hidden[5:] = True
    grad = np.ones((1, 4, 29, 6), np.float32)
    got = gradients(mechanism, inputs, grad, attn_mask=hidden)
    assert (got["query"][:, :, :5] == 0).all()
    assert all(np.isfinite(array).all() for array in got.values())


@pytest.mark.row("S4")
@by_mechanism
def test_hidden_poison_reaches_no_gradient(mechanism: Mechanism) -> None:
    inputs = draw(mechanism)
    grad = np.random.default_rng(1).standard_normal((1, 4, 29, 6)).astype(np.float32)
    shown = np.ones((1, 33), bool)
    shown[0, 10:13] = False
    clean = gradients(mechanism, inputs, grad, key_mask=shown)
    poisoned = {n: a.copy() if isinstance(a, np.ndarray) else a for n, a in inputs.items()}
    poisoned["key"][:, :, 10:13] = np.nan
    poisoned["value"][:, :, 10:13] = np.inf
    if "key_mass" in poisoned:
        poisoned["key_mass"][:, :, 10:13] = np.nan
    got = gradients(mechanism, poisoned, grad, key_mask=shown)
    for name in mechanism.parameters:
        if name in ("key", "value", "key_mass"):
            assert np.allclose(
                np.delete(got[name], slice(10, 13), 2), np.delete(clean[name], slice(10, 13), 2), atol=1e-5
            )
        else:
            assert np.allclose(got[name], clean[name], atol=1e-5), name


@by_mechanism
def test_backward_asks_for_lse(mechanism: Mechanism) -> None:
    inputs = draw(mechanism)
    result = mechanism.forward(**inputs, metrics=ra.MetricOptions())
    with pytest.raises(TypeError, match="return_lse=True"):
        mechanism.backward(np.zeros((1, 4, 29, 6), np.float32), **inputs, result=result)


@by_mechanism
def test_backward_names_a_gradient_of_other_shape(mechanism: Mechanism) -> None:
    inputs = draw(mechanism)
    result = mechanism.forward(**inputs, return_lse=True)
    with pytest.raises(ValueError, match=r"grad_output.*\(1, 4, 29, 6\)"):
        mechanism.backward(np.zeros((1, 4, 29, 7), np.float32), **inputs, result=result)
