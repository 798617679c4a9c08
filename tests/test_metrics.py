"""The metrics by their definitions, under every combination of masks: fused, alone, and beside the rows."""

from __future__ import annotations

import numpy as np
import pytest
import rattention as ra
from rattention import MetricOptions
from rattention._metrics import ROW_METRICS, reference_metrics

from tests.masks import COMBINATIONS, SINGLES, mask_options
from tests.mechanisms import (
    DTYPES,
    SOFTMAX,
    Sizes,
    assert_accurate,
    by_mechanism,
    by_rule,
    wide,
    with_whole_weights,
)
from tests.metric_checks import DISTANCES, assert_close, assert_metrics

SMALL = Sizes(batch=2, heads=2, kv_heads=1, rows=29, keys=41, dim=8)
LARGE = Sizes(batch=2, heads=2, rows=530, keys=1100, dim=8)


@by_rule
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_every_mask_combination(mechanism, combination):
    inputs = mechanism.draw(SMALL, seed=1)
    assert_metrics(mechanism, inputs, mask_options(combination, SMALL, seed=2))


@by_rule
@pytest.mark.parametrize(
    "combination", ["none", *SINGLES, "window+causal+padding+segments", "causal+bool+discount"]
)
def test_across_tiles(mechanism, combination):
    sizes = Sizes(batch=1, heads=2, rows=290, keys=1100, dim=8)
    inputs = mechanism.draw(sizes, seed=3)
    assert_metrics(mechanism, inputs, mask_options(combination, sizes, seed=4), MetricOptions())


@by_rule
@pytest.mark.parametrize("combination", COMBINATIONS[::5])
def test_rows_are_the_map(mechanism, combination):
    inputs = mechanism.map_inputs(mechanism.draw(SMALL, seed=1))
    options = mask_options(combination, SMALL, seed=2)
    weights, visible, _ = mechanism.weights(**wide(inputs), **options)
    rows = [28, 0, -1, 7, 7, -29]
    got = mechanism.rows(**inputs, rows=rows, **options)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, weights[:, :, rows], rtol=3e-6, atol=1e-9)
    assert not got[~visible[:, :, rows]].any()


@by_rule
def test_rows_across_tiles(mechanism):
    inputs = mechanism.map_inputs(mechanism.draw(LARGE))
    rows = np.random.default_rng(0).integers(0, 530, 100).astype(np.int32)
    for options in ({}, {"causal": True}, {"window": 300}):
        weights, _, _ = mechanism.weights(**wide(inputs), **options)
        got = mechanism.rows(**inputs, rows=rows, **options)
        np.testing.assert_allclose(got, weights[:, :, rows], rtol=3e-6, atol=1e-9)


@by_rule
@pytest.mark.parametrize(("rows", "keys"), [(1, 1), (1, 2), (2, 1), (3, 5), (5, 3), (1, 600), (600, 1)])
@pytest.mark.parametrize("distances", [(0, 0), (1, 2), (5, 50), (10**6, 10**6)], ids=str)
def test_small_sizes_and_extreme_distances(mechanism, rows, keys, distances):
    inputs = mechanism.draw(Sizes(rows=rows, keys=keys, dim=4), seed=rows + keys)
    for options in ({}, {"causal": True}, {"window": 1}):
        assert_metrics(mechanism, inputs, options, MetricOptions(*distances))


@by_rule
@pytest.mark.parametrize("causal", [False, True])
def test_equal_scores(mechanism, causal):
    """The uniform map: ties everywhere, entropy ln(visible), ratio 1, no deviation, the lowest key first."""
    inputs = mechanism.draw(Sizes(rows=700, dim=8))
    inputs["query_mass" if mechanism.has_masses else "query"][:] = 0
    got = mechanism.forward(**inputs, causal=causal, metrics=DISTANCES).metrics
    visible = np.arange(1, 701) if causal else np.full(700, 700)
    np.testing.assert_allclose(got.entropy, np.broadcast_to(np.log(visible), (1, 2, 700)), rtol=0, atol=2e-6)
    np.testing.assert_allclose(got.max_weight, np.broadcast_to(1 / visible, (1, 2, 700)), rtol=1e-6)
    assert not got.max_position.any()
    assert (got.context_std <= 1e-9).all()
    ratio = got.recent_distant_ratio[:, :, 2 if causal else 0 :]
    np.testing.assert_allclose(ratio, np.ones_like(ratio), rtol=1e-6)


@by_rule
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("magnitude", [0.01, 5, 40])
def test_flat_and_peaked_maps(mechanism, magnitude, dtype):
    """Scores of up to 1000: an entropy near 0 is still right to what float32 scores allow."""
    inputs = mechanism.draw(Sizes(batch=2, rows=150, dim=16), dtype=dtype)
    inputs["query"] = (inputs["query"].astype(np.float32) * np.float32(magnitude)).astype(DTYPES[dtype])
    expected = mechanism.reference(**wide(inputs), causal=True, metrics=DISTANCES).metrics
    got = mechanism.forward(**inputs, causal=True, metrics=DISTANCES).metrics
    scores = np.einsum("bhid,bhjd->bhij", *(wide(inputs)[n] for n in ("query", "key"))) / 4
    slack = 1 + np.abs(scores).max() / 4
    for name in ("entropy", "local_concentration", "long_range", "retention", "max_weight", "received"):
        error = np.abs(getattr(got, name) - getattr(expected, name)).max()
        assert error <= 3e-6 * slack, name


@by_rule
@pytest.mark.parametrize("combination", ["none", "causal", "window+causal", "padding", "bool+segments"])
def test_consistent_with_the_own_rows(mechanism, combination):
    """Every metric can be recomputed from what attention_rows returns."""
    inputs = mechanism.map_inputs(mechanism.draw(SMALL, seed=5))
    options = mask_options(combination, SMALL, seed=6)
    _, visible, _ = mechanism.weights(**wide(inputs), **options)
    weights = mechanism.rows(**inputs, rows=range(SMALL.rows), **options).astype(np.float64)
    positions = np.arange(SMALL.rows) + SMALL.keys - SMALL.rows
    expected = reference_metrics(weights, visible, positions, DISTANCES)
    assert_close(mechanism.metrics(**inputs, **options, metrics=DISTANCES), expected, slack=3)


@with_whole_weights
def test_bounds_and_sums(mechanism):
    """What holds for any map: masses in [0, 1], what is received sums to the rows, entropy <= ln(visible)."""
    inputs = mechanism.draw(Sizes(batch=2, heads=3, rows=600, dim=16), seed=9)
    got = mechanism.forward(**inputs, causal=True, metrics=MetricOptions()).metrics
    for name in set(ROW_METRICS) - {"entropy", "max_position", "recent_distant_ratio"}:
        values = getattr(got, name)
        assert ((values >= 0) & (values <= 1 + 1e-6)).all(), name
    visible = np.arange(1, 601)
    assert (got.entropy <= np.log(visible) + 2e-6).all()
    assert (got.entropy >= 0).all()
    seen = 600 - np.arange(600)
    np.testing.assert_allclose((got.received * seen).sum(axis=-1), np.full((2, 3), 600.0), rtol=1e-5)
    assert (got.max_position <= np.arange(600)).all()


@by_mechanism
@pytest.mark.parametrize("options", [{}, {"causal": True, "window": 60}], ids=str)
def test_looking_does_not_change_the_output(mechanism, options):
    inputs = mechanism.draw(Sizes(batch=2, rows=700, dim=24))
    plain = assert_accurate(mechanism, inputs, **options)
    looked = mechanism.forward(**inputs, **options, metrics=MetricOptions(), return_lse=True)
    without = mechanism.forward(**inputs, **options, metrics=MetricOptions(received=False))
    np.testing.assert_allclose(looked.output, plain, rtol=0, atol=5e-7)
    np.testing.assert_array_equal(looked.output, without.output)
    np.testing.assert_array_equal(looked.metrics.entropy, without.metrics.entropy)
    assert without.lse is None
    assert without.metrics.received is None


def test_what_is_returned():
    inputs = SOFTMAX.draw(Sizes(rows=3))
    assert isinstance(ra.attention(**inputs), np.ndarray)
    result = ra.attention(**inputs, return_lse=True)
    assert isinstance(result, ra.AttentionResult)
    assert result.metrics is None
    metrics = ra.attention_metrics(inputs["query"], inputs["key"])
    assert [name for name, _ in metrics] == [*ROW_METRICS, "received"]
    assert metrics.max_position.dtype == np.int64
