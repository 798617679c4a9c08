"""Rows S: rows that see nothing, NaN and infinity; a value reaches exactly the rows that attend to it."""

from __future__ import annotations

import numpy as np
import pytest
import rattention as ra
from rattention._metrics import ROW_METRICS
from rattention.mechanisms.masks import Masks, reference_visible

from tests.mechanisms import (
    DTYPES,
    Sizes,
    assert_accurate,
    by_mechanism,
    with_dot_products,
    with_unbounded_scores,
)

LENGTH = 40
SIZES = Sizes(batch=2, heads=2, kv_heads=1, rows=LENGTH, dim=8)


def hiding_masks(length: int = LENGTH) -> dict[str, dict[str, object]]:
    """One of each kind of mask; every row sees something, every key is hidden from some row or from none."""
    rng = np.random.default_rng(7)
    dense = rng.random((2, 1, length, length)) < 0.6
    dense |= np.eye(length, dtype=bool)
    padding = rng.random((2, length)) < 0.7
    padding[:, 0] = True
    return {
        "full": {},
        "causal": {"causal": True},
        "window": {"window": (7, 3)},
        "padding": {"key_mask": padding},
        "segments": {"segment_ids": np.arange(2 * length).reshape(2, length) // 9},
        "bool mask": {"attn_mask": dense},
        "float mask": {"attn_mask": np.where(dense, np.float32(0.5), np.float32(-np.inf))},
    }


def visible(options, sizes: Sizes = SIZES):
    s = sizes.filled()
    return reference_visible(Masks(**options), s.batch, s.heads, s.rows, s.keys)[0]


ALL_MASKS = hiding_masks()
HIDING = [name for name in ALL_MASKS if name != "full"]


def empty_row_cases(length: int):
    nothing = np.zeros((length, length), bool)
    upper = np.triu(np.ones((length, length), bool), 1)
    offset = {"window": 3, "query_offset": length + 3}
    return {
        "bool mask": ({"attn_mask": nothing}, 0),
        "float mask": ({"attn_mask": np.where(nothing, 0, -np.inf).astype(np.float32)}, 0),
        "padding": ({"key_mask": np.zeros((2, length), bool)}, 0),
        "causal and bool mask": ({"causal": True, "attn_mask": upper}, 0),
        "window and offset": (offset, 0),
        "causal before the first key": ({"causal": True, "query_offset": -3}, length - 3),
    }


@pytest.mark.row("S1")
@pytest.mark.parametrize("length", [5, 600])
@pytest.mark.parametrize("case", empty_row_cases(5))
@by_mechanism
def test_a_row_that_sees_nothing(mechanism, case, length):
    options, rows_that_see = empty_row_cases(length)[case]
    inputs = mechanism.draw(Sizes(batch=2, rows=length))
    inputs["value"][:] = np.nan if rows_that_see == 0 else 1
    got = mechanism.forward(**inputs, **options, return_lse=True, metrics=ra.MetricOptions())
    empty = slice(0, length - rows_that_see)
    assert not got.output[:, :, empty].any()
    assert (got.lse[:, :, empty] == mechanism.sink).all()
    assert np.isfinite(got.lse[:, :, length - rows_that_see :]).all()
    assert (got.metrics.max_position[:, :, empty] == -1).all()
    assert np.isnan(got.metrics.recent_distant_ratio[:, :, empty]).all()
    for name in set(ROW_METRICS) - {"max_position", "recent_distant_ratio", "retention"}:
        assert not getattr(got.metrics, name)[:, :, empty].any(), name
    assert np.isfinite(got.metrics.received).all()
    of_map = mechanism.map_inputs(inputs)
    assert not mechanism.rows(**of_map, rows=[0], **options).any()
    assert not mechanism.pooled(**of_map, rows=(empty.start, empty.stop), shape=(9, 7), **options).any()


@pytest.mark.row("S2")
@pytest.mark.parametrize("i", [0, 21])
@pytest.mark.parametrize("name", ["full", "causal", "window", "padding", "segments", "float mask"])
@by_mechanism
def test_nan_in_a_query_row_stays_there(mechanism, name, i):
    inputs = mechanism.draw(SIZES)
    options = ALL_MASKS[name]
    clean = mechanism.forward(**inputs, **options)
    inputs["query"][0, 1, i, 3] = np.nan
    got = mechanism.forward(**inputs, **options, return_lse=True, metrics=ra.MetricOptions())
    poisoned = np.zeros(clean.shape[:3], bool)
    poisoned[0, 1, i] = True
    np.testing.assert_array_equal(np.isnan(got.lse), poisoned)
    np.testing.assert_array_equal(np.isnan(got.output), np.broadcast_to(poisoned[..., None], clean.shape))
    np.testing.assert_allclose(got.output[~poisoned], clean[~poisoned], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(np.isnan(got.metrics.entropy), poisoned)
    received = np.zeros((2, 2, LENGTH), bool)
    received[0, 1] = visible(options)[0, 1, i]
    np.testing.assert_array_equal(np.isnan(got.metrics.received), received)
    of_map = mechanism.map_inputs(inputs)
    weights = mechanism.rows(**of_map, rows=[i], **options)[:, :, 0]
    np.testing.assert_array_equal(np.isnan(weights), received)
    bins = mechanism.pooled(**of_map, rows=(i - i % 7, i + 3), shape=(1, 10), **options)[:, :, 0]
    np.testing.assert_array_equal(np.isnan(bins), received.reshape(2, 2, 10, 4).any(axis=-1))


@pytest.mark.row("S3")
@pytest.mark.parametrize("name", ALL_MASKS)
@pytest.mark.parametrize("place", ["key", "value"])
@by_mechanism
def test_nan_reaches_exactly_the_rows_that_attend_to_it(mechanism, place, name):
    inputs = mechanism.draw(SIZES)
    options = ALL_MASKS[name]
    clean = mechanism.forward(**inputs, **options)
    inputs[place][1, 0, 13, 2] = np.nan
    got = mechanism.forward(**inputs, **options)
    columns = np.arange(8) == 2 if place == "value" else np.ones(8, bool)
    poisoned = (visible(options)[..., 13] & (np.arange(2) == 1)[:, None, None])[..., None] & columns
    assert poisoned.any()
    np.testing.assert_array_equal(np.isnan(got), poisoned)
    np.testing.assert_array_equal(got[~poisoned], clean[~poisoned])


@pytest.mark.row("S4")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", HIDING)
@by_mechanism
def test_what_is_hidden_leaves_no_trace(mechanism, name, poison, dtype):
    """Poison at the keys a row cannot see: not one bit of that row changes, of output, lse or metrics."""
    inputs = mechanism.draw(SIZES, dtype=dtype)
    options = ALL_MASKS[name]
    clean = mechanism.forward(**inputs, **options, return_lse=True, metrics=ra.MetricOptions(received=False))
    seen = visible(options)
    for j in (0, 4, 17, LENGTH - 1):
        dirty = {n: array.copy() for n, array in inputs.items()}
        for place in {"key", "value", "key_mass"} & set(dirty):
            dirty[place][:, :, j] = abs(poison) if place == "key_mass" else poison
        got = mechanism.forward(**dirty, **options, return_lse=True, metrics=ra.MetricOptions(received=False))
        blind = ~seen[..., j]
        np.testing.assert_array_equal(got.output[blind], clean.output[blind])
        np.testing.assert_array_equal(got.lse[blind], clean.lse[blind])
        for (metric, a), (_, b) in zip(got.metrics, clean.metrics, strict=True):
            np.testing.assert_array_equal(a[blind], b[blind], err_msg=metric)


@pytest.mark.row("S4")
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["before", "after"])
@by_mechanism
def test_poison_beyond_a_window_in_other_tiles(mechanism, side, poison):
    """All keys beyond the windows of the last rows (or the first) are poison: whole tiles and part of one."""
    inputs = mechanism.draw(Sizes(rows=1300, dim=8))
    rows = slice(1200, 1300) if side == "before" else slice(0, 100)
    hidden = slice(0, 1100) if side == "before" else slice(200, 1300)
    options = {"window": (100, 100)}
    clean = mechanism.forward(**inputs, **options)
    inputs["key"][:, :, hidden] = inputs["value"][:, :, hidden] = poison
    got = mechanism.forward(**inputs, **options)
    np.testing.assert_array_equal(got[:, :, rows], clean[:, :, rows])
    assert not np.isfinite(got[:, :, 600]).any()


@pytest.mark.row("S5")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("poison", [np.inf, -np.inf])
@pytest.mark.parametrize("place", ["query", "key", "value"])
@with_unbounded_scores
def test_infinity_as_in_ieee_arithmetic(mechanism, place, poison, causal):
    inputs = mechanism.draw(Sizes(rows=30, dim=4))
    inputs[place][0, 0, 11, 1] = poison
    got = mechanism.forward(**inputs, causal=causal)
    with np.errstate(invalid="ignore"):
        expected = mechanism.reference(**inputs, causal=causal).output
    assert not np.isfinite(expected).all() or place == "key" or mechanism.has_masses  # infinitely far: 0
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


@pytest.mark.row("S5")
@pytest.mark.parametrize("poison", [np.nan, np.inf])
@by_mechanism
def test_poison_in_a_float_mask(mechanism, poison):
    """+inf or NaN added to a score makes exactly that row NaN."""
    inputs = mechanism.draw(Sizes(rows=30))
    mask = np.zeros((30, 30), np.float32)
    mask[4, 9] = poison
    got = mechanism.forward(**inputs, attn_mask=mask)
    assert np.isnan(got[:, :, 4]).all()
    others = np.arange(30) != 4
    np.testing.assert_allclose(got[:, :, others], mechanism.exact(inputs)[:, :, others], rtol=0, atol=2e-6)


@pytest.mark.row("S6")
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("log_discount", np.nan),
        ("log_discount", -np.inf),
        ("log_discount", 0.1),
        ("log_discount", np.array([-0.1, np.nan], np.float32)),
        ("log_discount", -1e300),
        ("log_discount", np.full((1, 2, 9), np.nan, np.float32)),
        ("log_discount", np.full((1, 2, 9), 0.1, np.float32)),
    ],
)
@by_mechanism
def test_numbers_that_are_none(mechanism, option, value):
    with pytest.raises(ValueError, match=option):
        mechanism.forward(**mechanism.draw(Sizes()), **{option: value})


@pytest.mark.row("S6")
@pytest.mark.parametrize(
    "scale", [np.nan, np.inf, -np.inf, 10**400, 1e39], ids=["nan", "inf", "-inf", "1e400", "1e39"]
)
@with_dot_products
def test_scales_beyond_float32(mechanism, scale):
    with pytest.raises(ValueError, match="scale"):
        mechanism.forward(**mechanism.draw(Sizes()), scale=scale)


@pytest.mark.row("S6")
@with_dot_products
def test_scale_zero_is_the_mean_of_the_values(mechanism):
    inputs = mechanism.draw(Sizes(rows=50))
    mean = inputs["value"].mean(axis=2, keepdims=True)
    got = mechanism.forward(**inputs, scale=0)
    np.testing.assert_allclose(got, np.broadcast_to(mean, got.shape), rtol=0, atol=1e-6)


@pytest.mark.row("S6")
@pytest.mark.parametrize("scale", [-0.5, 3, np.float32(0.25), np.int64(2)], ids=repr)
@with_dot_products
def test_other_scales(mechanism, scale):
    assert_accurate(mechanism, mechanism.draw(Sizes(rows=50)), scale=scale)
