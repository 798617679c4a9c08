"""RAttention, forward and backward, against its law and its own branches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import rattention as ra
from numpy.typing import NDArray
from rattention import _core
from rattention.mechanisms.rattention import (
    rattention_backward,
    reference_rattention,
    reference_rms_norm,
)
from rattention.mechanisms.rotary import reference_rotary

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
from tests.mechanisms import DTYPES, last_rounding
from tests.processes import run_python

ropes = pytest.mark.parametrize("rope_theta", [None, 10_000.0])
masks = pytest.mark.parametrize("masks", ["none", "padding", "segments", "both"])


def with_weights(inputs: Arrays) -> Arrays:
    rng = np.random.default_rng(8)
    shape = (inputs["query"].shape[1], inputs["value"].shape[3])
    return inputs | {
        name: 1 + 0.3 * rng.standard_normal(shape, np.float32)
        for name in ("local_norm_weight", "linear_norm_weight")
    }


def assert_follows_the_law(inputs: Arrays, tolerance: float = 1e-5, **options: Any) -> None:
    output, state = ra.rattention(**inputs, **options, return_state=True)
    exact, exact_state = reference_rattention(**inputs, **options)
    assert relative_error(output, exact) <= tolerance
    assert relative_error(state, exact_state) <= 1e-5


@pytest.mark.row("N8")
@ropes
@masks
@pytest.mark.parametrize("window", WINDOWS)
def test_windows_and_masks(window: int, masks: str, rope_theta: float | None) -> None:
    inputs = with_weights(draw(batch=2, heads=4, kv_heads=2, state_heads=2))
    assert_follows_the_law(inputs, window=window, rope_theta=rope_theta, **masks_of(62, 2)[masks])


@pytest.mark.row("N1")
@pytest.mark.parametrize("feature_map", ["softmax", "relu"])
@pytest.mark.parametrize("window", [0, 31, 200])
@pytest.mark.parametrize("length", [1, 49, 385, 1100])
def test_many_stretches(length: int, window: int, feature_map: str) -> None:
    inputs = draw(length, heads=2, kv_heads=1, dim=16, value_dim=20)
    assert_follows_the_law(inputs, window=window, rope_theta=500.0, feature_map=feature_map)


@pytest.mark.row("H3")
@pytest.mark.parametrize("dim", [2, 8, 18, 32, 40, 64, 80, 100, 128, 130, 256])
def test_dimensions(dim: int) -> None:
    inputs = draw(120, heads=1, dim=dim, value_dim=max(1, 130 - dim))
    assert_follows_the_law(inputs, window=20, rope_theta=1e4, scale=0.3)


@ropes
def test_the_sum_of_its_normalised_branches(rope_theta: float | None) -> None:
    inputs = draw(700, heads=4, kv_heads=2, dim=32)
    got = ra.rattention(**inputs, window=64, rope_theta=rope_theta)
    q, k = (reference_rotary(wide(inputs)[name], rope_theta) for name in ("query", "key"))
    near = ra.attention(q.astype(np.float32), k.astype(np.float32), inputs["value"], causal=True, window=64)
    far = ra.residual_linear_attention(**inputs, window=64)
    expected = sum(reference_rms_norm(x.astype(np.float64), None, 1e-8) for x in (near, far))
    assert relative_error(got, expected) <= 2e-6


@pytest.mark.row("N7")
@pytest.mark.parametrize("window", [61, 62, 2**63 - 1])
def test_a_window_that_sees_everything(window: int) -> None:
    """Nothing is left for the state: normalised causal attention."""
    inputs = draw()
    got, state = ra.rattention(**inputs, window=window, return_state=True)
    causal = ra.attention(**inputs, causal=True).astype(np.float64)
    assert relative_error(got, reference_rms_norm(causal, None, 1e-8)) <= 1e-6
    assert not state.any()


def test_its_state_is_that_of_residual_linear_attention() -> None:
    inputs = draw(900, heads=4, kv_heads=2, state_heads=4)
    _, state = ra.rattention(**inputs, window=70, return_state=True)
    _, expected = ra.residual_linear_attention(**inputs, window=70, return_state=True)
    np.testing.assert_array_equal(state, expected)


@pytest.mark.row("N1")
@pytest.mark.parametrize("theta", [10.0, 10_000.0])
def test_rotary_embedding_far_from_the_start(theta: float) -> None:
    """Only distances count, however far both tokens are: the angles of any position are exact to float32."""
    inputs = draw(20_100, heads=1, dim=16)
    for array in inputs.values():
        array[:, :, -100:] = array[:, :, :100]
    local_alone = np.zeros((1, 16), np.float32)
    got = ra.rattention(**inputs, window=30, rope_theta=theta, linear_norm_weight=local_alone)
    assert relative_error(got[:, :, -70:], got[:, :, 30:100].astype(np.float64)) <= 3e-6


@pytest.mark.row("N11")
@pytest.mark.parametrize("eps", [1e-8, 1.0])
def test_rows_of_zeros_stay_zero(eps: float) -> None:
    """Values that are 0, and the first rows, which the state has nothing for."""
    inputs = draw(40)
    inputs["value"][:, :, :20] = 0
    output = ra.rattention(**inputs, window=3, eps=eps)
    assert not output[:, :, :20].any()
    assert np.isfinite(output).all()
    gradients = rattention_backward(np.ones_like(output), **inputs, window=3, eps=eps)
    assert all(np.isfinite(array).all() for array in gradients.values())


@pytest.mark.row("N2")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype: str) -> None:
    inputs = draw(200, heads=4, kv_heads=2, dim=32, dtype=dtype)
    got = ra.rattention(**inputs, window=15, rope_theta=1e4)
    assert got.dtype == DTYPES[dtype]
    exact, _ = reference_rattention(**inputs, window=15, rope_theta=1e4)
    assert relative_error(got, exact) <= 1.01 * last_rounding(inputs["value"])


@pytest.mark.row("N13")
@pytest.mark.parametrize("heads", [1, 8])
def test_the_same_bits_for_any_number_of_threads(heads: int, use_threads: Any) -> None:
    inputs = with_weights(draw(1500, heads=heads, kv_heads=1, state_heads=heads))
    grad = draw(1500, heads=heads, seed=5)["query"]

    def call() -> list[NDArray[Any]]:
        gradients = rattention_backward(grad, **inputs, window=100, rope_theta=1e4)
        forward = ra.rattention(**inputs, window=100, rope_theta=1e4, return_state=True)
        return [*forward, *gradients.values()]

    same_bits_for_any_threads(use_threads, call)


@pytest.mark.row("N18")
@pytest.mark.parametrize("position", [0, 63, 10**4, 10**6, 10**8])
def test_rotary_tables_that_are_kept(position: int) -> None:
    """More bases and widths than are kept, from several threads: as exact as the definition, always."""
    rng = np.random.default_rng(0)
    wanted = []
    for theta in np.geomspace(10, 1e6, 12).tolist():
        for dim in (2, 32):
            rows = rng.standard_normal((1, 1, 70, dim), np.float32)
            angles = (position + np.arange(70))[:, None] * theta ** (-np.arange(dim // 2) / (dim // 2))
            turned = rows.reshape(70, 2, dim // 2).astype(np.float64)
            cos, sin = np.cos(angles), np.sin(angles)
            halves = [turned[:, 0] * cos - turned[:, 1] * sin, turned[:, 1] * cos + turned[:, 0] * sin]
            wanted.append((rows, theta, np.concatenate(halves, axis=1)))

    def errors() -> list[float]:
        turned = [_core.rotary(x, theta, position, x.shape[3])[0, 0] for x, theta, _ in wanted]
        return [float(np.abs(got - law).max()) for got, (_, _, law) in zip(turned, wanted, strict=True)]

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: errors(), range(12)):
            assert max(found) <= 2e-6


@pytest.mark.row("N14")
@pytest.mark.parametrize("window", [-1, 0, 40])
@pytest.mark.parametrize("j", [0, 1, 47, 48, 200, 383, 384, 498, 499])
def test_causality(j: int, window: int) -> None:
    """Another token at j changes no bit of the rows before it, and all rows from it on."""
    inputs = draw(500)
    before = ra.rattention(**inputs, window=window, rope_theta=100.0)
    inputs["key"][:, :, j] += np.linspace(0, 1, 8, dtype=np.float32)
    inputs["value"][:, :, j] -= np.linspace(1, 2, 8, dtype=np.float32)
    changed = (ra.rattention(**inputs, window=window, rope_theta=100.0) != before).any(axis=-1)
    assert not changed[:, :, :j].any()
    assert changed[:, :, j:].all()


@pytest.mark.row("B2")
@every_isa
def test_instruction_sets(isa: str) -> None:
    printed = run_python(
        """
        import tests.test_rattention as t
        for dim in (6, 16, 64):
            inputs = t.with_weights(t.draw(150, heads=4, kv_heads=2, dim=dim, value_dim=20))
            t.assert_follows_the_law(inputs, window=9, rope_theta=100.0)
            t.assert_gradients(inputs, window=9, rope_theta=100.0)
        print("done")
        """,
        RATTENTION_MAX_ISA=isa,
    )
    assert printed.split() == ["done"]


def assert_gradients(inputs: Arrays, **options: Any) -> None:
    weights = frozenset({"local_norm_weight", "linear_norm_weight"})
    assert_all_gradients(rattention_backward, reference_rattention, inputs, weights, **options)


@pytest.mark.row("N3")
@ropes
@masks
@pytest.mark.parametrize("window", [-1, 0, 31, 99])
def test_gradients_are_the_derivatives(window: int, masks: str, rope_theta: float | None) -> None:
    inputs = with_weights(draw(100, heads=4, kv_heads=2, dim=6, value_dim=5, state_heads=2))
    assert_gradients(inputs, window=window, rope_theta=rope_theta, eps=1e-3, **masks_of(100)[masks])


@pytest.mark.row("N3")
@pytest.mark.parametrize("state_heads", [None, 2, 4])
def test_gradients_of_many_stretches(state_heads: int | None) -> None:
    inputs = with_weights(draw(900, heads=4, kv_heads=2, dim=6, value_dim=5, state_heads=state_heads))
    assert_gradients(inputs, window=40, rope_theta=100.0, feature_map="relu", eps=1e-3)


@pytest.mark.row("N3")
def test_gradients_are_those_of_pytorch() -> None:
    """At most twice the error of the same formula in float32 under autograd."""
    needs("torch")
    import torch

    inputs = draw(200, heads=2, dim=32)
    grad = draw(200, heads=2, dim=32, seed=4)["query"]

    def norm(x: Any) -> Any:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    def autograd(dtype: Any) -> dict[str, NDArray[Any]]:
        q, k, v = (torch.tensor(array, dtype=dtype, requires_grad=True) for array in inputs.values())
        scores = q @ k.mT / 32**0.5
        distance = torch.arange(200)[:, None] - torch.arange(200)
        near = scores.masked_fill((distance < 0) | (distance > 7), -torch.inf).softmax(-1) @ v
        halves = [torch.cat([x.softmax(-1), (-x).softmax(-1)], -1) for x in (q, k)]
        far = (halves[0] @ halves[1].mT).tril(-8) @ v
        (norm(near) + norm(far)).backward(torch.tensor(grad, dtype=dtype))
        return {name: x.grad.numpy() for name, x in zip(inputs, (q, k, v), strict=True)}

    got = rattention_backward(grad, **inputs, window=7, eps=1e-6)
    exact, naive = autograd(torch.float64), autograd(torch.float32)
    for name, expected in exact.items():
        allowed = max(2 * relative_error(naive[name], expected), 5e-7)
        assert relative_error(got[name], expected) <= allowed, name
