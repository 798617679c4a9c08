"""Parts that are cut from a pyramid are the means of the cells that they say they are."""

from __future__ import annotations

import numpy as np
import pytest
from rattention.explorer import views
from rattention.explorer.pyramid import COARSEST, Pyramid
from rattention.explorer.views import Views
from rattention.mechanisms.pooled_map import bin_edges

from tests.explorer.readings import reading

LENGTH = 3000


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(0).random((LENGTH, LENGTH))


@pytest.mark.parametrize("bins", [2048, 1500, 700])
@pytest.mark.parametrize(
    ("rows", "keys", "shape"),
    [
        ((0, 3000), (0, 3000), (512, 512)),
        ((0, 3000), (0, 3000), (3, 350)),
        ((7, 2990), (1500, 3000), (64, 33)),
        ((100, 1200), (0, 2999), (200, 100)),
        ((1234, 1300), (5, 2000), (1, 16)),
        ((1234, 1300), (5, 2000), (500, 500)),
    ],
)
def test_a_part_is_the_mean_of_its_cells(weights, bins, rows, keys, shape):
    ends = bin_edges(0, LENGTH, bins)
    pyramid = Pyramid(_means(_means(weights, ends, 0), ends, 1).astype(np.float32), LENGTH)
    got, *shown = pyramid.cut(rows, keys, shape)
    levels = [bins]
    while levels[-1] > COARSEST and levels[-1] % 2 == 0:
        levels.append(levels[-1] // 2)
    fine = [level for level in levels if _as_fine(level, rows, keys, shape)]
    assert pyramid.is_as_fine(rows, keys, shape) == bool(fine)
    edges = bin_edges(0, LENGTH, min(fine, default=bins))
    expected = weights
    for axis, (part, there, most) in enumerate(zip((rows, keys), shown, shape, strict=True)):
        first, last = edges.searchsorted(part[0], "right") - 1, edges.searchsorted(part[1])
        assert there == (edges[first], edges[last])
        expected = _means(expected, edges[bin_edges(first, last, most)], axis)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def _means(weights, ends, axis):
    """Between neighbouring ends along an axis."""
    sums = np.add.reduceat(weights.take(range(ends[-1]), axis), ends[:-1], axis)
    return sums / np.diff(ends).reshape((-1, 1) if axis == 0 else (1, -1))


def _as_fine(bins, rows, keys, shape):
    return min((rows[1] - rows[0]) / shape[0], (keys[1] - keys[0]) / shape[1]) * bins >= LENGTH


@pytest.mark.parametrize(("layer", "head"), [(0, 1), (2, None), (None, 3), (None, None)])
def test_large_views_are_the_same_as_small_ones(monkeypatch, layer, head):
    part = ((3, 61), (0, 40), (20, 10))
    small = Views(reading()).map(layer, head, *part)
    monkeypatch.setattr(views, "EXACT_CELLS", 0)
    large = Views(reading()).map(layer, head, *part)
    assert large[1:] == small[1:]
    np.testing.assert_allclose(large[0], small[0], rtol=1e-5, atol=1e-8)
