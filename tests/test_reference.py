"""The float64 reference is the law of all other tests: here it is itself held to plain Python loops."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from rattention import AttentionMetrics, MetricOptions
from rattention._metrics import ROW_METRICS
from rattention.mechanisms.softmax import reference_attention, reference_weights

from tests.brute_force import brute_metrics, brute_row
from tests.masks import COMBINATIONS, mask_options
from tests.mechanisms import Sizes, draw_softmax, wide

SIZES = Sizes(batch=2, heads=2, kv_heads=1, rows=7, keys=11, dim=3, value_dim=2)
OPTIONS = MetricOptions(local_radius=1, long_range_distance=3)


def assert_reference_is_brute_force(inputs, options, metrics=OPTIONS):
    result = reference_attention(**inputs, **options, metrics=metrics)
    weights, visible, lse = reference_weights(inputs["query"], inputs["key"], **options)
    np.testing.assert_array_equal(lse, result.lse)
    received, seen = np.zeros((2, *weights.shape[:2], weights.shape[3]))
    for b, h, i in np.ndindex(*weights.shape[:3]):
        row = brute_row(inputs, b, h, i, options)
        assert np.flatnonzero(visible[b, h, i]).tolist() == row.keys
        np.testing.assert_allclose(weights[b, h, i, row.keys], row.weights, rtol=1e-12)
        np.testing.assert_allclose(result.output[b, h, i], row.output, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(lse[b, h, i], row.lse, rtol=1e-12, atol=1e-13)
        for name, expected in brute_metrics(row, metrics.local_radius, metrics.long_range_distance).items():
            got = getattr(result.metrics, name)[b, h, i]
            np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-13, err_msg=name)
        received[b, h, row.keys] += row.weights
        seen[b, h, row.keys] += 1
    assert not weights[~visible].any()
    expected = np.divide(received, seen, out=np.zeros_like(received), where=seen > 0)
    np.testing.assert_allclose(result.metrics.received, expected, rtol=1e-12)


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_every_mask_combination(combination):
    inputs = wide(draw_softmax(SIZES, seed=1))
    assert_reference_is_brute_force(inputs, mask_options(combination, SIZES, seed=2))


@pytest.mark.parametrize(("rows", "keys"), [(1, 1), (1, 6), (2, 9), (9, 9), (6, 2)])
@pytest.mark.parametrize("causal", [False, True])
def test_sizes_and_distances(rows, keys, causal):
    inputs = wide(draw_softmax(Sizes(rows=rows, keys=keys, dim=2), seed=rows))
    for metrics in (MetricOptions(0, 0), MetricOptions(2, 1), MetricOptions(100, 100)):
        assert_reference_is_brute_force(inputs, {"causal": causal, "scale": 0.7}, metrics)


@pytest.mark.parametrize("shape", [(11,), (1, 11), (7, 1), (2, 1, 1), (1, 2, 7, 11)])
def test_dense_masks_broadcast(shape):
    inputs = wide(draw_softmax(SIZES))
    mask = np.random.default_rng(0).standard_normal(shape)
    for attn_mask in (mask, mask > -0.5):
        assert_reference_is_brute_force(inputs, {"attn_mask": attn_mask})


def test_fa_readme_masks():
    """The two causal masks in flash-attention's README: lengths 2 and 5, and 5 and 2, aligned at the end."""
    for rows, keys, rows_seen in [(2, 5, [4, 5]), (5, 2, [0, 0, 0, 1, 2])]:
        inputs = wide(draw_softmax(Sizes(rows=rows, keys=keys)))
        _, visible, _ = reference_weights(inputs["query"], inputs["key"], causal=True)
        assert visible[0, 0].sum(axis=-1).tolist() == rows_seen
        assert all(not row[seen:].any() for row, seen in zip(visible[0, 0], rows_seen, strict=True))


def test_a_row_that_sees_nothing():
    inputs = wide(draw_softmax(Sizes(rows=4, keys=4)))
    mask = np.array([[[[True], [False], [True], [True]]]])
    result = reference_attention(**inputs, attn_mask=mask, metrics=OPTIONS)
    assert not result.output[:, :, 1].any()
    assert (result.lse[:, :, 1] == -np.inf).all()
    assert (result.metrics.max_position[:, :, 1] == -1).all()
    assert np.isnan(result.metrics.recent_distant_ratio[:, :, 1]).all()
    for name in ("entropy", "local_concentration", "long_range", "context_mean", "context_std", "max_weight"):
        assert not getattr(result.metrics, name)[:, :, 1].any(), name


def test_hidden_nan_leaves_no_trace():
    inputs = wide(draw_softmax(Sizes(rows=6, keys=6)))
    options = {"causal": True, "key_mask": np.array([[True, True, False, True, True, False]])}
    clean = reference_attention(**inputs, **options, metrics=OPTIONS)
    for poison in (np.nan, np.inf, -np.inf):
        dirty = {name: array.copy() for name, array in inputs.items()}
        dirty["key"][:, :, [2, 5]] = dirty["value"][:, :, [2, 5]] = poison
        result = reference_attention(**dirty, **options, metrics=OPTIONS)
        np.testing.assert_array_equal(result.output, clean.output)
        for (name, got), (_, expected) in zip(result.metrics, clean.metrics, strict=True):
            np.testing.assert_array_equal(got, expected, err_msg=name)


def test_nan_in_one_query_row_stays_there():
    """A poisoned row poisons its own numbers, and of `received` only the keys it sees."""
    distances = MetricOptions(local_radius=1, long_range_distance=1)
    inputs = wide(draw_softmax(Sizes(heads=1, rows=5)))
    clean = reference_attention(**inputs, causal=True, metrics=distances)
    inputs["query"][0, 0, 2, 1] = np.nan
    result = reference_attention(**inputs, causal=True, metrics=distances)
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(result.output[0, 0, others], clean.output[0, 0, others])
    assert np.isnan(result.output[0, 0, 2]).all()
    assert np.isnan(result.lse[0, 0, 2])
    for name in set(ROW_METRICS) - {"max_position"}:
        got, expected = getattr(result.metrics, name)[0, 0], getattr(clean.metrics, name)[0, 0]
        np.testing.assert_array_equal(got[others], expected[others], err_msg=name)
        assert np.isnan(got[2]), name
    assert np.isnan(result.metrics.received[0, 0, :3]).all()
    np.testing.assert_array_equal(result.metrics.received[0, 0, 3:], clean.metrics.received[0, 0, 3:])


def test_names_of_the_metrics():
    names = [field.name for field in fields(AttentionMetrics)]
    assert names == [*ROW_METRICS, "received"]
    inputs = wide(draw_softmax(Sizes(rows=3)))
    without = reference_attention(**inputs, metrics=MetricOptions(received=False)).metrics
    assert [name for name, _ in without] == list(ROW_METRICS)
    assert without.received is None
