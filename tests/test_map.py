"""The pooled map against means over the reference's map: masks, sizes, zoom, precision, threads."""

from __future__ import annotations

import numpy as np
import pytest
from rattention.mechanisms.pooled_map import bin_edges, reference_map

from tests.masks import COMBINATIONS, SINGLES, mask_options
from tests.mechanisms import DTYPES, Sizes, by_mechanism, by_rule, wide, with_whole_weights
from tests.processes import run_python
from tests.test_sizes import PEAK

SMALL = Sizes(batch=2, heads=4, kv_heads=2, rows=29, keys=41, dim=8)
LARGE = Sizes(batch=2, heads=2, kv_heads=1, rows=530, keys=1100, dim=8)


def exact_weights(mechanism, inputs, **options):
    return mechanism.weights(**wide(inputs), **options)[0]


def assert_pooled(got, weights, **part):
    """As good as the reference's means, and exactly 0 where those are."""
    expected = reference_map(weights, **part)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=3e-6, atol=1e-9)
    assert not got[expected == 0].any()


@by_rule
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_every_mask_combination(mechanism, combination):
    inputs = mechanism.map_inputs(mechanism.draw(SMALL, seed=1))
    options = mask_options(combination, SMALL, seed=2)
    weights = exact_weights(mechanism, inputs, **options)
    for part in ({"shape": (7, 9)}, {"shape": (10, 256), "rows": (4, 29), "keys": (3, 38)}):
        assert_pooled(mechanism.pooled(**inputs, **part, **options), weights, **part)


PARTS = [
    {},
    {"shape": (1, 1)},
    {"shape": (33, 2000), "keys": (1000, 1060)},
    {"shape": (2000, 7), "rows": (40, 60)},
    {"shape": (50, 60), "rows": (500, 530), "keys": (0, 1025)},
]


@by_rule
@pytest.mark.parametrize("combination", ["none", *SINGLES, "window+causal+padding+segments"])
def test_across_tiles(mechanism, combination):
    inputs = mechanism.map_inputs(mechanism.draw(LARGE, seed=3))
    options = mask_options(combination, LARGE, seed=4)
    weights = exact_weights(mechanism, inputs, **options)
    for part in PARTS:
        assert_pooled(mechanism.pooled(**inputs, **part, **options), weights, **part)


@by_mechanism
@pytest.mark.parametrize("length", [1, 2, 47, 48, 49, 255, 256, 257, 511, 767, 1023, 1024, 1025])
def test_lengths_around_blocks_bins_and_tiles(mechanism, length):
    inputs = mechanism.map_inputs(mechanism.draw(Sizes(heads=1, rows=length, dim=4)))
    got = mechanism.pooled(**inputs, causal=True)
    assert got.shape == (1, 1, min(length, 256), min(length, 256))
    assert_pooled(got, exact_weights(mechanism, inputs, causal=True))


@by_rule
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": (90, 20)}], ids=str)
def test_a_small_map_is_the_map(mechanism, options):
    """To the last bit what the rows are, zoomed or not; zooming does not change a weight."""
    inputs = mechanism.map_inputs(mechanism.draw(LARGE))
    rows = mechanism.rows(**inputs, rows=range(530), **options)
    np.testing.assert_array_equal(mechanism.pooled(**inputs, shape=(530, 1100), **options), rows)
    zoomed = mechanism.pooled(**inputs, rows=(400, 530), keys=(900, 1100), **options)
    np.testing.assert_array_equal(zoomed, rows[:, :, 400:530, 900:1100])


@by_rule
@pytest.mark.parametrize(
    "options", [{}, {"segment_ids": np.zeros((1, 1100), np.int64)}], ids=["", "segments"]
)
def test_zoom_on_what_no_row_sees(mechanism, options):
    inputs = mechanism.map_inputs(mechanism.draw(Sizes(rows=30, keys=1100)))
    got = mechanism.pooled(**inputs, keys=(100, 1050), window=(14, 2), **options)
    assert got.shape == (1, 2, 30, 256)
    assert not got.any()


@with_whole_weights
@pytest.mark.parametrize("shape", [(256, 256), (100, 37), (1, 600), (600, 1)], ids=str)
def test_mass(mechanism, shape):
    """What holds for any map: means times cells are one for every row, none of it above the diagonal."""
    inputs = mechanism.map_inputs(mechanism.draw(Sizes(batch=2, heads=3, rows=601, dim=16), seed=9))
    got = mechanism.pooled(**inputs, shape=shape, causal=True).astype(np.float64)
    down, across = (bin_edges(0, 601, most) for most in shape)
    cells = np.diff(down)[:, None] * np.diff(across)
    rows = np.broadcast_to(np.diff(down), got.shape[:3])
    np.testing.assert_allclose((got * cells).sum(axis=-1), rows, rtol=2e-6)
    future = across[:-1] > down[1:, None] - 1
    assert not got[:, :, future].any()
    assert (got[:, :, ~future] > 0).all()


@by_rule
@pytest.mark.parametrize("dtype", DTYPES)
def test_precisions(mechanism, dtype):
    inputs = mechanism.map_inputs(mechanism.draw(Sizes(batch=2, heads=4, kv_heads=2, rows=300), dtype=dtype))
    weights = exact_weights(mechanism, inputs, causal=True)
    assert_pooled(mechanism.pooled(**inputs, shape=(64, 64), causal=True), weights, shape=(64, 64))


@by_rule
@pytest.mark.parametrize("shape", [(256, 256), (3, 50), (1, 1)], ids=str)
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": 64, "causal": True}], ids=str)
def test_the_same_bits_for_any_number_of_threads(mechanism, options, shape, use_threads):
    inputs = mechanism.map_inputs(mechanism.draw(Sizes(batch=2, heads=2, kv_heads=1, rows=1900, dim=8)))
    maps = []
    for threads in (1, 2, 4):
        use_threads(threads)
        maps.append(mechanism.pooled(**inputs, shape=shape, **options))
    np.testing.assert_array_equal(maps[1], maps[0])
    np.testing.assert_array_equal(maps[2], maps[0])


@pytest.mark.row("S4")
@by_rule
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_is_hidden_leaves_no_trace(mechanism, poison):
    inputs = mechanism.map_inputs(mechanism.draw(Sizes(rows=300, dim=8)))
    shown = np.ones((1, 300), bool)
    shown[:, 70:90] = shown[:, 290:] = False
    clean = mechanism.pooled(**inputs, shape=(20, 30), key_mask=shown)
    inputs["key"][:, :, ~shown[0]] = poison
    np.testing.assert_array_equal(mechanism.pooled(**inputs, shape=(20, 30), key_mask=shown), clean)


@pytest.mark.row("S3")
@by_rule
def test_nan_is_in_every_bin_that_its_rows_see(mechanism):
    inputs = mechanism.map_inputs(mechanism.draw(Sizes(rows=300, dim=8)))
    inputs["key"][0, 0, 123] = np.nan
    got = mechanism.pooled(**inputs, shape=(30, 30), window=(20, 0))
    down, across = np.arange(30)[:, None], np.arange(30)
    # rows 123 to 143 see the key, and with it all that lies up to 20 before them
    poisoned = (down >= 12) & (down <= 14) & (across >= np.maximum(down - 2, 10)) & (across <= down)
    np.testing.assert_array_equal(np.isnan(got), np.stack([poisoned, np.zeros_like(poisoned)])[None])


@pytest.mark.parametrize(
    ("start", "stop", "most"), [(0, 7, 7), (0, 7, 3), (5, 105, 64), (9, 9, 4), (0, 1, 9)]
)
def test_bins(start, stop, most):
    edges = bin_edges(start, stop, most)
    sizes = np.diff(edges)
    assert (edges[0], edges[-1]) == (start, stop)
    assert sizes.size == min(most, stop - start)
    assert sizes.size == 0 or 1 <= sizes.min() <= sizes.max() <= sizes.min() + 1


@pytest.mark.row("Z5")
@by_rule
def test_peak_memory(mechanism):
    """A map of 32,768 x 32,768, which would take 4 GiB, in less than 16 MiB beyond the inputs."""
    code = PEAK.format(name=mechanism.name, call="map", rows=32_768, options={"causal": True})
    assert int(run_python(code)) < 16 * 2**20
