"""A discount for every query: each row decays at its own rate, in all that is computed of the scores."""

from __future__ import annotations

import numpy as np
import pytest
import rattention as ra
from rattention._metrics import reference_metrics
from rattention.mechanisms.masks import Masks, query_positions

from tests.mechanisms import Sizes, assert_accurate, by_rule, wide

SIZES = Sizes(batch=2, heads=4, kv_heads=2, rows=60, keys=1100)
OPTIONS = {
    "none": {},
    "causal": {"causal": True},
    "window": {"causal": True, "window": 9},
    "offset": {"window": (200, 30), "query_offset": 7},
    "padding": {"key_mask": np.arange(1100)[None].repeat(2, 0) % 3 > 0},
}
by_options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def discounts(sizes=SIZES):
    numbers = np.random.default_rng(11).random((sizes.batch, sizes.heads, sizes.rows), np.float32)
    return -numbers / 5


@pytest.mark.row("N1")
@by_options
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@by_rule
def test_output(mechanism, dtype, options):
    assert_accurate(mechanism, mechanism.draw(SIZES, dtype=dtype), log_discount=discounts(), **options)


@by_options
@by_rule
def test_rows_map_and_metrics(mechanism, options):
    """Rows are picked out of order, so that none takes its neighbour's number."""
    inputs = mechanism.map_inputs(mechanism.draw(SIZES))
    masks, options = options, options | {"log_discount": discounts()}
    weights, visible, _ = mechanism.weights(**wide(inputs), **options)
    chosen = [41, 3, -1, 3]
    np.testing.assert_allclose(
        mechanism.rows(**inputs, rows=chosen, **options), weights[:, :, chosen], atol=1e-6
    )
    pooled = mechanism.pooled(**inputs, shape=(60, 1100), rows=(20, 50), **options)
    np.testing.assert_allclose(pooled, weights[:, :, 20:50], atol=1e-6)
    measured = mechanism.metrics(**inputs, **options)
    positions = query_positions(Masks(**masks), 60, 1100)
    expected = reference_metrics(weights, visible, positions, ra.MetricOptions())
    np.testing.assert_allclose(measured.entropy, expected.entropy, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(measured.received, expected.received, rtol=1e-4, atol=1e-7)


@by_rule
def test_equal_numbers_are_those_per_head(mechanism):
    """Bit for bit, from any strides; float64 is refused."""
    inputs, per_head = mechanism.draw(SIZES), np.array([-0.5, -0.1, -0.01, 0.0], np.float32)
    per_query = np.broadcast_to(per_head[:, None], (2, 4, 60))
    assert not per_query.flags.c_contiguous
    expected = mechanism.forward(**inputs, log_discount=per_head)
    np.testing.assert_array_equal(mechanism.forward(**inputs, log_discount=per_query), expected)
    with pytest.raises(TypeError, match="log_discount has dtype float64"):
        mechanism.forward(**inputs, log_discount=per_query.astype(np.float64))


def test_as_many_rows_as_heads_of_a_batch():
    """[heads] is never taken for rows."""
    inputs = {n: np.ones((3, 3, 3, 4), np.float32) for n in ("query", "key", "value")}
    with pytest.raises(ValueError, match="log_discount must have 1 dim"):
        ra.attention(**inputs, log_discount=-np.ones((3, 3), np.float32))
