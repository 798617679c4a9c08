"""Rows H, what is right: empty and small sizes, head sizes, tile borders, shared heads, lengths and masks."""

from __future__ import annotations

import numpy as np
import pytest
import rattention as ra
from rattention._metrics import ROW_METRICS

from tests.mechanisms import (
    DTYPES,
    SCORE_RULES,
    Sizes,
    assert_accurate,
    by_mechanism,
    by_rule,
    repeat_heads,
    with_whole_weights,
)

EMPTY = {
    "no batch": Sizes(batch=0, rows=5),
    "no heads": Sizes(heads=0, rows=5),
    "no rows": Sizes(rows=0, keys=5),
    "no keys": Sizes(rows=5, keys=0),
    "no rows, no keys": Sizes(rows=0),
    "no value dim": Sizes(rows=5, value_dim=0),
}


@pytest.mark.row("H1")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", EMPTY.values(), ids=EMPTY)
@by_mechanism
def test_empty(mechanism, sizes, causal):
    inputs, s = mechanism.draw(sizes), sizes.filled()
    got = mechanism.forward(**inputs, causal=causal, return_lse=True, metrics=ra.MetricOptions())
    assert got.output.shape == (s.batch, s.heads, s.rows, s.value_dim)
    assert not got.output.any()
    assert got.lse.shape == (s.batch, s.heads, s.rows)
    assert s.keys or (got.lse == mechanism.sink).all()
    for name in ROW_METRICS:
        assert getattr(got.metrics, name).shape == got.lse.shape, name
    assert got.metrics.received.shape == (s.batch, s.heads, s.keys)
    of_map = mechanism.map_inputs(inputs)
    rows = mechanism.rows(**of_map, rows=range(s.rows), causal=causal)
    for weights in (rows, mechanism.pooled(**of_map, causal=causal)):
        assert weights.shape == (s.batch, s.heads, s.rows, s.keys)


@pytest.mark.row("H1")
@by_rule
def test_no_rows_asked_for(mechanism):
    inputs = mechanism.map_inputs(mechanism.draw(Sizes(rows=5)))
    assert mechanism.rows(**inputs, rows=[]).shape == (1, 2, 0, 5)
    assert mechanism.rows(**inputs, rows=np.zeros(0, np.int32)).shape == (1, 2, 0, 5)


@pytest.mark.row("H2")
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": 0}, {"log_discount": -1.0}], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@with_whole_weights
def test_one_key_gives_its_value(mechanism, dtype, options):
    """The first step of decoding, with nothing in the cache yet."""
    inputs = mechanism.draw(Sizes(batch=2, heads=4, kv_heads=2, rows=1, dim=20), dtype=dtype)
    got = mechanism.forward(**inputs, **options)
    np.testing.assert_array_equal(got, repeat_heads(inputs["value"], 4))


@pytest.mark.row("H2")
@pytest.mark.parametrize("dtype", DTYPES)
@with_whole_weights
def test_a_window_of_zero_gives_the_own_value(mechanism, dtype):
    inputs = mechanism.draw(Sizes(rows=70, dim=20), dtype=dtype)
    np.testing.assert_array_equal(mechanism.forward(**inputs, window=0), inputs["value"])


@pytest.mark.row("H3")
@pytest.mark.parametrize("dim", [1, 3, 7, 8, 17, 31, 33, 40, 80, 100, 127, 129, 256])
@pytest.mark.parametrize("causal", [False, True])
@by_rule
def test_head_dims(mechanism, causal, dim):
    inputs = mechanism.draw(Sizes(batch=2, rows=130, dim=dim), seed=dim)
    assert_accurate(mechanism, inputs, causal=causal)


@pytest.mark.row("H5")
@pytest.mark.parametrize(("dim", "value_dim"), [(16, 1), (1, 16), (33, 70), (64, 129), (128, 8)])
@pytest.mark.parametrize("dtype", DTYPES)
@by_rule
def test_value_dim_of_its_own(mechanism, dtype, dim, value_dim):
    inputs = mechanism.draw(Sizes(rows=90, dim=dim, value_dim=value_dim), dtype=dtype)
    assert_accurate(mechanism, inputs, causal=True)


TILE_ROWS, TILE_KEYS = 48, 512
"""The kernel's block of rows and tile of keys; the lengths below lie on both sides of their borders."""
LENGTHS = [TILE_ROWS - 1, TILE_ROWS, TILE_ROWS + 1, 97, 257]
LENGTHS += [
    TILE_KEYS - 1,
    TILE_KEYS,
    TILE_KEYS + 1,
    2 * TILE_KEYS - 1,
    2 * TILE_KEYS + 1,
]  # test_gravitational.py has its own of the last two


@pytest.mark.row("H7")
@pytest.mark.parametrize(
    ("mechanism", "length"),
    [(m, n) for m in SCORE_RULES for n in LENGTHS if n <= 513 or not m.has_masses],
    ids=lambda v: str(v) if isinstance(v, int) else v.name,
)
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": 64}], ids=str)
def test_lengths_around_the_tile(mechanism, options, length):
    inputs = mechanism.draw(Sizes(rows=length, dim=24), seed=length)
    assert_accurate(mechanism, inputs, **options)


@pytest.mark.row("H7")
@pytest.mark.parametrize("window", [1, 15, 47, 48, 511, 512, 513])
@by_rule
def test_windows_around_the_tile(mechanism, window):
    inputs = mechanism.draw(Sizes(heads=1, rows=600 if mechanism.has_masses else 1100, dim=8))
    assert_accurate(mechanism, inputs, causal=True, window=window)
    assert_accurate(mechanism, inputs, window=(window, 512 - window // 2))


@pytest.mark.row("H8")
@pytest.mark.parametrize(("heads", "kv_heads"), [(8, 8), (8, 4), (8, 2), (10, 2), (8, 1), (5, 1), (12, 3)])
@pytest.mark.parametrize("causal", [False, True])
@by_mechanism
def test_shared_key_and_value_heads(mechanism, causal, heads, kv_heads):
    """Query head h reads key/value head h // (heads // kv_heads): the same bits as with heads repeated."""
    inputs = mechanism.draw(Sizes(batch=2, heads=heads, kv_heads=kv_heads, rows=70, dim=12))
    shared = assert_accurate(mechanism, inputs, causal=causal)
    for name in {"key", "value", "key_mass"} & set(inputs):
        inputs[name] = repeat_heads(inputs[name], heads)
    np.testing.assert_array_equal(shared, mechanism.forward(**inputs, causal=causal))


@pytest.mark.row("H9")
@pytest.mark.parametrize(("rows", "keys"), [(2, 5), (5, 2), (1, 700), (700, 1), (100, 650), (650, 100)])
@by_mechanism
def test_different_lengths_align_at_the_end(mechanism, rows, keys):
    """Row i sees j <= i + keys - rows (flash-attention's README, from version 2.1 on)."""
    inputs = mechanism.draw(Sizes(rows=rows, keys=keys))
    weights = mechanism.map(inputs, causal=True)
    expected = np.tril(np.ones((rows, keys), bool), keys - rows)
    np.testing.assert_array_equal(weights > 0, np.broadcast_to(expected, weights.shape))
    assert_accurate(mechanism, inputs, causal=True)


@pytest.mark.row("H9")
@pytest.mark.parametrize("offset", [-700, -5, 0, 3, 40, 2**40])
@by_mechanism
def test_query_offset(mechanism, offset):
    inputs = mechanism.draw(Sizes(rows=30, keys=40))
    for options in ({"causal": True}, {"window": (20, 4)}, {"causal": True, "window": 2**60}):
        assert_accurate(mechanism, inputs, query_offset=offset, **options)


DENSE = {
    "bool": lambda mask: mask,
    "float": lambda mask: np.where(mask, np.float32(0.25), np.float32(-np.inf)),
}


@pytest.mark.row("H12")
@pytest.mark.parametrize("kind", DENSE)
@pytest.mark.parametrize(
    "options", [{"causal": True}, {"window": 9}, {"causal": True, "window": (5, 5)}], ids=str
)
@by_mechanism
def test_masks_given_together_are_joined(mechanism, kind, options):
    inputs = mechanism.draw(Sizes(rows=80))
    mask = np.random.default_rng(0).random((80, 80)) < 0.5
    assert_accurate(mechanism, inputs, attn_mask=DENSE[kind](mask), **options)
    weights = mechanism.map(inputs, attn_mask=DENSE[kind](mask), **options)
    assert not weights[..., ~mask].any()
    i, j = np.indices((80, 80))
    assert not weights[..., j > i + (0 if "causal" in options else 9)].any()


BROADCAST = [(50,), (1,), (30, 50), (30, 1), (4, 1, 1), (2, 1, 30, 50), (2, 4, 30, 50)]


@pytest.mark.row("H13")
@pytest.mark.parametrize("dtype", ["bool", *DTYPES])
@pytest.mark.parametrize(
    "shape", [(50,), (1,), (30, 50), (30, 1), (4, 1, 1), (2, 1, 30, 50), (2, 4, 30, 50)], ids=str
)
@by_mechanism
def test_dense_masks_broadcast(mechanism, shape, dtype):
    inputs = mechanism.draw(Sizes(batch=2, heads=4, kv_heads=2, rows=30, keys=50))
    mask = np.random.default_rng(1).standard_normal(shape, np.float32)
    mask = mask > -1 if dtype == "bool" else mask.astype(DTYPES[dtype])
    assert_accurate(mechanism, inputs, attn_mask=mask)


@pytest.mark.row("H13")
@pytest.mark.parametrize("layout", ["reversed", "transposed", "every other", "read-only"])
@pytest.mark.parametrize("dtype", ["bool", "float32"])
@by_mechanism
def test_masks_lie_anyhow_in_memory(mechanism, dtype, layout):
    inputs = mechanism.draw(Sizes(batch=2, rows=60))
    numbers = np.random.default_rng(2).standard_normal((2, 1, 60, 60), np.float32)
    mask = numbers > -0.5 if dtype == "bool" else numbers
    laid_out = {
        "reversed": lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1],
        "transposed": lambda a: np.ascontiguousarray(a.swapaxes(2, 3)).swapaxes(2, 3),
        "every other": lambda a: np.repeat(a, 2, axis=3)[..., ::2],
        "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    }[layout](mask)
    padding = mask[:, 0, 0, :] != 0
    np.testing.assert_array_equal(
        mechanism.forward(**inputs, attn_mask=laid_out, key_mask=laid_out[:, 0, 0, :] != 0),
        mechanism.forward(**inputs, attn_mask=mask, key_mask=padding),
    )


@pytest.mark.row("H13")
@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, ">i4"], ids=str)
@by_mechanism
def test_segment_ids_of_any_integer_type(mechanism, dtype):
    inputs = mechanism.draw(Sizes(batch=2, rows=60))
    ids = (np.arange(120).reshape(2, 60) // 13).astype(dtype)
    assert_accurate(mechanism, inputs, segment_ids=ids)
    assert_accurate(mechanism, inputs, segment_ids=ids[:, ::-1], causal=True)
