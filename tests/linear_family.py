"""What the tests of the linear family share: inputs, masks, float64 derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.mechanisms import Arrays, Sizes, draw_softmax, wide

WINDOWS = (-1, 0, 1, 5, 31, 61, 62, 124)
"""For sequences of 62 tokens: n - 1, n and 2n among them."""


def masks_of(length: int, batch: int = 1) -> dict[str, dict[str, Any]]:
    """Padding with holes at the start and inside, and segments of lengths from 1 to many; ids may return."""
    rng = np.random.default_rng(length)
    shown = rng.random((batch, length)) > 0.2
    shown[:, :3] = False
    lengths = [1, 2, 40, 5, 60, 1, length]
    ids = np.repeat([7, 3, 4, 7, -2, 0, 7], lengths)[:length]
    segments = np.stack([np.roll(ids, b) for b in range(batch)])
    return {
        "none": {},
        "padding": {"key_mask": shown},
        "segments": {"segment_ids": segments},
        "both": {"key_mask": shown, "segment_ids": segments},
    }


def draw(
    length: int = 62,
    *,
    batch: int = 1,
    heads: int = 2,
    kv_heads: int | None = None,
    dim: int = 8,
    value_dim: int | None = None,
    state_heads: int | None = None,
    seed: int = 0,
    dtype: str = "float32",
) -> Arrays:
    """Query, key and value, and with `state_heads` an initial state."""
    sizes = Sizes(batch, heads, kv_heads, length, None, dim, value_dim)
    inputs = draw_softmax(sizes, seed, dtype)
    if state_heads is not None:
        shape = (batch, state_heads, 2 * dim, value_dim or dim)
        inputs["initial_state"] = np.random.default_rng(seed + 1).standard_normal(shape, np.float32)
    return inputs


def draw_gated(
    length: int = 62,
    *,
    decay: float = 0.5,
    forgets: float = 0.0,
    features: int = 2,
    channels: bool = False,
    **sizes: Any,
) -> Arrays:
    """The same with log_gate: from 0 to `-decay`, and -inf with the probability `forgets`.

    An initial state is that of a map to `features` times head_dim.
    """
    inputs = draw(length, **sizes)
    rng = np.random.default_rng(length + sizes.get("seed", 0))
    shape = inputs["key"].shape if channels else inputs["key"].shape[:3]
    gates = np.float32(-decay) * rng.random(shape, np.float32)
    inputs["log_gate"] = np.where(rng.random(gates.shape) < forgets, np.float32(-np.inf), gates)
    if "initial_state" in inputs:
        inputs["initial_state"] = inputs["initial_state"][:, :, : features * inputs["key"].shape[3]].copy()
    return inputs


def relative_error(got: NDArray[Any], exact: NDArray[np.float64]) -> float:
    """The largest error relative to the largest value."""
    assert got.shape == exact.shape
    largest = float(np.abs(exact).max(initial=0.0))
    return float(np.abs(got.astype(np.float64) - exact).max(initial=0.0)) / (largest or 1.0)


def derivative(
    reference: Callable[..., tuple[NDArray[Any], NDArray[Any]]],
    inputs: Arrays,
    grads: tuple[NDArray[Any], NDArray[Any] | None],
    name: str,
    direction: NDArray[np.float64],
    **options: Any,
) -> float:
    """Of sum(output * grad_output) + sum(state * grad_state) along a direction of one input."""
    exact = wide(inputs)
    step = 1e-5

    def value(sign: int) -> float:
        moved = exact | {name: exact[name] + sign * step * direction}
        results = zip(reference(**moved, **options), grads, strict=True)
        return sum(float((result * grad).sum()) for result, grad in results if grad is not None)

    return (value(1) - value(-1)) / (2 * step)


def assert_is_derivative(
    got: NDArray[Any],
    reference: Callable[..., tuple[NDArray[Any], NDArray[Any]]],
    inputs: Arrays,
    grads: tuple[NDArray[Any], NDArray[Any] | None],
    name: str,
    tolerance: float = 2e-5,
    **options: Any,
) -> None:
    assert got.shape == inputs[name].shape
    direction = np.random.default_rng(3).standard_normal(got.shape)
    expected = derivative(reference, inputs, grads, name, direction, **options)
    scale = float(np.abs(got * direction).sum()) + 1e-3
    assert abs(float((got * direction).sum()) - expected) <= tolerance * scale, name


def assert_all_gradients(
    backward: Callable[..., Arrays],
    law: Callable[..., tuple[NDArray[Any], NDArray[Any]]],
    inputs: Arrays,
    also: frozenset[str] = frozenset(),
    **options: Any,
) -> None:
    """Gradients of output and state for every input, against central differences of the law.

    `also` names what comes besides.
    """
    output, state = law(**inputs, **options)
    rng = np.random.default_rng(1)
    grad = rng.standard_normal(output.shape).astype(np.float32)
    grad_state = rng.standard_normal(state.shape).astype(np.float32)
    got = backward(grad, **inputs, **options, grad_state=grad_state)
    assert set(got) == set(inputs) | also
    for name in inputs:
        assert_is_derivative(got[name], law, inputs, (grad, grad_state), name, **options)


def same_bits_for_any_threads(
    use_threads: Callable[[int], None], call: Callable[[], list[NDArray[Any]]]
) -> None:
    use_threads(1)
    first = call()
    for threads in (2, 3, 8):
        use_threads(threads)
        for expected, got in zip(first, call(), strict=True):
            np.testing.assert_array_equal(got, expected)
