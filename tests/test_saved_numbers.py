"""What the backward pass, rows, maps and distances rest on, where float32 alone would round too much."""

from __future__ import annotations

import time
from collections import defaultdict

import numpy as np
import pytest
import rattention as ra
from rattention.mechanisms.softmax import attention_backward, reference_attention

from tests.mechanisms import DTYPES

LENGTH, DIM = 96, 16
LOGITS = [1.0, 30.0, 1e2, 1e3]


def draw(seed: int = 0, length: int = LENGTH, heads: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return list(rng.standard_normal((4, 1, heads, length, DIM), dtype=np.float32))


def with_common_logit(logit: float) -> list[np.ndarray]:
    """Queries and keys whose scores all have `logit` in common."""
    query, key, value, grad = draw()
    query[..., 0], key[..., 0] = logit, DIM**0.5
    return [query, key, value, grad]


@pytest.mark.row("N19")
@pytest.mark.parametrize("logit", LOGITS)
def test_weights_made_again_sum_to_one(logit):
    query, key, value, _ = with_common_logit(logit)
    rows = ra.attention_rows(query, key, range(LENGTH), causal=True)
    np.testing.assert_allclose(rows.sum(axis=3, dtype=np.float64), 1, atol=1e-6)
    pooled = ra.attention_map(query, key, shape=(7, 5), causal=True)
    mass = sum(
        pooled[..., c] * (((c + 1) * LENGTH // 5) - c * LENGTH // 5) for c in range(5)
    )  # mean times cells of a column
    assert pooled.shape == (1, 2, 7, 5)
    np.testing.assert_allclose(mass, 1, atol=2e-6)
    # A gradient of ones: every row gives its weights, which sum to 1, to the values.
    result = ra.attention(query, key, value, causal=True, return_lse=True)
    grads = attention_backward(np.ones_like(value), query, key, value, result, causal=True)
    np.testing.assert_allclose(grads["value"].sum(axis=2, dtype=np.float64), LENGTH, rtol=1e-6)


@pytest.mark.row("N19")
def test_received_over_several_tiles_sums_to_the_rows():
    rng = np.random.default_rng(1)
    query, key = rng.standard_normal((2, 1, 1, 1100, DIM), dtype=np.float32)
    query[..., 0], key[..., 0] = 1e3, DIM**0.5
    received = ra.attention_metrics(query, key).received  # more keys than a tile: the second sweep
    np.testing.assert_allclose(received.sum(dtype=np.float64), 1, atol=1e-6)


def test_a_result_made_by_hand_serves_the_backward_pass():
    query, key, value, grad = draw()
    result = ra.attention(query, key, value, return_lse=True)
    made = type(result)(result.output, result.lse, None)
    assert made.exact_lse is None
    assert result.exact_lse.dtype == np.float64
    kept, bare = (attention_backward(grad, query, key, value, r) for r in (result, made))
    for name in kept:
        np.testing.assert_allclose(bare[name], kept[name], rtol=1e-4, atol=1e-5)


def softmax_in(dtype: type, query: np.ndarray, key: np.ndarray) -> np.ndarray:
    scores = np.einsum("bhid,bhjd->bhij", query.astype(dtype) * dtype(DIM**-0.5), key.astype(dtype))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def textbook_gradients(dtype: type, inputs: list[np.ndarray]) -> dict[str, np.ndarray]:
    """By the whole map, every step in `dtype`: what an implementation with stored maps computes."""
    query, key, value, grad = (a.astype(dtype) for a in inputs)
    p = softmax_in(dtype, query, key)
    dp = np.einsum("bhid,bhjd->bhij", grad, value)
    ds = p * (dp - (p * dp).sum(axis=-1, keepdims=True)) * dtype(DIM**-0.5)
    return {
        "query": np.einsum("bhij,bhjd->bhid", ds, key),
        "key": np.einsum("bhij,bhid->bhjd", ds, query),
        "value": np.einsum("bhij,bhid->bhjd", p, grad),
    }


@pytest.mark.row("N3")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("spread", [1.0, 10.0, 100.0])
def test_gradients_of_saturated_rows(dtype, spread):
    """At most twice the root mean square error of the evaluation of a stored map in float32."""
    ours, theirs = defaultdict(float), defaultdict(float)
    for seed in range(4):
        inputs = [a.astype(DTYPES[dtype]) for a in draw(seed)]
        inputs[0] = (inputs[0].astype(np.float32) * spread).astype(DTYPES[dtype])
        query, key, value, grad = inputs
        result = ra.attention(query, key, value, return_lse=True)
        got = attention_backward(grad, query, key, value, result)
        exact, naive = textbook_gradients(np.float64, inputs), textbook_gradients(np.float32, inputs)
        for name, truth in exact.items():
            rounded = naive[name].astype(DTYPES[dtype]).astype(np.float64)
            final = got[name].astype(DTYPES[dtype]).astype(np.float64)
            ours[name] += ((final - truth) ** 2).mean()
            theirs[name] += ((rounded - truth) ** 2).mean()
    for name, error in ours.items():
        assert error**0.5 <= 2 * theirs[name] ** 0.5, (name, error, theirs[name])


@pytest.mark.row("N18")
@pytest.mark.parametrize("offset", [10**4, 10**6, 10**8])
@pytest.mark.parametrize("slope", [-1.0, -(2**-7)])
def test_discounts_far_away_are_as_exact_as_near(offset, slope):
    query, key, value, grad = draw(length=32)
    options = {"log_discount": slope, "query_offset": offset}
    result = ra.attention(query, key, value, **options, return_lse=True)
    exact = reference_attention(query, key, value, **options)
    np.testing.assert_allclose(result.output, exact.output, atol=1e-6)
    np.testing.assert_allclose(result.exact_lse, exact.lse, rtol=1e-14, atol=1e-5)
    rows = ra.attention_rows(query, key, range(32), **options)
    np.testing.assert_allclose(rows.sum(axis=3), 1, atol=1e-6)
    # Only what all keys have in common depends on the offset: the gradients are those of keys right behind.
    near = options | {"query_offset": 32}
    want = attention_backward(
        grad, query, key, value, ra.attention(query, key, value, **near, return_lse=True), **near
    )
    # Rows then differ in the distance to the last key alone, which softmax does not see.
    got = attention_backward(grad, query, key, value, result, **options)
    for name in ("query", "key", "value"):
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-6)


@pytest.mark.row("N18")
def test_gradient_of_a_far_discount_counts_the_whole_distance():
    query, key, value, _ = draw(length=8)
    offset, step = 10**4, 1e-3
    ones = np.ones(query.shape[:3], np.float32)

    def lse(slope):
        options = {"log_discount": slope, "query_offset": offset}
        return float(reference_attention(query, key, value, **options).lse.sum())

    options = {"log_discount": -0.5, "query_offset": offset}
    result = ra.attention(query, key, value, **options, return_lse=True)
    got = attention_backward(np.zeros_like(value), query, key, value, result, **options, grad_lse=ones)
    expected = (lse(-0.5 + step) - lse(-0.5 - step)) / (2 * step)
    np.testing.assert_allclose(got["log_discount"].sum(dtype=np.float64), expected, rtol=1e-6)


@pytest.mark.row("N9")
@pytest.mark.parametrize("sign", [1, -1])
def test_scores_that_all_overflow_are_not_hidden(sign):
    """exp(-inf - -inf) is NaN; a row of 0 would say that it saw nothing."""
    query, key, value, _ = (np.abs(a) + 1 for a in draw(length=20))
    query[0, 0, 7] = -sign * np.float32(1e38)
    key[...] *= np.float32(1e6)
    result = ra.attention(query, key, value, return_lse=True, metrics=ra.MetricOptions())
    numbers = (result.output, result.lse, result.metrics.entropy, result.metrics.retention)
    assert all(np.isnan(a[0, 0, 7]).all() for a in numbers)
    assert np.isfinite(np.delete(result.output[0, 0], 7, axis=0)).all()
    assert np.isnan(ra.attention_rows(query, key, [7])[0, 0]).all()
    shown = np.zeros((1, 20), bool)
    empty = ra.attention(query, key, value, key_mask=shown, return_lse=True)
    assert (empty.output == 0).all()
    assert np.isneginf(empty.lse).all()


@pytest.mark.row("S1")
def test_a_row_that_sees_nothing_retains_nothing():
    query, key, *_ = draw(length=4)
    shown = np.array([[False, True, True, True]])
    retention = ra.attention_metrics(query, key, causal=True, key_mask=shown).retention
    assert (retention[..., 0] == 0).all()
    assert (retention[..., 2:] > 0).all()


@pytest.mark.parametrize("options", [{}, {"causal": True, "window": 40}], ids=["full", "window"])
@pytest.mark.parametrize("length", [33, 96, 130])
def test_metrics_change_no_bit_of_the_output(options, length):
    query, key, value, _ = draw(length=length)
    plain = ra.attention(query, key, value, **options, return_lse=True)
    measured = ra.attention(query, key, value, **options, return_lse=True, metrics=ra.MetricOptions())
    assert np.array_equal(plain.output, measured.output)
    assert np.array_equal(plain.lse, measured.lse)


def fastest(call) -> float:
    times = []
    for _ in range(7):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize("hidden", ["value", "key"])
def test_one_hidden_nan_costs_little(hidden):
    """It made forward passes 12 times, backward passes 7 times as slow."""
    query, key, value, grad = draw(length=1024)
    options = {"key_mask": np.arange(1024)[None] < 1023}
    result = ra.attention(query, key, value, **options, return_lse=True)

    def call():
        if hidden == "value":
            return ra.attention(query, key, value, **options)
        return attention_backward(grad, query, key, value, result, **options)

    clean = fastest(call)
    (value if hidden == "value" else key)[..., -1, :] = np.nan
    assert fastest(call) < 3 * clean
