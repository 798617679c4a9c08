"""Rows H and M5, what is refused: the message names the argument, what came and what is allowed."""

from __future__ import annotations

import numpy as np
import pytest
import rattention as ra

from tests.mechanisms import (
    Sizes,
    assert_accurate,
    by_mechanism,
    by_rule,
    with_dot_products,
    with_whole_weights,
)


def array(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def inputs_of_shape(mechanism, query, key, value):
    return mechanism.complete({"query": array(*query), "key": array(*key), "value": array(*value)})


@pytest.mark.row("H4")
@pytest.mark.parametrize(("dim", "key_dim"), [(16, 17), (17, 16), (8, 1), (1, 8), (4, 0), (0, 4)])
@by_mechanism
def test_head_dims_that_differ(mechanism, dim, key_dim):
    inputs = inputs_of_shape(mechanism, (1, 2, 5, dim), (1, 2, 5, key_dim), (1, 2, 5, 3))
    message = "head_dim 0" if dim == 0 else rf"key has head_dim {key_dim}, query has {dim}"
    with pytest.raises(ValueError, match=message):
        mechanism.forward(**inputs)
    with pytest.raises(ValueError, match=message):
        mechanism.metrics(**mechanism.map_inputs(inputs))
    with pytest.raises(ValueError, match=message):
        mechanism.rows(**mechanism.map_inputs(inputs), rows=[0])
    with pytest.raises(ValueError, match=message):
        mechanism.pooled(**mechanism.map_inputs(inputs))


@pytest.mark.row("H4")
@by_mechanism
def test_a_head_dim_of_zero(mechanism):
    with pytest.raises(ValueError, match="query has head_dim 0"):
        mechanism.forward(**inputs_of_shape(mechanism, (1, 2, 5, 0), (1, 2, 5, 0), (1, 2, 5, 3)))


MISMATCHES = {
    "values too long": ((1, 2, 5, 4), (1, 2, 5, 4), (1, 2, 8, 4), "value has length 8, key has 5"),
    "values too short": ((1, 2, 5, 4), (1, 2, 8, 4), (1, 2, 5, 4), "value has length 5, key has 8"),
    "no values": ((1, 2, 5, 4), (1, 2, 5, 4), (1, 2, 0, 4), "value has length 0, key has 5"),
    "value heads": ((1, 4, 5, 4), (1, 2, 5, 4), (1, 4, 5, 4), "value has heads 4, key has 2"),
    "value batch": ((2, 2, 5, 4), (2, 2, 5, 4), (1, 2, 5, 4), "value has batch 1, key has 2"),
    "key batch": ((2, 2, 5, 4), (1, 2, 5, 4), (1, 2, 5, 4), "key has batch 1, query has 2"),
}


@pytest.mark.row("H6")
@pytest.mark.parametrize("case", MISMATCHES)
@by_mechanism
def test_lengths_that_differ(mechanism, case):
    *shapes, message = MISMATCHES[case]
    with pytest.raises(ValueError, match=message):
        mechanism.forward(**inputs_of_shape(mechanism, *shapes))


@pytest.mark.row("H8")
@pytest.mark.parametrize(("heads", "kv_heads"), [(8, 3), (2, 4), (5, 0), (0, 2)])
@by_mechanism
def test_heads_that_do_not_divide(mechanism, heads, kv_heads):
    key = (1, kv_heads, 5, 4)
    if heads == 0:  # 0 is a multiple of everything
        assert mechanism.forward(**inputs_of_shape(mechanism, (1, 0, 5, 4), key, key)).shape == (1, 0, 5, 4)
        return
    with pytest.raises(ValueError, match=f"key has {kv_heads} heads, query has {heads}"):
        mechanism.forward(**inputs_of_shape(mechanism, (1, heads, 5, 4), key, key))


@pytest.mark.row("H10")
@pytest.mark.parametrize("rank", [0, 1, 2, 3, 5, 6])
@pytest.mark.parametrize("name", ["query", "key", "value"])
@by_mechanism
def test_ranks(mechanism, name, rank):
    inputs = mechanism.draw(Sizes(rows=3))
    inputs[name] = array(*(2,) * rank)
    with pytest.raises(ValueError, match=f"{name} must have 4 dimensions, got {rank}"):
        mechanism.forward(**inputs)


OPTIONS = {
    "window a float": ({"window": 3.0}, TypeError, "window must be an integer"),
    "window True": ({"window": True}, TypeError, "window must be an integer"),
    "window -2": ({"window": -2}, ValueError, "window must be >= 0"),
    "window a string": ({"window": "3"}, TypeError, "window must be an integer"),
    "window of one": ({"window": (3,)}, ValueError, r"a pair \(left, right\)"),
    "window of three": ({"window": (1, 2, 3)}, ValueError, r"a pair \(left, right\)"),
    "window half negative": ({"window": (3, -1)}, ValueError, "window must be >= 0"),
    "window half a float": ({"window": (3, 0.5)}, TypeError, "window must be an integer"),
    "causal 1": ({"causal": 1}, TypeError, "causal must be True or False"),
    "causal None": ({"causal": None}, TypeError, "causal must be True or False"),
    "offset a float": ({"query_offset": 1.0}, TypeError, "query_offset must be an integer"),
    "offset too large": ({"query_offset": 2**63}, ValueError, "query_offset"),
    "offset too small": ({"query_offset": -(2**70)}, ValueError, "query_offset"),
    "metrics True": ({"metrics": True}, TypeError, "metrics must be a MetricOptions"),
    "discount per row": ({"log_discount": array(3)}, ValueError, "log_discount must be a number or one"),
    "discount of rank 2": ({"log_discount": array(1, 2)}, ValueError, "log_discount must have 1 dim"),
    "discount of other rows": (
        {"log_discount": -array(1, 2, 4)},
        ValueError,
        r"shape \(1, 2, 5\), one per query",
    ),
    "discount of more": ({"log_discount": array(1, 2, 5, 1)}, ValueError, "log_discount must have 1 dim"),
    "discount a string": ({"log_discount": "a"}, TypeError, "log_discount"),
    "an unknown option": ({"is_causal": True}, TypeError, "is_causal"),
}


@pytest.mark.row("H11")
@pytest.mark.parametrize("case", OPTIONS)
@by_mechanism
def test_options(mechanism, case):
    options, error, message = OPTIONS[case]
    with pytest.raises(error, match=message):
        mechanism.forward(**mechanism.draw(Sizes(rows=5)), **options)


@pytest.mark.row("H11")
@pytest.mark.parametrize("scale", ["1", True, np.ones(2)], ids=["a string", "True", "an array"])
@with_dot_products
def test_scales(mechanism, scale):
    with pytest.raises(TypeError, match="scale must be a number"):
        mechanism.forward(**mechanism.draw(Sizes(rows=5)), scale=scale)


@pytest.mark.row("H11")
@pytest.mark.parametrize("window", [2**31, 2**62, 2**63 - 1, 10**30, (2**63 - 1,) * 2, (None, 2**63)])
@pytest.mark.parametrize("causal", [False, True])
@by_mechanism
def test_huge_windows_hide_nothing(mechanism, causal, window):
    inputs = mechanism.draw(Sizes(rows=40))
    np.testing.assert_array_equal(
        mechanism.forward(**inputs, window=window, causal=causal), mechanism.forward(**inputs, causal=causal)
    )


@pytest.mark.row("H11")
@pytest.mark.parametrize("integer", [np.int8, np.int64, np.uint16])
@by_mechanism
def test_numpy_integers_are_integers(mechanism, integer):
    inputs = mechanism.draw(Sizes(rows=20, keys=30))
    for python, numpy in [
        ({"window": 5}, {"window": integer(5)}),
        ({"window": (5, 2)}, {"window": (integer(5), integer(2))}),
        ({"window": 100, "query_offset": 90}, {"window": integer(100), "query_offset": integer(90)}),
    ]:
        np.testing.assert_array_equal(
            mechanism.forward(**inputs, **numpy), mechanism.forward(**inputs, **python)
        )


MASKS = {
    "padding too short": ({"key_mask": array(2, 6, dtype=bool)}, ValueError, "key_mask"),
    "padding of one batch": ({"key_mask": array(1, 7, dtype=bool)}, ValueError, "key_mask"),
    "padding of rank 1": (
        {"key_mask": array(7, dtype=bool)},
        ValueError,
        "key_mask must have",
    ),
    "padding of floats": ({"key_mask": array(2, 7)}, TypeError, "key_mask must be"),
    "padding of ints": (
        {"key_mask": array(2, 7, dtype=int)},
        TypeError,
        "key_mask must be a",
    ),
    "padding a list": (
        {"key_mask": [[True] * 7] * 2},
        TypeError,
        "key_mask must be an array",
    ),
    "segments too long": ({"segment_ids": array(2, 8, dtype=int)}, ValueError, "segment_ids"),
    "segments of rank 1": ({"segment_ids": array(7, dtype=int)}, ValueError, "segment_ids must have 2"),
    "segments of floats": ({"segment_ids": array(2, 7)}, TypeError, "segment_ids must be an integer array"),
    "segments of bools": (
        {"segment_ids": array(2, 7, dtype=bool)},
        TypeError,
        "segment_ids must be",
    ),
    "rows without segment": (
        {"segment_ids": array(2, 7, dtype=int), "query_offset": 1},
        ValueError,
        "segment_ids covers key positions 0 to 6, but the query rows have positions 1 to 7",
    ),
    "mask of other keys": ({"attn_mask": array(7, 6, dtype=bool)}, ValueError, "attn_mask"),
    "mask of other rows": ({"attn_mask": array(6, 7)}, ValueError, "attn_mask"),
    "mask of other heads": ({"attn_mask": array(1, 2, 7, 7)}, ValueError, "attn_mask"),
    "mask of other batch": ({"attn_mask": array(3, 1, 7, 7)}, ValueError, "attn_mask"),
    "mask of rank 5": ({"attn_mask": array(1, 1, 1, 7, 7)}, ValueError, "attn_mask"),
    "mask of ints": ({"attn_mask": array(7, 7, dtype=int)}, TypeError, "attn_mask must be bool or one of"),
    "mask of float64": (
        {"attn_mask": array(7, 7, dtype=float)},
        TypeError,
        "attn_mask must be bool or one of",
    ),
    "mask a list": ({"attn_mask": [[True] * 7] * 7}, TypeError, "attn_mask must be an array"),
}


@pytest.mark.row("H13")
@pytest.mark.parametrize("case", MASKS)
@by_mechanism
def test_masks(mechanism, case):
    options, error, message = MASKS[case]
    inputs = mechanism.draw(Sizes(batch=2, heads=4, rows=7))
    with pytest.raises(error, match=message):
        mechanism.forward(**inputs, **options)
    with pytest.raises(error, match=message):
        mechanism.metrics(**mechanism.map_inputs(inputs), **options)
    with pytest.raises(error, match=message):
        mechanism.rows(**mechanism.map_inputs(inputs), rows=[0], **options)
    with pytest.raises(error, match=message):
        mechanism.pooled(**mechanism.map_inputs(inputs), **options)


ROWS = {
    "beyond the end": ([0, 7], ValueError, r"rows must lie in \[-7, 6\]"),
    "before the start": ([-8], ValueError, r"rows must lie in \[-7, 6\]"),
    "a float": ([0.7], TypeError, "rows must be an integer array"),
    "floats": (array(2), TypeError, "rows must be an integer array"),
    "bools": ([True, False], TypeError, "rows must be an integer array"),
    "a number": (3, TypeError, "rows must be an array"),
    "of rank 2": ([[0, 1]], ValueError, "rows must have 1 dimensions"),
    "huge": ([2**70], (TypeError, ValueError), "rows"),
}


@pytest.mark.row("H11")
@pytest.mark.parametrize("case", ROWS)
@by_rule
def test_rows(mechanism, case):
    rows, error, message = ROWS[case]
    with pytest.raises(error, match=message):
        mechanism.rows(**mechanism.map_inputs(mechanism.draw(Sizes(rows=7))), rows=rows)


@by_rule
def test_rows_of_no_rows(mechanism):
    inputs = mechanism.map_inputs(mechanism.draw(Sizes(rows=0)))
    with pytest.raises(ValueError, match="rows must be empty where query has no rows, got 0 to 0"):
        mechanism.rows(**inputs, rows=[0])


PARTS = {
    "a number": ({"shape": 256}, TypeError, "shape must be a pair of integers, got 256"),
    "three numbers": ({"shape": (1, 2, 3)}, ValueError, "shape must be a pair"),
    "floats": ({"shape": (1.0, 2.0)}, TypeError, "shape must be an integer, got 1.0"),
    "bools": ({"shape": (True, 2)}, TypeError, "shape must be an integer, got True"),
    "nothing": ({"shape": (0, 2)}, ValueError, r"shape must be at least \(1, 1\), got \(0, 2\)"),
    "less": ({"shape": (2, -1)}, ValueError, r"shape must be at least \(1, 1\)"),
    "a row": ({"rows": 3}, TypeError, "rows must be a pair of integers, got 3"),
    "no end": ({"rows": (2, None)}, TypeError, "rows must be an integer, got None"),
    "before the first": (
        {"rows": (-1, 3)},
        ValueError,
        r"rows must be \(start, stop\) with 0 <= start < stop <= 7",
    ),
    "after the last": ({"rows": (0, 8)}, ValueError, "start < stop <= 7, got"),
    "backwards": ({"keys": (5, 2)}, ValueError, r"keys must be .* start < stop <= 9, got \(5, 2\)"),
    "no keys": ({"keys": (5, 5)}, ValueError, r"keys must be .*got \(5, 5\)"),
    "a slice": ({"keys": slice(2, 5)}, TypeError, "keys must be a pair of integers"),
    "huge": ({"keys": (0, 2**70)}, ValueError, "keys must be"),
}


@pytest.mark.row("H11")
@pytest.mark.parametrize("case", PARTS)
@by_rule
def test_parts_of_a_map(mechanism, case):
    options, error, message = PARTS[case]
    with pytest.raises(error, match=message):
        mechanism.pooled(**mechanism.map_inputs(mechanism.draw(Sizes(rows=7, keys=9))), **options)


@pytest.mark.row("H11")
@pytest.mark.parametrize("name", ["local_radius", "long_range_distance"])
@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError), ("5", TypeError)]
)
@by_rule
def test_metric_distances(mechanism, name, value, error):
    with pytest.raises(error, match=name):
        ra.MetricOptions(**{name: value})


@pytest.mark.row("H11")
@pytest.mark.parametrize("distance", [10**6, 2**63 - 1, 2**63, 10**30])
@with_whole_weights
def test_huge_metric_distances(mechanism, distance):
    inputs = mechanism.map_inputs(mechanism.draw(Sizes(rows=60)))
    got = mechanism.metrics(
        **inputs, metrics=ra.MetricOptions(local_radius=distance, long_range_distance=distance)
    )
    np.testing.assert_allclose(got.local_concentration, 1, rtol=1e-6)
    assert not got.long_range.any()


FOREIGN = {
    "float64": lambda a: a.astype(np.float64),
    "longdouble": lambda a: a.astype(np.longdouble),
    "int32": lambda a: a.astype(np.int32),
    "int64": lambda a: a.astype(np.int64),
    "uint16, bfloat16's storage": lambda a: a.astype(np.uint16),
    "bool": lambda a: a > 0,
    "complex64": lambda a: a.astype(np.complex64),
    "object": lambda a: a.astype(object),
    "strings": lambda a: a.astype(str),
    "bytes": lambda a: a.tobytes(),
    "datetime64": lambda a: a.astype(np.int64).astype("datetime64[s]"),
    "a record": lambda a: a.view([("x", np.float32)]),
    "a list": lambda a: a.tolist(),
    "None": lambda a: None,
    "a string": lambda a: "query",
    "a number": lambda a: 1.0,
    "a dict": lambda a: {"a": a},
    "a ragged list": lambda a: [[1.0], [1.0, 2.0]],
}


@pytest.mark.row("M5")
@pytest.mark.parametrize("case", FOREIGN)
@pytest.mark.parametrize("name", ["query", "key", "value"])
@by_mechanism
def test_foreign_types(mechanism, name, case):
    inputs = mechanism.draw(Sizes(rows=5))
    inputs[name] = FOREIGN[case](inputs[name])
    with pytest.raises(TypeError, match=name):
        mechanism.forward(**inputs)


@pytest.mark.row("M5")
@by_mechanism
def test_precisions_do_not_mix(mechanism):
    inputs = mechanism.draw(Sizes(rows=5))
    inputs["key"] = inputs["key"].astype(np.float16)
    with pytest.raises(TypeError, match="query is float32, key is float16"):
        mechanism.forward(**inputs)


@pytest.mark.row("M5")
@pytest.mark.parametrize("dtype", [">f4", ">f2"])
@by_mechanism
def test_byte_swapped(mechanism, dtype):
    native = mechanism.draw(Sizes(rows=40), dtype="float16" if dtype == ">f2" else "float32")
    swapped = {name: a.astype(dtype) for name, a in native.items()}
    mask = np.random.default_rng(0).standard_normal((40, 40)).astype(dtype)
    got = mechanism.forward(**swapped, attn_mask=mask)
    assert got.dtype.isnative
    np.testing.assert_array_equal(got, mechanism.forward(**native, attn_mask=mask.astype(np.float32)))


@pytest.mark.row("M5")
@by_mechanism
def test_bfloat16_options(mechanism):
    """Options may be bfloat16 as well, and are numbers then, not their storage."""
    import ml_dtypes

    inputs = mechanism.draw(Sizes(rows=40))
    mask = np.random.default_rng(0).standard_normal((40, 40)).astype(ml_dtypes.bfloat16)
    discount = np.array([-0.5, -0.25], ml_dtypes.bfloat16)
    got = mechanism.forward(**inputs, attn_mask=mask, log_discount=discount)
    expected = mechanism.forward(
        **inputs, attn_mask=mask.astype(np.float32), log_discount=discount.astype(np.float32)
    )
    np.testing.assert_array_equal(got, expected)
    assert_accurate(mechanism, inputs, log_discount=-0.5)
