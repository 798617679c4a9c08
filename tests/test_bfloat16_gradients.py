"""Gradients of bfloat16 inputs, where they have kernels of their own: rounding, edges, what nobody sees.

All of it holds for processors without such kernels as well.
"""

from __future__ import annotations

import numpy as np
import pytest
import rattention as ra

from tests.mechanisms import BFLOAT16

NAMES = ("query", "key", "value")
EDGES = [1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 97]
LONG_EDGES = [511, 512, 513, 545, 1030]


def draw(rows, keys=None, *, heads=2, kv_heads=2, dim=16, value_dim=None, seed=0):
    """Inputs by name and the gradient of the output."""
    rng = np.random.default_rng(seed)
    keys, value_dim = keys or rows, value_dim or dim
    shapes = [
        (heads, rows, dim),
        (kv_heads, keys, dim),
        (kv_heads, keys, value_dim),
        (heads, rows, value_dim),
    ]
    *inputs, grad = (rng.standard_normal((1, *shape)).astype(BFLOAT16) for shape in shapes)
    return dict(zip(NAMES, inputs, strict=True)), grad


def gradients(inputs, grad, **options):
    result = ra.attention(**inputs, **options, return_lse=True)
    return ra.MECHANISMS["softmax"].backward(grad, **inputs, result=result, **options)


def widened(arrays):
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


def rounded(array):
    return array.astype(BFLOAT16).astype(np.float64)


def evaluated(inputs, grad, visible, scale, rounding=rounded):
    """By the formulas in float64; outputs, weights and gradients of scores are rounded."""
    query, key, value = (np.asarray(inputs[name], np.float64) for name in NAMES)
    group = query.shape[1] // key.shape[1]
    keys, values = (np.repeat(x, group, axis=1) for x in (key, value))
    scores = np.where(visible, scale * query @ keys.swapaxes(-1, -2), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    grad = np.asarray(grad, np.float64)
    delta = (rounding(weights @ values) * grad).sum(-1, keepdims=True)
    slopes = rounding(weights * (grad @ values.swapaxes(-1, -2) - delta))
    per_head = (
        scale * slopes @ keys,
        scale * slopes.swapaxes(-1, -2) @ query,
        rounding(weights).swapaxes(-1, -2) @ grad,
    )
    batch, kv_heads, length, _ = key.shape
    summed = [x.reshape(batch, kv_heads, group, length, -1).sum(2) for x in per_head[1:]]
    return dict(zip(NAMES, (per_head[0], *summed), strict=True))


def assert_as_accurate_as_an_evaluation(inputs, grad, visible, **options):
    scale = options.get("scale", inputs["query"].shape[-1] ** -0.5)
    exact = evaluated(inputs, grad, visible, scale, rounding=lambda x: x)
    evaluation = evaluated(inputs, grad, visible, scale)
    got = gradients(inputs, grad, **options)
    for name in NAMES:
        size = np.linalg.norm(exact[name])
        error = np.linalg.norm(got[name] - exact[name])
        allowed = 2 * np.linalg.norm(evaluation[name] - exact[name]) + 1e-3 * size
        assert error <= allowed + 1e-5 * exact[name].size ** 0.5, name


def distances(rows, keys):
    return np.arange(rows)[:, None] - np.arange(keys)


@pytest.mark.row("N3")
@pytest.mark.parametrize("keys", [1, 31, 32, 33, 64, 65, *LONG_EDGES])
@pytest.mark.parametrize("rows", EDGES)
def test_edges_of_tiles(rows, keys):
    inputs, grad = draw(rows, keys)
    assert_as_accurate_as_an_evaluation(inputs, grad, True)


@pytest.mark.row("N3")
@pytest.mark.parametrize("window", [1, 15, 16, 31, 32, 33, 63, 64, 100, 511, 512])
@pytest.mark.parametrize("rows", [64, 97, 600])
def test_windows(rows, window):
    inputs, grad = draw(rows, heads=4, kv_heads=2)
    behind = distances(rows, rows)
    assert_as_accurate_as_an_evaluation(
        inputs, grad, (behind >= 0) & (behind <= window), causal=True, window=window
    )


@pytest.mark.row("H2")
@pytest.mark.parametrize("dim", [1, 15, 16, 17, 33, 64, 65, 128, 200])
@pytest.mark.parametrize("value_dim", [1, 16, 31, 64, 80, 130])
def test_dimensions(dim, value_dim):
    inputs, grad = draw(70, dim=dim, value_dim=value_dim, heads=4, kv_heads=1)
    assert_as_accurate_as_an_evaluation(inputs, grad, distances(70, 70) >= 0, causal=True)


@pytest.mark.row("N2")
@pytest.mark.parametrize("scale", [0.3, -0.3, 1e-3, 2.0])
def test_scale(scale):
    inputs, grad = draw(100)
    assert_as_accurate_as_an_evaluation(inputs, grad, True, scale=scale)


OPTIONS = {
    "softcap": {"softcap": 2.0},
    "sinks": {"sinks": np.array([0.5, -1], np.float32)},
    "relative bias": {"relative_bias": np.linspace(-1, 1, 42, dtype=np.float32).reshape(2, 21)},
    "discount": {"log_discount": np.array([-0.1, -0.02], np.float32), "causal": True},
    "bias": {"attn_mask": np.random.default_rng(5).standard_normal((2, 90, 90), np.float32)},
    "padding": {"key_mask": np.arange(90)[None] % 7 > 0},
    "segments": {"segment_ids": np.arange(90)[None] // 31},
}


@pytest.mark.row("N3")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_terms_and_masks(options):
    """All gradients, against those of the same numbers in float32."""
    inputs, grad = draw(90)
    got, wide = (
        gradients(inputs, grad, **options),
        gradients(widened(inputs), grad.astype(np.float32), **options),
    )
    assert got.keys() == wide.keys()
    for name, array in wide.items():
        assert np.linalg.norm(got[name] - array) <= 1e-2 * np.linalg.norm(array), name


@pytest.mark.row("S4")
@pytest.mark.parametrize("poison", [7.0, np.inf, np.nan])
@pytest.mark.parametrize("window", [14, 15, 16, 31, 32, 33, 63, 64, 65])
def test_keys_that_nobody_sees_change_no_bit(window, poison):
    """Those before the windows of all rows, which begin after them."""
    keys, rows = 160, 40
    inputs, grad = draw(rows, keys)
    first = keys - rows - window
    options = {"causal": True, "window": window, "query_offset": keys - rows}
    clean = gradients(inputs, grad, **options)
    for name in ("key", "value"):
        inputs[name][:, :, :first] = poison
    got = gradients(inputs, grad, **options)
    for name in NAMES:
        assert np.array_equal(got[name], clean[name]), name
        assert name == "query" or not got[name][:, :, :first].any()


@pytest.mark.row("S4")
@pytest.mark.parametrize("kind", ["key", "value"])
@pytest.mark.parametrize("poison", [np.inf, np.nan])
@pytest.mark.parametrize("at", [0, 31, 32, 63, 64, 99])
def test_a_key_that_is_not_finite_reaches_those_that_see_it(at, poison, kind):
    """Padded for one head's rows by causality: rows before it keep their bits."""
    inputs, grad = draw(100)
    clean = gradients(inputs, grad, causal=True)
    inputs[kind][:, 0, at] = poison
    got = gradients(inputs, grad, causal=True)
    assert np.array_equal(got["query"][:, 0, :at], clean["query"][:, 0, :at])
    assert np.isnan(got["query"][:, 0, at:]).any(-1).all()
    for name in NAMES:
        assert np.array_equal(got[name][:, 1], clean[name][:, 1]), name


@pytest.mark.row("S4")
@pytest.mark.parametrize("at", [0, 47, 48, 99])
def test_a_row_that_is_not_finite_reaches_the_keys_it_sees(at):
    inputs, grad = draw(100)
    clean = gradients(inputs, grad, causal=True)
    grad[:, 0, at] = np.nan
    got = gradients(inputs, grad, causal=True)
    others = np.arange(100) != at
    assert np.array_equal(got["query"][:, :, others], clean["query"][:, :, others])
    for name in ("key", "value"):
        assert np.array_equal(got[name][:, 0, at + 1 :], clean[name][:, 0, at + 1 :])
        assert np.isnan(got[name][:, 0, : at + 1]).any(-1).all()
        assert np.array_equal(got[name][:, 1], clean[name][:, 1])


@pytest.mark.row("S1")
def test_rows_that_see_nothing():
    inputs, grad = draw(60)
    shown = np.ones((60, 60), bool)
    shown[[0, 17, 59]] = False
    got = gradients(inputs, grad, attn_mask=shown)
    assert not got["query"][:, :, [0, 17, 59]].any()
    assert all(np.isfinite(array).all() for array in got.values())


@pytest.mark.row("N13")
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": 70}])
def test_bits_do_not_depend_on_threads(options, use_threads):
    inputs, grad = draw(2100, heads=2, kv_heads=1)
    use_threads(1)
    first = gradients(inputs, grad, **options)
    for threads in (2, 3, 8):
        use_threads(threads)
        again = gradients(inputs, grad, **options)
        assert all(np.array_equal(first[name], again[name]) for name in NAMES)


@pytest.mark.row("H1")
def test_gradients_of_a_batch_are_those_of_its_parts():
    pairs = [draw(75, seed=seed) for seed in range(3)]
    together = {name: np.concatenate([inputs[name] for inputs, _ in pairs]) for name in NAMES}
    got = gradients(together, np.concatenate([grad for _, grad in pairs]), causal=True)
    for i, (inputs, grad) in enumerate(pairs):
        alone = gradients(inputs, grad, causal=True)
        assert all(np.array_equal(got[name][i : i + 1], alone[name]) for name in NAMES)


def test_a_gradient_in_float32_is_multiplied_in_float32():
    """Rounding it would be the library's choice, not the caller's."""
    inputs, grad = draw(80)
    exact = gradients(widened(inputs), grad.astype(np.float32))
    got = gradients(inputs, grad.astype(np.float32))
    assert np.linalg.norm(got["key"] - exact["key"]) <= 2e-3 * np.linalg.norm(exact["key"])


@pytest.mark.row("N13")
@pytest.mark.parametrize("window", [None, 31, 70])
@pytest.mark.parametrize("first", [1, 33, 81, 600])
def test_rows_by_themselves_have_the_same_gradients(first, window):
    """Bit by bit, whichever keys their tiles begin with."""
    inputs, grad = draw(700)
    options = {"causal": True, "window": window}
    together = gradients(inputs, grad, **options)["query"]
    rows = slice(first, first + 60)
    part = inputs | {"query": inputs["query"][:, :, rows]}
    alone = gradients(part, grad[:, :, rows], query_offset=first, **options)["query"]
    assert np.array_equal(alone, together[:, :, rows])
