"""Rows and maps from an lse that is known: the same weights, at the cost of the cells asked for."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import rattention as ra

from tests.masks import COMBINATIONS, mask_options
from tests.mechanisms import DTYPES, Sizes, by_mechanism, by_rule

SMALL = Sizes(batch=2, heads=4, kv_heads=2, rows=29, keys=41, dim=8)
LARGE = Sizes(batch=2, heads=2, kv_heads=1, rows=530, keys=1100, dim=8)
PART = {"shape": (10, 256), "rows": (4, 29), "keys": (3, 38)}


def solved(mechanism, sizes, dtype="float32", **options):
    """What the map depends on, and the result of the forward pass."""
    inputs = mechanism.draw(sizes, seed=1, dtype=dtype)
    return mechanism.map_inputs(inputs), mechanism.forward(**inputs, **options, return_lse=True)


def assert_equal_weights(got, expected):
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-30)
    np.testing.assert_array_equal(got == 0, expected == 0)


@by_rule
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_every_mask_combination(mechanism, combination):
    options = mask_options(combination, SMALL, seed=2)
    inputs, result = solved(mechanism, SMALL, **options)
    rows = {"rows": [28, 0, -2]}
    assert_equal_weights(
        mechanism.rows(**inputs, **options, **rows, lse=result), mechanism.rows(**inputs, **options, **rows)
    )
    assert_equal_weights(
        mechanism.pooled(**inputs, **options, **PART, lse=result),
        mechanism.pooled(**inputs, **options, **PART),
    )


@by_mechanism
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": (90, 20)}], ids=str)
def test_across_tiles(mechanism, options):
    inputs, result = solved(mechanism, LARGE, **options)
    for part in ({}, {"shape": (33, 2000), "keys": (1000, 1060)}, {"rows": (529, 530), "keys": (1023, 1025)}):
        got = mechanism.pooled(**inputs, **options, **part, lse=result)
        assert_equal_weights(got, mechanism.pooled(**inputs, **options, **part))


@by_rule
@pytest.mark.parametrize("dtype", DTYPES)
def test_precisions(mechanism, dtype):
    inputs, result = solved(mechanism, replace(LARGE, rows=60), dtype, causal=True)
    got = mechanism.rows(**inputs, rows=range(60), causal=True, lse=result)
    np.testing.assert_allclose(got, mechanism.rows(**inputs, rows=range(60), causal=True), rtol=1e-5)


def heavy():
    """Scores that have 1000 in common."""
    query, key = np.random.default_rng(0).standard_normal((2, 1, 2, 96, 16), np.float32)
    query[..., 0], key[..., 0] = 1e3, 4
    return query, key


@pytest.mark.row("N19")
@pytest.mark.parametrize(("form", "error"), [("result", 1e-6), ("float64", 1e-6), ("float32", 6e-5)])
def test_large_scores(form, error):
    """To 1e-6 from what is kept in float64; rounded to float32, an lse of 1000 is off by up to 3e-5."""
    query, key = heavy()
    result = ra.attention(query, key, key, causal=True, return_lse=True)
    lse = {"result": result, "float64": result.exact_lse, "float32": result.lse}[form]
    rows = ra.attention_rows(query, key, range(96), causal=True, lse=lse)
    np.testing.assert_allclose(rows.sum(axis=3, dtype=np.float64), 1, atol=error)
    pooled = ra.attention_map(query, key, shape=(96, 1), causal=True, lse=lse)
    np.testing.assert_allclose(pooled[..., 0] * 96, 1, atol=error + 1e-6)


@by_rule
def test_weights_are_those_of_the_lse_given(mechanism):
    """It is trusted: ln 2 more halves every weight, NaN is in every key that its row sees."""
    inputs, result = solved(mechanism, Sizes(rows=30, dim=4), causal=True)
    lse = result.exact_lse + np.log(2)
    lse[0, 1, 7] = np.nan
    got = mechanism.rows(**inputs, rows=range(30), causal=True, lse=lse)
    whole = mechanism.rows(**inputs, rows=range(30), causal=True) / 2
    whole[0, 1, 7, :8] = np.nan
    np.testing.assert_allclose(got, whole, rtol=2e-6)


@by_rule
def test_the_same_bits_for_any_number_of_threads(mechanism, use_threads):
    inputs, result = solved(mechanism, Sizes(batch=2, heads=2, kv_heads=1, rows=1900, dim=8), causal=True)
    maps = []
    for threads in (1, 2, 5):
        use_threads(threads)
        maps.append(mechanism.pooled(**inputs, shape=(3, 50), causal=True, lse=result))
    np.testing.assert_array_equal(maps[1], maps[0])
    np.testing.assert_array_equal(maps[2], maps[0])


@pytest.mark.row("S4")
@by_rule
def test_what_is_hidden_leaves_no_trace(mechanism):
    shown = np.arange(300)[None] % 7 > 0
    inputs, result = solved(mechanism, Sizes(rows=300, dim=8), key_mask=shown)
    part = {"rows": (10, 200), "keys": (3, 290), "key_mask": shown, "lse": result}
    clean = mechanism.pooled(**inputs, **part)
    inputs["key"][:, :, ~shown[0]] = np.nan
    np.testing.assert_array_equal(mechanism.pooled(**inputs, **part), clean)


@pytest.mark.row("S1")
@by_rule
def test_rows_that_see_nothing(mechanism):
    shown = np.arange(40)[None] > 20
    inputs, result = solved(mechanism, Sizes(rows=40), causal=True, key_mask=shown)
    rows = mechanism.rows(**inputs, rows=range(40), causal=True, key_mask=shown, lse=result)
    assert not rows[:, :, :21].any()
    assert rows[:, :, 21:].any(axis=3).all()


X = np.random.default_rng(0).standard_normal((1, 2, 5, 4)).astype(np.float32)
WRONG = {
    r"lse must have shape \(batch, heads, query_length\) = \(1, 2, 5\), got \(1, 2, 4\)": np.zeros((1, 2, 4)),
    "lse must have 3 dimensions": np.zeros((2, 5)),
    r"write lse\.astype\(np\.float32\): lse must be .*, got dtype float16": np.zeros(5, np.float16),
    r"write lse\.astype\(np\.float32\): lse must be .*, got dtype int64": np.zeros(5, int),
    "lse must be float32 or float64, got dtype complex128": np.zeros(5, complex),
    "lse must be an array, got list": [[[0.0] * 5] * 2],
    "lse is the result of a call without return_lse=True": ra.attention(X, X, X, metrics=ra.MetricOptions()),
}


@pytest.mark.parametrize("message", WRONG)
def test_refused(message):
    for call in (
        lambda lse: ra.attention_rows(X, X, [0], lse=lse),
        lambda lse: ra.attention_map(X, X, lse=lse),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call(WRONG[message])


SMALL_PARTS = [{"rows": (20_000, 21_024), "keys": (100, 612)}, {"keys": (77, 78)}]


def fastest(call):
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize("part", [{"rows": (20_000, 24_096), "keys": (100, 612)}, {"keys": (77, 78)}])
def test_a_part_costs_its_own_cells(part):
    """Less than a fifth of the same without lse, which sweeps over 32,768 keys for each of the rows."""
    query, key = np.random.default_rng(0).standard_normal((2, 1, 1, 32_768, 16), np.float32)
    result = ra.attention(query, key, key, return_lse=True)
    known = fastest(lambda: ra.attention_map(query, key, **part, lse=result))
    assert known < fastest(lambda: ra.attention_map(query, key, **part)) / 5
