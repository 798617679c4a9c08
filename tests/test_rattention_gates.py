"""RAttention whose state decays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rattention as ra
from numpy.typing import NDArray
from rattention.mechanisms.rattention import (
    numbers_kept,
    rattention_backward,
    rattention_keeping,
    reference_rattention,
)

from tests.linear_family import (
    Arrays,
    assert_all_gradients,
    draw,
    draw_gated,
    masks_of,
    relative_error,
    same_bits_for_any_threads,
)

NORMS = frozenset({"local_norm_weight", "linear_norm_weight"})
windows = pytest.mark.parametrize("window", [-1, 0, 20, 99])


def gated(length: int, **sizes: Any) -> Arrays:
    inputs = draw_gated(length, **sizes)
    inputs["gate"] = inputs.pop("log_gate")
    return inputs


@pytest.mark.row("N4")
@windows
@pytest.mark.parametrize("masks", masks_of(4))
@pytest.mark.parametrize("decay", [0.05, 2.0, 50.0])
def test_it_follows_the_law(decay: float, masks: str, window: int) -> None:
    inputs = gated(100, decay=decay, forgets=0.02, batch=2, heads=4, kv_heads=2, state_heads=4)
    options = masks_of(100, 2)[masks] | {"window": window, "rope_theta": 1e4}
    law = reference_rattention(**inputs, **options)
    for got, exact in zip(ra.rattention(**inputs, **options, return_state=True), law, strict=True):
        assert relative_error(got, exact) <= 1e-5


@pytest.mark.row("N4")
@pytest.mark.parametrize("length", [62, 1200])
def test_without_decay_it_is_plain_rattention(length: int) -> None:
    inputs = gated(length, decay=0.0, heads=4, kv_heads=2)
    got = ra.rattention(**inputs, window=9, return_state=True)
    del inputs["gate"]
    for a, b in zip(got, ra.rattention(**inputs, window=9, return_state=True), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.row("N4")
def test_its_far_branch_is_gated_linear_attention() -> None:
    inputs = gated(200, state_heads=2)
    both = ra.rattention(**inputs, window=-1, eps=1e-30)
    far = ra.gated_linear_attention(
        **inputs | {"log_gate": inputs.pop("gate")}, scale=1.0, feature_map="softmax"
    )
    normed = far / np.sqrt(np.square(far).mean(axis=-1, keepdims=True))
    np.testing.assert_allclose(both, normed, rtol=1e-5, atol=1e-5)


@pytest.mark.row("N3")
@windows
@pytest.mark.parametrize("masks", masks_of(4))
@pytest.mark.parametrize("decay", [0.1, 3.0])
def test_gradients_are_the_derivatives(decay: float, masks: str, window: int) -> None:
    inputs = gated(80, decay=decay, heads=4, kv_heads=2, dim=6, value_dim=6, state_heads=2)
    options = masks_of(80)[masks] | {"window": window, "eps": 0.1}
    also = NORMS
    assert_all_gradients(rattention_backward, reference_rattention, inputs, also, **options)


@pytest.mark.parametrize("threads", [1, 5])
@pytest.mark.parametrize("length", [1, 385, 900])
@pytest.mark.parametrize("state_heads", [None, 3])
def test_what_is_kept(state_heads: int | None, length: int, threads: int, use_threads: Any) -> None:
    """The same bits with it and without."""
    use_threads(threads)
    inputs = gated(length, heads=6, kv_heads=3, state_heads=state_heads)
    grad = draw(length, heads=6, seed=9)["query"]
    result = rattention_keeping(**inputs, window=5)
    assert result.kept is not None
    shapes = inputs["query"].shape, inputs["key"].shape
    assert result.kept.size == numbers_kept(*shapes, 8, state_heads is not None)
    again = rattention_backward(grad, **inputs, window=5)
    for name, got in rattention_backward(grad, **inputs, window=5, kept=result.kept).items():
        np.testing.assert_array_equal(got, again[name], err_msg=name)


@pytest.mark.row("S4")
def test_the_gate_of_a_hidden_key_changes_no_bit() -> None:
    inputs = gated(300, heads=4, kv_heads=2)
    options: dict[str, Any] = {"key_mask": masks_of(300)["padding"]["key_mask"], "window": 9}
    grad = draw(300, heads=4, seed=3)["query"]
    hidden = ~options["key_mask"][0]
    before = rattention_backward(grad, **inputs, **options)
    output = ra.rattention(**inputs, **options)
    inputs["gate"][:, :, hidden] = np.nan
    np.testing.assert_array_equal(ra.rattention(**inputs, **options), output)
    for name, got in rattention_backward(grad, **inputs, **options).items():
        np.testing.assert_array_equal(got, before[name])


@pytest.mark.row("N13")
def test_the_same_bits_for_any_number_of_threads(use_threads: Any) -> None:
    inputs = gated(1500, heads=4, kv_heads=1, state_heads=4)
    grad = draw(1500, heads=4, seed=5)["query"]

    def call() -> list[NDArray[Any]]:
        gradients = rattention_backward(grad, **inputs, window=100)
        return [*ra.rattention(**inputs, window=100, return_state=True), *gradients.values()]

    same_bits_for_any_threads(use_threads, call)


@pytest.mark.row("S6")
@pytest.mark.parametrize(
    ("bad", "message", "error"),
    [
        (np.full((1, 2, 62), 0.5, np.float32), "^gate must be <= 0", ValueError),
        (np.full((1, 2, 62), np.nan, np.float32), "^gate must be <= 0", ValueError),
        (np.zeros((1, 4, 62), np.float32), r"^gate must have shape \(1, 2, 62\)", ValueError),
        (np.zeros((2, 62), np.float32), "^gate must have 3 dimensions", ValueError),
        (np.zeros((1, 2, 62)), "gate has dtype float64", TypeError),
    ],
)
def test_what_is_refused(bad: Any, message: str, error: type[Exception]) -> None:
    arguments = draw(62, heads=4, kv_heads=2) | {"window": 3, "gate": bad}
    with pytest.raises(error, match=message):
        ra.rattention(**arguments)
    with pytest.raises(error, match=message):
        rattention_backward(np.zeros((1, 4, 62, 8), np.float32), **arguments)
