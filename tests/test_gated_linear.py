"""Gated linear attention against its recurrence, other forms of it, and its derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rattention as ra
from numpy.typing import NDArray
from rattention.mechanisms.gated_linear import (
    gated_linear_attention_backward,
    reference_gated_linear_attention,
)
from rattention.mechanisms.residual_linear import reference_features

from tests.extras import needs
from tests.gated_linear import assert_follows_the_law, assert_gradients, both
from tests.instruction_sets import every_isa
from tests.linear_family import (
    Arrays,
    assert_is_derivative,
    draw,
    draw_gated,
    masks_of,
    relative_error,
    same_bits_for_any_threads,
)
from tests.mechanisms import DTYPES, wide
from tests.processes import run_python

DECAYS = (1e-4, 0.1, 3.0, 50.0, 700.0)
"""The largest -log_gate: from hardly any decay to what underflows at once."""
feature_maps = pytest.mark.parametrize("feature_map", [None, "softmax", "relu"])
decays = pytest.mark.parametrize("decay", DECAYS)
windows = pytest.mark.parametrize("window", [-1, 0, 31, 61, 200])
masks = pytest.mark.parametrize("masks", masks_of(4))


def features_of(feature_map: str | None) -> int:
    return 1 if feature_map is None else 2


def pairwise(inputs: Arrays, scale: float) -> NDArray[np.float64]:
    """All pairs at once, as RetNet's eq. 5 has them: independent of any recurrence."""
    exact = wide(inputs)
    total = exact["log_gate"].cumsum(axis=2)
    decay = np.tril(np.exp(np.minimum(total[..., :, None] - total[..., None, :], 0)))
    return scale * (exact["query"] @ exact["key"].swapaxes(2, 3) * decay) @ exact["value"]


@pytest.mark.row("N4")
@decays
@feature_maps
@pytest.mark.parametrize("length", [1, 3, 16, 47, 48, 49, 95, 96, 97, 144, 383, 384, 385, 433])
def test_lengths_beside_chunks(length: int, feature_map: str | None, decay: float) -> None:
    inputs = draw_gated(length, decay=decay, dim=24)
    assert_follows_the_law(inputs, feature_map=feature_map)
    assert_follows_the_law(inputs, feature_map=feature_map, window=length // 7)


@pytest.mark.row("N4")
@pytest.mark.parametrize("decay", [0.01, 0.5, 40.0])
def test_it_is_the_sum_over_all_pairs(decay: float) -> None:
    inputs = draw_gated(200, decay=decay)
    assert relative_error(ra.gated_linear_attention(**inputs, scale=0.7), pairwise(inputs, 0.7)) <= 1e-6
    inputs["log_gate"][:] = -decay  # RetNet and Lightning attention
    by_default = ra.gated_linear_attention(**inputs)
    assert relative_error(by_default, pairwise(inputs, 8**-0.5)) <= 1e-6


@pytest.mark.row("N4")
@pytest.mark.parametrize("window", [-1, 9])
@pytest.mark.parametrize("feature_map", ["softmax", "relu"])
def test_without_decay_it_is_residual_linear_attention(feature_map: str, window: int) -> None:
    inputs = draw_gated(500, decay=0.0, heads=4, kv_heads=2, state_heads=4)
    options: dict[str, Any] = {"feature_map": feature_map, "window": window}
    got = both(inputs, **options, scale=1.0)
    del inputs["log_gate"]
    expected = ra.residual_linear_attention(**inputs, **options, return_state=True)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.row("N8")
@feature_maps
@masks
@windows
@decays
def test_windows_and_masks(window: int, masks: str, feature_map: str | None, decay: float) -> None:
    sizes: dict[str, Any] = {"batch": 2, "heads": 4, "kv_heads": 2, "state_heads": 2}
    inputs = draw_gated(62, decay=decay, features=features_of(feature_map), **sizes)
    options = masks_of(62, 2)[masks] | {"window": window, "feature_map": feature_map}
    assert_follows_the_law(inputs, **options)


@pytest.mark.row("N1")
@decays
@pytest.mark.parametrize(("dim", "value_dim"), [(1, 130), (7, 16), (16, 1), (33, 64), (64, 64), (129, 8)])
def test_float32(dim: int, value_dim: int, decay: float) -> None:
    inputs = draw_gated(257, decay=decay, heads=1, dim=dim, value_dim=value_dim)
    assert_follows_the_law(inputs, 2e-6)


@pytest.mark.row("S5")
@pytest.mark.parametrize("window", [-1, 5])
@pytest.mark.parametrize("forgets", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("state_heads", [None, 2, 4])
def test_a_gate_of_zero_forgets(state_heads: int | None, forgets: float, window: int) -> None:
    """Forward and backward; its own gradient is 0."""
    sizes: dict[str, Any] = {"heads": 4, "kv_heads": 2, "state_heads": state_heads}
    inputs = draw_gated(200, forgets=forgets, features=1, **sizes)
    assert_follows_the_law(inputs, window=window)
    output, state = reference_gated_linear_attention(**inputs, window=window)
    grads = tuple(
        np.random.default_rng(1).standard_normal(a.shape).astype(np.float32) for a in (output, state)
    )
    got = gated_linear_attention_backward(grads[0], **inputs, window=window, grad_state=grads[1])
    assert (got["log_gate"][np.isneginf(inputs["log_gate"])] == 0).all()
    for name in {*inputs} - {"log_gate"}:
        law = reference_gated_linear_attention
        assert_is_derivative(got[name], law, inputs, grads, name, window=window)


@pytest.mark.row("S5")
@pytest.mark.parametrize("t", [1, 47, 48, 100, 384, 399])
def test_a_gate_of_zero_is_where_a_segment_begins(t: int) -> None:
    """Even after infinity and NaN; in gradients, too, up to rounding."""
    inputs = draw_gated(400, seed=t)
    inputs["log_gate"][:, :, t] = -np.inf
    ids = (np.arange(400) >= t)[None].astype(int)
    grad = draw(400, seed=7)["query"]
    whole = gated_linear_attention_backward(grad, **inputs)
    for name, gradient in gated_linear_attention_backward(grad, **inputs, segment_ids=ids).items():
        assert relative_error(whole[name], gradient.astype(np.float64)) <= 1e-6, name
    inputs["key"][:, :, t - 1] = np.inf
    inputs["value"][:, :, 0] = np.nan
    output, state = both(inputs)
    expected, expected_state = both(inputs, segment_ids=ids)
    assert np.isnan(output[:, :, t - 1]).any()
    assert relative_error(output[:, :, t:], expected[:, :, t:].astype(np.float64)) <= 1e-6
    assert relative_error(state, expected_state.astype(np.float64)) <= 1e-6


@pytest.mark.row("S5")
@pytest.mark.parametrize("decay", [0.1, 50.0, 700.0])
@pytest.mark.parametrize("name", ["key", "value", "initial_state"])
def test_infinity_outlasts_any_decay(name: str, decay: float, use_threads: Any) -> None:
    """As in the recurrence: no weight underflows to a 0 that makes NaN of it."""
    inputs = draw_gated(500, decay=decay, state_heads=2, features=1)
    inputs[name][0, 0, 5, 1] = np.inf
    law = reference_gated_linear_attention(**inputs)
    for threads in (1, 3):
        use_threads(threads)
        for got, exact in zip(both(inputs), law, strict=True):
            np.testing.assert_array_equal(np.isnan(got), np.isnan(exact))
            np.testing.assert_array_equal(np.isinf(got), np.isinf(exact))


@pytest.mark.row("S4")
@pytest.mark.parametrize("gate", [np.nan, np.inf, 3.0, -np.inf, -5.0])
@pytest.mark.parametrize("window", [-1, 9])
def test_the_gate_of_a_hidden_key_changes_no_bit(window: int, gate: float) -> None:
    """Nor does it have a gradient."""
    inputs = draw_gated(300, heads=4, kv_heads=2, state_heads=2, features=1)
    options: dict[str, Any] = {"key_mask": masks_of(300)["padding"]["key_mask"], "window": window}
    grad = draw(300, heads=4, seed=3)["query"]
    hidden = ~options["key_mask"][0]
    before = both(inputs, **options), gated_linear_attention_backward(grad, **inputs, **options)
    inputs["log_gate"][:, :, hidden] = gate
    for got, expected in zip(both(inputs, **options), before[0], strict=True):
        np.testing.assert_array_equal(got, expected)
    for name, got in gated_linear_attention_backward(grad, **inputs, **options).items():
        np.testing.assert_array_equal(got, before[1][name])
        if name in ("key", "value", "log_gate"):
            assert not got[:, :, hidden].any()


@pytest.mark.row("N14")
@pytest.mark.parametrize("window", [-1, 0, 40])
@pytest.mark.parametrize("j", [0, 1, 47, 48, 383, 384, 498, 499])
def test_causality(j: int, window: int) -> None:
    """Another gate at j changes no bit of the rows before j + window + 1."""
    inputs = draw_gated(500, state_heads=2, features=1)
    before = ra.gated_linear_attention(**inputs, window=window)
    inputs["log_gate"][:, :, j] -= 1
    changed = (ra.gated_linear_attention(**inputs, window=window) != before).any(axis=-1)
    first = j + window + 1
    assert not changed[:, :, :first].any()
    assert changed[:, :, first : first + 3].all()


@pytest.mark.row("N4")
@pytest.mark.parametrize("piece", [1, 7, 48, 128, 201])
@pytest.mark.parametrize("window", [-1, 5, 150])
def test_split_and_resume(window: int, piece: int) -> None:
    inputs = draw_gated(200, heads=4, kv_heads=2, state_heads=4, features=1, decay=0.05)
    whole, whole_state = both(inputs, window=window)
    state, rows = inputs.pop("initial_state"), []
    for first in range(0, 200, piece):
        repeated = min(first, window + 1)
        part = {name: a[:, :, first - repeated : first + piece] for name, a in inputs.items()}
        output, state = both(part, window=window, initial_state=state)
        rows.append(output[:, :, repeated:])
    assert relative_error(np.concatenate(rows, axis=2), whole.astype(np.float64)) <= 1e-5
    assert relative_error(state, whole_state.astype(np.float64)) <= 1e-5


@pytest.mark.row("H8")
@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
@pytest.mark.parametrize("state_heads", [None, 6])
def test_grouped_heads(kv_heads: int, state_heads: int | None) -> None:
    """As if keys, values and gates were repeated."""
    inputs = draw_gated(130, heads=6, kv_heads=kv_heads, state_heads=state_heads, features=1)
    output, state = both(inputs, window=11)
    assert state.shape == (1, state_heads or kv_heads, 8, 8)
    others = {n: np.repeat(inputs[n], 6 // kv_heads, axis=1) for n in ("key", "value", "log_gate")}
    expected, expected_state = both(inputs | others, window=11)
    assert relative_error(output, expected.astype(np.float64)) <= 1e-6
    assert relative_error(state, expected_state[:, :: 6 // state.shape[1]].astype(np.float64)) <= 1e-6
    assert_follows_the_law(inputs, window=11)


@pytest.mark.row("N2")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("gates", ["float32", "bfloat16", "float16"])
def test_half_precision(dtype: str, gates: str) -> None:
    """Only the output is rounded; gates may have any of the dtypes."""
    inputs = draw_gated(200, heads=4, kv_heads=2, dtype=dtype)
    inputs["log_gate"] = inputs["log_gate"].astype(DTYPES[gates])
    output, state = both(inputs)
    assert output.dtype == DTYPES[dtype]
    widened = {name: array.astype(np.float32) for name, array in inputs.items()}
    expected, expected_state = both(widened)
    np.testing.assert_array_equal(output, expected.astype(DTYPES[dtype]))
    np.testing.assert_array_equal(state, expected_state)


@pytest.mark.row("N15")
@pytest.mark.parametrize("decay", [1e-8, 1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("length", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_the_state_does_not_drift(length: int, decay: float) -> None:
    """Even where single precision has no number for the decay of a token, or hardly one for that of many."""
    inputs = draw(length, heads=1, dim=4)
    inputs["value"] += 1
    inputs["log_gate"] = np.full((1, 1, length), -decay, np.float32)
    _, state = both(inputs, feature_map="softmax")
    exact = wide(inputs)
    left = np.exp(exact["log_gate"][0, 0, 0] * np.arange(length)[::-1, None])
    features = reference_features(exact["key"][0, 0], "softmax")
    expected = features.T @ (left * exact["value"][0, 0])
    assert (np.abs(state[0, 0] - expected) <= 1e-5 * np.abs(expected)).all()


@pytest.mark.row("N13")
@pytest.mark.parametrize("heads", [1, 8])
@pytest.mark.parametrize("decay", [0.01, 50.0])
def test_the_same_bits_for_any_number_of_threads(decay: float, heads: int, use_threads: Any) -> None:
    sizes: dict[str, Any] = {"heads": heads, "kv_heads": 1, "state_heads": heads}
    inputs = draw_gated(1500, decay=decay, forgets=0.001, features=1, **sizes)
    grad = draw(1500, heads=heads, seed=5)["query"]

    def call() -> list[NDArray[Any]]:
        gradients = gated_linear_attention_backward(grad, **inputs, window=100)
        return [*both(inputs, window=100), *gradients.values()]

    same_bits_for_any_threads(use_threads, call)


@pytest.mark.row("B2")
@every_isa
def test_instruction_sets(isa: str) -> None:
    printed = run_python(
        """
        import tests.test_gated_linear as t
        for dim in (5, 16, 64):
            for decay in t.DECAYS:
                sizes = {"heads": 4, "kv_heads": 2, "dim": dim, "value_dim": 20, "state_heads": 4}
                inputs = t.draw_gated(150, decay=decay, features=1, **sizes)
                t.assert_follows_the_law(inputs, window=9)
                t.assert_gradients(inputs, window=9)
        print("done")
        """,
        RATTENTION_MAX_ISA=isa,
    )
    assert printed.split() == ["done"]


@pytest.mark.row("N3")
@feature_maps
@masks
@pytest.mark.parametrize("window", [-1, 0, 31, 99])
@pytest.mark.parametrize("decay", [0.1, 3.0, 50.0])
def test_gradients_are_the_derivatives(
    decay: float, window: int, masks: str, feature_map: str | None
) -> None:
    sizes: dict[str, Any] = {"heads": 4, "kv_heads": 2, "dim": 5, "value_dim": 6, "state_heads": 2}
    inputs = draw_gated(100, decay=decay, features=features_of(feature_map), **sizes)
    assert_gradients(inputs, window=window, feature_map=feature_map, scale=0.8, **masks_of(100)[masks])


@pytest.mark.row("N3")
@pytest.mark.parametrize("state_heads", [None, 2, 4])
@pytest.mark.parametrize("length", [1, 49, 700])
def test_gradients_of_many_chunks(length: int, state_heads: int | None) -> None:
    sizes: dict[str, Any] = {"heads": 4, "kv_heads": 2, "dim": 5, "value_dim": 6, "state_heads": state_heads}
    assert_gradients(draw_gated(length, decay=0.02, features=1, **sizes), window=10)


def autograd(inputs: Arrays, grad: NDArray[Any], grad_state: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """In float64, token by token."""
    import torch

    exact = {name: torch.tensor(a, requires_grad=True) for name, a in wide(inputs).items()}
    q, k, v, gates, state = (exact[n] for n in ("query", "key", "value", "log_gate", "initial_state"))
    rows = []
    for t in range(q.shape[2]):
        state = gates[:, :, t, None, None].exp() * state + k[:, :, t, :, None] * v[:, :, t, None]
        rows.append((q[:, :, t, None] @ state)[:, :, 0])
    output = torch.stack(rows, dim=2) * q.shape[3] ** -0.5
    loss = (output * torch.tensor(grad)).sum() + (state * torch.tensor(grad_state)).sum()
    gradients = torch.autograd.grad(loss, [*exact.values()])
    return {name: a.numpy() for name, a in zip(exact, gradients, strict=True)}


@pytest.mark.row("N3")
@pytest.mark.parametrize("decay", [1e-3, 0.1, 1.0, 10.0, 50.0])
@pytest.mark.parametrize("length", [50, 500])
def test_gradients_are_those_of_autograd(length: int, decay: float) -> None:
    """Every one of them: where a gate forgets much its gradient is small, and still has its digits."""
    needs("torch")
    inputs = draw_gated(length, decay=decay, state_heads=2, features=1, dim=16)
    grad = draw(length, dim=16, seed=4)["query"]
    grad_state = draw(16, dim=16, seed=5)["query"]
    exact = autograd(inputs, grad, grad_state)
    got = gated_linear_attention_backward(grad, **inputs, grad_state=grad_state)
    for name, gradient in got.items():
        assert relative_error(gradient, exact[name]) <= 2e-6, name
    sizes = np.abs(exact["log_gate"])
    beside = np.exp(wide(inputs)["log_gate"]) * sizes.max()  # what it is made of
    assert (np.abs(got["log_gate"] - exact["log_gate"]) <= 1e-5 * np.maximum(sizes, beside)).all()


@pytest.mark.row("H1")
@pytest.mark.parametrize("tokens", [0, 1, 60])
def test_values_without_elements(tokens: int) -> None:
    inputs = draw_gated(tokens, heads=4, kv_heads=2, dim=6)
    inputs["value"] = inputs["value"][..., :0]
    output, state = both(inputs)
    assert output.shape == (1, 4, tokens, 0)
    assert state.shape == (1, 2, 6, 0)
    gradients = gated_linear_attention_backward(output, **inputs)
    assert all(gradients[name].shape == inputs[name].shape for name in inputs)
    assert not any(gradient.any() for gradient in gradients.values())


REFUSED: list[tuple[str, Any, str, type[Exception]]] = [
    ("log_gate", np.full((1, 2, 62), 0.5, np.float32), "log_gate must be <= 0.*124 of 124", ValueError),
    ("log_gate", np.full((1, 2, 62), np.nan, np.float32), "log_gate must be <= 0", ValueError),
    ("log_gate", np.zeros((1, 4, 62), np.float32), r"log_gate must have shape \(1, 2, 62\)", ValueError),
    ("log_gate", np.zeros((1, 2, 61), np.float32), r"log_gate must have shape \(1, 2, 62\)", ValueError),
    ("log_gate", np.zeros((2, 62), np.float32), "log_gate must have 3 or 4 dimensions", ValueError),
    ("log_gate", np.zeros((1, 2, 62)), "log_gate has dtype float64", TypeError),
    ("log_gate", None, "log_gate must be an array", TypeError),
    ("scale", np.nan, "scale must be finite", ValueError),
    ("scale", "1", "scale must be a number", TypeError),
    ("window", -2, "window must be >= -1, got -2", ValueError),
    ("feature_map", "elu", "feature_map must be one of softmax, relu, got 'elu'", ValueError),
    ("initial_state", np.zeros((1, 2, 16, 8), np.float32), r"have shape \(1, 2, 8, 8\)", ValueError),
    ("key_mask", np.ones((1, 61), bool), "key_mask must have shape", ValueError),
]


@pytest.mark.row("S6")
@pytest.mark.parametrize(("name", "bad", "message", "error"), REFUSED)
def test_what_is_refused(name: str, bad: Any, message: str, error: type[Exception]) -> None:
    arguments = draw_gated(62, heads=4, kv_heads=2) | {name: bad}
    with pytest.raises(error, match=message):
        ra.gated_linear_attention(**arguments)
    with pytest.raises(error, match=message):
        gated_linear_attention_backward(np.zeros((1, 4, 62, 8), np.float32), **arguments)
