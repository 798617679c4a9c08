"""Residual linear attention, forward and backward, against its law, Apple's values, and itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rattention as ra
from numpy.typing import NDArray
from rattention.mechanisms.residual_linear import (
    reference_features,
    reference_residual_linear_attention,
    residual_linear_attention_backward,
)

from tests.extras import needs
from tests.instruction_sets import every_isa
from tests.linear_family import (
    WINDOWS,
    Arrays,
    assert_all_gradients,
    draw,
    masks_of,
    relative_error,
    same_bits_for_any_threads,
    wide,
)
from tests.mechanisms import DTYPES
from tests.processes import run_python

feature_maps = pytest.mark.parametrize("feature_map", ["softmax", "relu"])
windows = pytest.mark.parametrize("window", WINDOWS)
masks = pytest.mark.parametrize("masks", ["none", "padding", "segments", "both"])

APPLE_CASES = ("dv_differs", "gqa_w31", "h0_relu_w8", "mha_w16", "w0", "w_longer_than_n")


def both(inputs: Arrays, **options: Any) -> tuple[NDArray[Any], NDArray[np.float32]]:
    return ra.residual_linear_attention(**inputs, **options, return_state=True)


def assert_follows_the_law(inputs: Arrays, tolerance: float = 1e-5, **options: Any) -> None:
    output, state = both(inputs, **options)
    exact, exact_state = reference_residual_linear_attention(**inputs, **options)
    assert relative_error(output, exact) <= tolerance
    assert relative_error(state, exact_state) <= 1e-5


@pytest.fixture(scope="module")
def apple(shared_data: Path) -> Arrays:
    return dict(np.load(shared_data / "reference" / "residual_linear_attention.npz"))


@pytest.mark.row("N4")
@pytest.mark.parametrize("case", APPLE_CASES)
def test_values_of_axlearn(apple: Arrays, case: str) -> None:
    arrays = {name: apple[f"{case}/{name}"] for name in ("query", "key", "value", "initial_state")}
    options: dict[str, Any] = {
        "window": int(apple[f"{case}/window"]),
        "feature_map": str(apple[f"{case}/feature_map"]),
    }
    output, state = both(arrays, **options)
    assert relative_error(output, apple[f"{case}/output"].astype(np.float64)) <= 2e-5
    assert relative_error(state, apple[f"{case}/final_state"].astype(np.float64)) <= 2e-5
    got = residual_linear_attention_backward(apple[f"{case}/grad_output"], **arrays, **options)
    for name in arrays:
        assert relative_error(got[name], apple[f"{case}/grad_{name}"].astype(np.float64)) <= 2e-5, name


def recurrent(inputs: Arrays, window: int, feature_map: str) -> NDArray[np.float32]:
    """S_t = S_{t-1} + phi(k_t)^T v_t, step by step in float32."""
    phi_q, phi_k = (reference_features(inputs[n], feature_map) for n in ("query", "key"))
    value = inputs["value"]
    state = np.zeros((*value.shape[:2], phi_k.shape[3], value.shape[3]), np.float32)
    output = np.zeros((*phi_q.shape[:3], value.shape[3]), np.float32)
    for t in range(value.shape[2]):
        u = t - window - 1
        if u >= 0:
            state += phi_k[:, :, u, :, None] * value[:, :, u, None, :]
        output[:, :, t] = np.einsum("bhf,bhfd->bhd", phi_q[:, :, t], state)
    return output


def quadratic(inputs: Arrays, window: int, feature_map: str) -> NDArray[np.float32]:
    """(phi(q) phi(k)^T, hidden inside the window) v in float32."""
    phi_q, phi_k = (reference_features(inputs[n], feature_map) for n in ("query", "key"))
    rows = np.arange(phi_q.shape[2])
    return (phi_q @ phi_k.swapaxes(2, 3) * (rows < rows[:, None] - window)) @ inputs["value"]


@pytest.mark.row("N4")
@feature_maps
@pytest.mark.parametrize("length", [1, 47, 48, 49, 96, 97, 383, 384, 385, 433])
def test_chunked_is_recurrent_is_quadratic(length: int, feature_map: str) -> None:
    inputs = draw(length, dim=24)
    window = length // 7
    got = ra.residual_linear_attention(**inputs, window=window, feature_map=feature_map)
    exact, _ = reference_residual_linear_attention(**inputs, window=window, feature_map=feature_map)
    assert relative_error(got, exact) <= 1e-5
    assert relative_error(recurrent(inputs, window, feature_map), exact) <= 1e-5


@pytest.mark.row("N8")
@feature_maps
@masks
@windows
def test_windows_and_masks(window: int, masks: str, feature_map: str) -> None:
    inputs = draw(batch=2, heads=4, kv_heads=2, state_heads=2)
    options = masks_of(62, 2)[masks] | {"window": window, "feature_map": feature_map}
    assert_follows_the_law(inputs, **options)


@pytest.mark.row("N7")
@pytest.mark.parametrize("excess", [-1, 0, 62, 2**63 - 1, 2**200])
def test_a_window_that_leaves_nothing(excess: int) -> None:
    inputs = draw()
    output, state = both(inputs, window=62 + excess)
    assert not output.any()
    assert not state.any()
    inputs = draw(state_heads=2)
    output, state = both(inputs, window=62 + excess)
    np.testing.assert_array_equal(state, inputs["initial_state"])
    exact = wide(inputs)
    expected = reference_features(exact["query"], "softmax") @ exact["initial_state"]
    assert relative_error(output, expected) <= 1e-6


@pytest.mark.row("N4")
@pytest.mark.parametrize("piece", [1, 7, 64, 128, 200, 201])
@pytest.mark.parametrize("window", [-1, 0, 5, 31, 150, 250])
def test_split_and_resume(window: int, piece: int) -> None:
    """Each call repeats the last window + 1 tokens, whose keys are not in the state yet."""
    inputs = draw(200, heads=4, kv_heads=2, state_heads=4)
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
@pytest.mark.parametrize("own_states", [False, True])
def test_grouped_heads(kv_heads: int, own_states: bool) -> None:
    """As if keys and values were repeated; the state is one per key/value head unless the caller's is not."""
    inputs = draw(130, heads=6, kv_heads=kv_heads, state_heads=6 if own_states else None)
    output, state = both(inputs, window=11)
    assert state.shape[1] == (6 if own_states else kv_heads)
    repeated = inputs | {n: np.repeat(inputs[n], 6 // kv_heads, axis=1) for n in ("key", "value")}
    expected, expected_state = both(repeated, window=11)
    assert relative_error(output, expected.astype(np.float64)) <= 1e-6
    assert relative_error(state, expected_state[:, :: 6 // state.shape[1]].astype(np.float64)) <= 1e-6
    assert_follows_the_law(inputs, window=11)


@pytest.mark.parametrize("window", [-1, 0, 9])
def test_segments_are_sequences_of_their_own(window: int) -> None:
    inputs = draw(300, state_heads=2)
    ids = np.repeat([5, 9, 5], [130, 1, 169])[None]
    output, state = both(inputs, window=window, segment_ids=ids)
    start = inputs.pop("initial_state")
    for first, last in ((0, 130), (130, 131), (131, 300)):
        part = {name: array[:, :, first:last] for name, array in inputs.items()}
        initial = {"initial_state": start} if first == 0 else {}
        expected, expected_state = both(part, window=window, **initial)
        np.testing.assert_array_equal(output[:, :, first:last], expected)
    np.testing.assert_array_equal(state, expected_state)


@pytest.mark.parametrize("window", [0, 9])
def test_hidden_keys_are_as_good_as_zeros(window: int) -> None:
    inputs = draw(200)
    shown = masks_of(200)["padding"]["key_mask"]
    output, state = both(inputs, window=window, key_mask=shown)
    inputs["value"] = np.where(shown[:, None, :, None], inputs["value"], np.float32(0))
    expected, expected_state = both(inputs, window=window)
    assert relative_error(output, expected.astype(np.float64)) <= 1e-6
    assert relative_error(state, expected_state.astype(np.float64)) <= 1e-6


def phi(x: NDArray[np.float32], feature_map: str) -> NDArray[np.float32]:
    """The kernel's feature map: rows times an initial state of ones on the diagonal."""
    size = 2 * x.shape[3]
    state = np.broadcast_to(np.eye(size, dtype=np.float32), (1, x.shape[1], size, size))
    value = np.zeros((*x.shape[:3], size), np.float32)
    return ra.residual_linear_attention(
        x, x, value, window=x.shape[2], feature_map=feature_map, initial_state=state
    )


@pytest.mark.row("N10")
@pytest.mark.parametrize("magnitude", [0.0, 1.0, 1e4, 1e20, 3e38])
@pytest.mark.parametrize("dim", [1, 7, 16, 33])
def test_feature_map(magnitude: float, dim: int) -> None:
    x = draw(50, dim=dim)["query"]
    x = np.clip(x, -1, 1) * np.float32(magnitude)
    x[:, :, 10] = magnitude
    halves = phi(x, "softmax").reshape(*x.shape[:3], 2, dim)
    assert (halves >= 0).all()
    np.testing.assert_allclose(halves.sum(axis=-1), 1, atol=1e-6)
    exact = reference_features(x.astype(np.float64), "softmax")
    np.testing.assert_allclose(halves.reshape(exact.shape), exact, atol=1e-6 * max(1, magnitude * 1e-4))
    np.testing.assert_array_equal(phi(x, "relu"), reference_features(x, "relu"))


@pytest.mark.row("N1")
@pytest.mark.parametrize("length", [97, 257, 700])
@pytest.mark.parametrize("dim", [1, 3, 7, 8, 16, 17, 31, 33, 40, 64, 80, 100, 127, 129, 256])
def test_float32(dim: int, length: int) -> None:
    """At most twice the error of plain float32 code, recurrent or quadratic: either may be lucky.

    Below that, the rounding of one chain of additions over the features.
    """
    inputs = draw(length, heads=1, dim=dim, value_dim=max(1, 130 - dim))
    got = ra.residual_linear_attention(**inputs, window=20)
    exact, _ = reference_residual_linear_attention(**inputs, window=20)
    naive = max(
        relative_error(form(evaluated, 20, "softmax"), exact)
        for evaluated in (inputs, {n: a[..., ::-1] if n != "value" else a for n, a in inputs.items()})
        for form in (recurrent, quadratic)
    )
    assert relative_error(got, exact) <= max(2 * naive, 5e-7 * max(1, dim / 64) ** 0.5)


@pytest.mark.row("N2")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@feature_maps
def test_half_precision(dtype: str, feature_map: str) -> None:
    """Only the output is rounded: sums and states are float32."""
    inputs = draw(200, heads=4, kv_heads=2, dtype=dtype)
    output, state = both(inputs, window=15, feature_map=feature_map)
    assert output.dtype == DTYPES[dtype]
    assert state.dtype == np.float32
    widened = {name: array.astype(np.float32) for name, array in inputs.items()}
    expected, expected_state = both(widened, window=15, feature_map=feature_map)
    np.testing.assert_array_equal(output, expected.astype(DTYPES[dtype]))
    np.testing.assert_array_equal(state, expected_state)


@pytest.mark.row("N15")
@pytest.mark.parametrize("length", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_the_state_does_not_drift(length: int) -> None:
    inputs = draw(length, heads=1, dim=4)
    inputs["value"] += 1
    _, state = both(inputs, window=0)
    features = reference_features(wide(inputs)["key"][0, 0, :-1], "softmax")
    exact = features.T @ wide(inputs)["value"][0, 0, :-1]
    assert (np.abs(state[0, 0] - exact) <= 1e-5 * np.abs(exact)).all()


@pytest.mark.row("N13")
@pytest.mark.parametrize("heads", [1, 8])
def test_the_same_bits_for_any_number_of_threads(heads: int, use_threads: Any) -> None:
    inputs = draw(1500, heads=heads, kv_heads=1, state_heads=heads)
    inputs["initial_state"][:] = -0.0
    grad = draw(1500, heads=heads, seed=5)["query"]

    def call() -> list[NDArray[Any]]:
        gradients = residual_linear_attention_backward(grad, **inputs, window=100)
        return [*both(inputs, window=100), *gradients.values()]

    same_bits_for_any_threads(use_threads, call)


@pytest.mark.row("N14")
@pytest.mark.parametrize("window", [-1, 0, 40])
@pytest.mark.parametrize("j", [0, 1, 47, 48, 200, 383, 384, 498, 499])
def test_causality(j: int, window: int) -> None:
    """Another key and value at j change exactly the rows from j + window + 1 on, and no bit before."""
    inputs = draw(500)
    before = ra.residual_linear_attention(**inputs, window=window)
    inputs["key"][:, :, j] += np.linspace(0, 1, 8, dtype=np.float32)
    inputs["value"][:, :, j] -= 1
    changed = (ra.residual_linear_attention(**inputs, window=window) != before).any(axis=-1)
    first = j + window + 1
    assert not changed[:, :, :first].any()
    assert changed[:, :, first:].all()


@pytest.mark.row("B2")
@every_isa
def test_instruction_sets(isa: str) -> None:
    """Each set of kernels follows the law; a cap above what the processor has is the processor's own."""
    printed = run_python(
        """
        import tests.test_residual_linear as t
        for dim in (5, 16, 64):
            inputs = t.draw(150, heads=4, kv_heads=2, dim=dim, value_dim=20, state_heads=4)
            for feature_map in ("softmax", "relu"):
                t.assert_follows_the_law(inputs, window=9, feature_map=feature_map)
                t.assert_gradients(inputs, window=9, feature_map=feature_map)
        print("done")
        """,
        RATTENTION_MAX_ISA=isa,
    )
    assert printed.split() == ["done"]


def assert_gradients(inputs: Arrays, **options: Any) -> None:
    law = reference_residual_linear_attention
    assert_all_gradients(residual_linear_attention_backward, law, inputs, **options)


@pytest.mark.row("N3")
@feature_maps
@masks
@pytest.mark.parametrize("window", [-1, 0, 31, 99])
def test_gradients_are_the_derivatives(window: int, masks: str, feature_map: str) -> None:
    inputs = draw(100, heads=4, kv_heads=2, dim=5, value_dim=6, state_heads=2)
    assert_gradients(inputs, window=window, feature_map=feature_map, **masks_of(100)[masks])


@pytest.mark.row("N3")
@pytest.mark.parametrize("state_heads", [None, 2, 4])
@pytest.mark.parametrize("length", [1, 49, 700])
def test_gradients_of_many_chunks(length: int, state_heads: int | None) -> None:
    inputs = draw(length, heads=4, kv_heads=2, dim=5, value_dim=6, state_heads=state_heads)
    assert_gradients(inputs, window=10)


DRAWS = 8
"""Largest errors of one draw differ by a factor of two, whoever computes them."""


@pytest.mark.row("N3")
@feature_maps
def test_gradients_are_those_of_pytorch(feature_map: str) -> None:
    """Over several draws at most twice the error of the same formula in float32 under autograd."""
    needs("torch")
    import torch

    def autograd(inputs: Arrays, grad: NDArray[Any], dtype: Any) -> dict[str, NDArray[Any]]:
        q, k, v = (torch.tensor(array, dtype=dtype, requires_grad=True) for array in inputs.values())
        f = torch.relu if feature_map == "relu" else (lambda x: x.softmax(-1))
        weights = torch.cat([f(q), f(-q)], -1) @ torch.cat([f(k), f(-k)], -1).mT
        (weights.tril(-8) @ v).backward(torch.tensor(grad, dtype=dtype))
        return {name: x.grad.numpy() for name, x in zip(inputs, (q, k, v), strict=True)}

    ours: dict[str, float] = {}
    naive: dict[str, float] = {}
    for seed in range(DRAWS):
        inputs = draw(200, heads=2, dim=32, seed=seed)
        grad = draw(200, heads=2, dim=32, seed=DRAWS + seed)["query"]
        got = residual_linear_attention_backward(grad, **inputs, window=7, feature_map=feature_map)
        exact, plain = (autograd(inputs, grad, dtype) for dtype in (torch.float64, torch.float32))
        for name, expected in exact.items():
            ours[name] = max(ours.get(name, 0.0), relative_error(got[name], expected))
            naive[name] = max(naive.get(name, 0.0), relative_error(plain[name], expected))
    assert all(ours[name] <= 2 * naive[name] for name in naive), (ours, naive)
