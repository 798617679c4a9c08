"""Segments, largest weights and mass by distance against the reference's map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rattention as ra
from rattention.mechanisms.masks import Masks, query_positions
from rattention.mechanisms.pooled_map import (
    bin_edges,
    reference_distances,
    reference_segments,
    reference_top_keys,
)

from tests.masks import COMBINATIONS, SINGLES, mask_options
from tests.mechanisms import DTYPES, Sizes, by_mechanism, by_rule, wide, with_whole_weights
from tests.processes import run_python
from tests.test_sizes import PEAK

SMALL = Sizes(batch=2, heads=4, kv_heads=2, rows=29, keys=41, dim=8)
LARGE = Sizes(batch=2, heads=2, kv_heads=1, rows=530, keys=1100, dim=8)
EDGES = {
    SMALL: ([3, 4, 17, 29], [0, 1, 2, 9, 40]),
    LARGE: ([0, 47, 48, 49, 400, 530], [5, 6, 512, 1023, 1024, 1025, 1099]),
}
DISTANCES = [0, 1, 2, 3, 9, 40, 700, 2**62]


def assert_near(got, expected):
    """As good as sums of the reference's weights, and exactly 0 where those are."""
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=4e-6, atol=1e-9)
    assert not got[expected == 0].any()


def check_segments(mechanism, inputs, law, edges, **options):
    got = mechanism.segments(**inputs, query_edges=edges[0], key_edges=edges[1], **options)
    assert_near(got, reference_segments(law[0], *edges))


def check_distances(mechanism, inputs, law, edges, **options):
    positions = query_positions(Masks(query_offset=options.get("query_offset")), *law[0].shape[2:])
    got = mechanism.distances(**inputs, edges=edges, **options)
    assert_near(got, reference_distances(law[0], law[1], positions, edges))


def check_top_keys(mechanism, inputs, law, count, **options):
    """To the bit those of the rows, and as heavy as the reference's."""
    rows = mechanism.rows(**inputs, rows=range(law[0].shape[2]), **options)
    got = mechanism.top_keys(**inputs, k=count, **options)
    keys, weights = reference_top_keys(rows, law[1], count)
    np.testing.assert_array_equal(got.positions, keys)
    np.testing.assert_array_equal(got.weights, weights)
    assert (got.positions.dtype, got.weights.dtype) == (np.int64, np.float32)
    np.testing.assert_allclose(
        got.weights, reference_top_keys(law[0], law[1], count)[1], rtol=4e-6, atol=1e-9
    )


def check_all(mechanism, sizes, combination):
    inputs = mechanism.map_inputs(mechanism.draw(sizes, seed=1))
    options = mask_options(combination, sizes, seed=2)
    law = mechanism.weights(**wide(inputs), **options)
    check_segments(mechanism, inputs, law, EDGES[sizes], **options)
    check_distances(mechanism, inputs, law, DISTANCES, **options)
    for count in (1, 5, 50):
        check_top_keys(mechanism, inputs, law, count, **options)


@by_rule
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_every_mask_combination(mechanism, combination):
    check_all(mechanism, SMALL, combination)


@by_mechanism
@pytest.mark.parametrize("combination", ["none", *SINGLES, "window+causal+padding+segments"])
def test_across_tiles(mechanism, combination):
    check_all(mechanism, LARGE, combination)


@by_rule
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 33, 47, 48, 49, 1023, 1024, 1025])
def test_lengths_around_vectors_blocks_and_tiles(mechanism, length):
    inputs = mechanism.map_inputs(mechanism.draw(Sizes(heads=1, rows=length, dim=4)))
    law = mechanism.weights(**wide(inputs), causal=True)
    edges = bin_edges(0, length, 5), bin_edges(0, length, 33)
    check_segments(mechanism, inputs, law, edges, causal=True)
    check_distances(mechanism, inputs, law, [0, 1, 16, 17, 1024, 2000], causal=True)
    check_top_keys(mechanism, inputs, law, 17, causal=True)


@by_rule
@pytest.mark.parametrize("dtype", DTYPES)
def test_precisions(mechanism, dtype):
    sizes = Sizes(batch=2, heads=4, kv_heads=2, rows=130)
    inputs = mechanism.map_inputs(mechanism.draw(sizes, dtype=dtype))
    law = mechanism.weights(**wide(inputs), causal=True)
    check_segments(mechanism, inputs, law, ([0, 7, 130], [0, 64, 100]), causal=True)
    check_distances(mechanism, inputs, law, [0, 8, 64, 130], causal=True)
    check_top_keys(mechanism, inputs, law, 9, causal=True)


@by_mechanism
@pytest.mark.parametrize("options", [{}, {"causal": True}], ids=str)
def test_from_a_known_lse(mechanism, options):
    inputs = mechanism.draw(replace(LARGE, keys=1040), seed=4)
    result = mechanism.forward(**inputs, **options, return_lse=True)
    given, known = mechanism.map_inputs(inputs) | options, {"lse": result}
    for function, part in (
        (mechanism.segments, {"query_edges": [3, 400, 529], "key_edges": [1000, 1001, 1030]}),
        (mechanism.distances, {"edges": [2, 5, 90]}),
    ):
        np.testing.assert_allclose(function(**given, **part, **known), function(**given, **part), rtol=3e-6)
    got, expected = (mechanism.top_keys(**given, k=3, rows=(100, 300), **k) for k in (known, {}))
    np.testing.assert_allclose(got.weights, expected.weights, rtol=3e-6)
    assert (got.positions == expected.positions).mean() > 0.999  # weights may be equal but for the last bit


@by_rule
def test_even_segments_are_the_map(mechanism):
    inputs = mechanism.map_inputs(mechanism.draw(LARGE))
    down, across = bin_edges(0, 530, 7), bin_edges(0, 1100, 9)
    mass = mechanism.segments(**inputs, query_edges=down, key_edges=across, causal=True)
    np.testing.assert_allclose(
        mass / np.diff(across), mechanism.pooled(**inputs, shape=(7, 9), causal=True), rtol=3e-7
    )


@with_whole_weights
def test_mass_is_one_for_every_row(mechanism):
    inputs = mechanism.map_inputs(mechanism.draw(Sizes(batch=2, heads=3, rows=601, dim=16), seed=9))
    mass = mechanism.segments(**inputs, query_edges=[0, 100, 601], key_edges=[0, 1, 300, 601], causal=True)
    np.testing.assert_allclose(mass.sum(axis=-1), 1, rtol=2e-6)
    shares = mechanism.distances(**inputs, edges=[0, 1, 5, 601], causal=True)
    np.testing.assert_allclose(shares.sum(axis=-1), 1, rtol=2e-6)
    whole = mechanism.top_keys(**inputs, k=601, causal=True)
    np.testing.assert_allclose(whole.weights.sum(axis=-1), 1, rtol=2e-6)
    np.testing.assert_array_equal(
        (whole.positions >= 0).sum(axis=-1), np.broadcast_to(1 + np.arange(601), (2, 3, 601))
    )


@by_rule
def test_distances_are_counted_from_positions(mechanism):
    """A row far behind its keys: all weight lies at distances from 900 on."""
    inputs = mechanism.map_inputs(mechanism.draw(Sizes(rows=3, keys=100)))
    got = mechanism.distances(**inputs, edges=[0, 900, 1000, 1002], query_offset=999)
    assert not got[..., 0].any()
    np.testing.assert_allclose(got.sum(axis=-1), 1, rtol=2e-6)
    assert (got[..., 2] > 0).all()


@by_rule
def test_what_a_window_would_cut_off(mechanism):
    inputs = mechanism.map_inputs(mechanism.draw(Sizes(rows=300, dim=8)))
    shares = mechanism.distances(**inputs, edges=[0, 21, 300], causal=True)
    rows = mechanism.rows(**inputs, rows=range(300), causal=True).astype(np.float64)
    kept = np.where(np.subtract.outer(np.arange(300), np.arange(300)) <= 20, rows, 0).sum(axis=3)
    np.testing.assert_allclose(shares[..., 1], 1 - kept.mean(axis=2), atol=1e-6)


def all_parts(mechanism, inputs, **options):
    top = mechanism.top_keys(**inputs, k=7, **options)
    return [
        mechanism.segments(**inputs, query_edges=[0, 5, 290, 300], key_edges=[0, 33, 200], **options),
        mechanism.distances(**inputs, edges=[0, 3, 50, 300], **options),
        top.positions,
        top.weights,
    ]


@by_rule
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": 64, "causal": True}], ids=str)
def test_the_same_bits_for_any_number_of_threads(mechanism, options, use_threads):
    inputs = mechanism.map_inputs(mechanism.draw(Sizes(batch=2, heads=2, kv_heads=1, rows=1900, dim=8)))
    results = []
    for threads in (1, 2, 5):
        use_threads(threads)
        results.append(all_parts(mechanism, inputs, **options))
    for other in results[1:]:
        for got, expected in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.row("S4")
@by_rule
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 7.0])
def test_what_is_hidden_leaves_no_trace(mechanism, poison):
    inputs = mechanism.map_inputs(mechanism.draw(Sizes(rows=300, dim=8)))
    shown = np.ones((1, 300), bool)
    shown[:, 70:90] = shown[:, 290:] = False
    clean = all_parts(mechanism, inputs, key_mask=shown)
    inputs["key"][:, :, ~shown[0]] = poison
    for got, expected in zip(all_parts(mechanism, inputs, key_mask=shown), clean, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.row("S3")
@by_rule
def test_nan_is_where_its_rows_see_keys(mechanism):
    inputs = mechanism.map_inputs(mechanism.draw(Sizes(rows=300, dim=8)))
    inputs["key"][0, 0, 123] = np.nan
    seen = {"window": (20, 0)}  # rows 123 to 143 see the key, and keys 103 to 143
    mass = mechanism.segments(**inputs, query_edges=[0, 123, 144, 300], key_edges=[0, 103, 144, 300], **seen)
    np.testing.assert_array_equal(np.isnan(mass[0, 0]), np.arange(9).reshape(3, 3) == 4)
    shares = mechanism.distances(**inputs, edges=[0, 20, 21, 40], **seen)
    np.testing.assert_array_equal(np.isnan(shares[0, 0]), [True, True, False])
    top = mechanism.top_keys(**inputs, k=30, **seen)
    nan = np.isnan(top.weights[0, 0])
    np.testing.assert_array_equal(nan[123:144], np.broadcast_to(np.arange(30) < 21, (21, 30)))
    assert not nan[:123].any()
    assert not nan[144:].any()
    np.testing.assert_array_equal(top.positions[0, 0, 130], [*range(110, 131), *[-1] * 9])
    assert not any(np.isnan(a[0, 1]).any() for a in (mass, shares, top.weights))


@pytest.mark.row("S1")
@by_rule
def test_rows_that_see_nothing(mechanism):
    """They have no keys, and count in no mean."""
    shown = np.arange(40)[None] > 20
    inputs = mechanism.map_inputs(mechanism.draw(Sizes(rows=40)))
    top = mechanism.top_keys(**inputs, k=3, causal=True, key_mask=shown)
    assert (top.positions[:, :, :21] == -1).all()
    assert not top.weights[:, :, :21].any()
    np.testing.assert_array_equal(top.positions[:, :, 21], [[[21, -1, -1]] * 2])
    shares = mechanism.distances(**inputs, edges=[0, 40], causal=True, key_mask=shown)
    np.testing.assert_allclose(shares, 1, rtol=2e-6)
    nothing = {"key_mask": np.zeros((1, 40), bool)}
    assert not mechanism.distances(**inputs, edges=[0, 40], **nothing).any()
    assert not mechanism.segments(**inputs, query_edges=[0, 40], key_edges=[0, 9], **nothing).any()


def test_ties_go_to_the_smaller_key():
    query, key = np.zeros((2, 1, 1, 2000, 8), np.float32)
    top = ra.attention_top_keys(query, key, 5, rows=(1990, 2000))
    np.testing.assert_array_equal(top.positions, np.broadcast_to(np.arange(5), (1, 1, 10, 5)))
    key[..., 1500:, :] = query[...] = 1
    top = ra.attention_top_keys(query, key, 502, rows=(0, 1))
    np.testing.assert_array_equal(top.positions[0, 0, 0], [*range(1500, 2000), 0, 1])


@pytest.mark.parametrize("order", [1, -1])
def test_keys_that_grow_or_fall(order):
    """Every key is heavier than all before, or none is; the lightest round to a weight of 0."""
    key = (np.arange(3000, dtype=np.float32) * order).reshape(1, 1, 3000, 1)
    top = ra.attention_top_keys(np.ones((1, 1, 1, 1), np.float32), key, 300, scale=1.0)
    ranked = np.argsort(-key[0, 0, :, 0], kind="stable")
    nonzero = int((top.weights > 0).sum())
    assert 80 < nonzero < 110
    np.testing.assert_array_equal(top.positions[0, 0, 0, :nonzero], ranked[:nonzero])
    rest = [k for k in range(3000) if k not in set(ranked[:nonzero])][: 300 - nonzero]
    np.testing.assert_array_equal(top.positions[0, 0, 0, nonzero:], rest)


X = np.random.default_rng(0).standard_normal((1, 2, 5, 4)).astype(np.float32)
WRONG = [
    ("segments", {"query_edges": [0, 6]}, ValueError, r"query_edges .* from 0 to 5, got \[0, 6\]"),
    (
        "segments",
        {"query_edges": [0, 2, 2]},
        ValueError,
        "query_edges must be two or more increasing integers",
    ),
    ("segments", {"key_edges": [-1, 2]}, ValueError, "key_edges must be two or more increasing integers"),
    ("segments", {"key_edges": [3]}, ValueError, "key_edges must be two or more increasing integers"),
    ("segments", {"key_edges": []}, ValueError, "key_edges must be two or more increasing integers"),
    (
        "segments",
        {"key_edges": [0.0, 2.0]},
        TypeError,
        "key_edges must be an integer array, got dtype float64",
    ),
    ("segments", {"query_edges": [[0, 1]]}, ValueError, "query_edges must have 1 dimensions, got 2"),
    ("segments", {"query_edges": 3}, TypeError, "query_edges must be an array, got int"),
    ("top_keys", {"k": 0}, ValueError, "k must be >= 1, got 0"),
    ("top_keys", {"k": 2.0}, TypeError, r"k must be an integer, got 2\.0"),
    ("top_keys", {"k": 2**70}, ValueError, r"k must be at most 2\*\*40"),
    ("top_keys", {"k": 2**40}, MemoryError, None),
    ("top_keys", {"rows": (3, 9)}, ValueError, "rows must be .*<= 5"),
    ("top_keys", {"rows": 3}, TypeError, "rows must be a pair"),
    ("distances", {"edges": [4, 2]}, ValueError, "edges must be two or more increasing integers from 0 on"),
    ("distances", {"edges": [-4, 2]}, ValueError, "edges must be two or more increasing integers from 0 on"),
    ("distances", {"edges": [0, 2**80]}, TypeError, "edges must be an array of numbers"),
    *[
        (name, {"lse": np.zeros((1, 2, 4))}, ValueError, "lse must have shape")
        for name in ("segments", "top_keys", "distances")
    ],
    *[
        (name, {"causal": 1}, TypeError, "causal must be True or False")
        for name in ("segments", "top_keys", "distances")
    ],
    ("top_keys", {"colour": 1}, TypeError, "^got an unexpected keyword argument 'colour'$"),
]
NEEDED = {
    "segments": {"query_edges": [0, 5], "key_edges": [0, 5]},
    "top_keys": {},
    "distances": {"edges": [0, 5]},
}


@pytest.mark.parametrize("case", range(len(WRONG)))
def test_refused(case):
    name, arguments, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        getattr(ra, f"attention_{name}")(X, X, **NEEDED[name] | arguments)


@pytest.mark.row("H1")
@pytest.mark.parametrize("shape", [(0, 2, 5, 4), (1, 0, 5, 4)])
def test_nothing_to_look_at(shape):
    x = np.zeros(shape, np.float32)
    assert ra.attention_segments(x, x, [0, 2, 5], [1, 4]).shape == (*shape[:2], 2, 1)
    assert ra.attention_top_keys(x, x, 3).positions.shape == (*shape[:2], 5, 3)
    assert ra.attention_distances(x, x, [0, 1, 9]).shape == (*shape[:2], 2)


@pytest.mark.row("H1")
def test_no_keys():
    keys = np.zeros((1, 2, 0, 4), np.float32)
    assert (ra.attention_top_keys(X, keys, 3).positions == -1).all()
    assert not ra.attention_distances(X, keys, [0, 1, 9]).any()


@pytest.mark.row("Z5")
@by_rule
@pytest.mark.parametrize("call", ["segments", "top_keys", "distances"])
def test_peak_memory(mechanism, call):
    """Of a map of 32,768 x 32,768, which would take 4 GiB, in less than 20 MiB beyond inputs and result;
    a bin for every distance takes most."""
    code = PEAK.format(name=mechanism.name, call=call, rows=32_768, options={"causal": True})
    assert int(run_python(code)) < 20 * 2**20
