"""Soft-capped scores, sinks, biases by distance, blocks, packed sequences, gradients of masks: by what they
are short for, and what is refused. Accuracy and masks are in the tests that go through the table."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
import rattention as ra
from rattention.mechanisms.softmax import attention_backward, reference_attention

from tests.mechanisms import SOFTMAX, Sizes, by_rule

SIZES = Sizes(batch=2, heads=4, kv_heads=2, rows=70)


def draw(sizes=SIZES, **changes):
    return SOFTMAX.draw(sizes, **changes)


def test_a_sink_is_a_key_without_a_value():
    """Another key whose score is the sink's for every row, and whose value is 0."""
    inputs, sinks = draw(), np.array([0.0, -3.0, 5.0, 1.5], np.float32)
    got = ra.attention(**inputs, causal=True, sinks=sinks, return_lse=True, metrics=ra.MetricOptions())
    key, value = (np.pad(inputs[n], ((0, 0), (0, 0), (1, 0), (0, 0))) for n in ("key", "value"))
    mask = np.zeros((4, 70, 71), np.float32)
    mask[:, :, 0] = sinks[:, None]
    mask[:, np.triu(np.ones((70, 71), bool), 2)] = -np.inf
    wanted = ra.attention(inputs["query"], key, value, attn_mask=mask, return_lse=True)
    np.testing.assert_allclose(got.output, wanted.output, atol=1e-6)
    np.testing.assert_allclose(got.lse, wanted.lse, atol=1e-5)
    weights = ra.attention_rows(inputs["query"], inputs["key"], range(70), causal=True, sinks=sinks)
    beside = ra.attention_rows(inputs["query"], key, range(70), attn_mask=mask)
    np.testing.assert_allclose(weights, beside[..., 1:], atol=1e-6)
    np.testing.assert_allclose(got.metrics.max_weight, beside[..., 1:].max(axis=-1), rtol=1e-5)


def test_a_sink_far_above_all_scores_leaves_nothing():
    got = ra.attention(**draw(), sinks=300.0, return_lse=True, metrics=ra.MetricOptions())
    assert not got.output.any()
    np.testing.assert_array_equal(got.lse, np.float32(300))
    assert not got.metrics.entropy.any()


def test_a_relative_bias_is_that_of_its_table():
    inputs, reach = draw(), 9
    table = np.random.default_rng(3).standard_normal((4, 2 * reach + 1), np.float32)
    distance = np.arange(70) - np.arange(70)[:, None]
    dense = table[:, distance.clip(-reach, reach) + reach]
    np.testing.assert_allclose(
        ra.attention(**inputs, relative_bias=table), ra.attention(**inputs, attn_mask=dense), atol=1e-6
    )


@by_rule
@pytest.mark.parametrize("lengths", [(70,), (1, 69), (16, 48, 6), (0, 30, 0, 40)])
@pytest.mark.parametrize("options", [{}, {"causal": True, "window": 16}], ids=["full", "window"])
def test_packed_sequences_are_sequences_of_their_own(mechanism, lengths, options):
    """To the bit: what lies beside a sequence is not looked at."""
    inputs = mechanism.draw(Sizes(rows=70))
    starts = np.cumsum((0, *lengths))
    packed = mechanism.forward(**inputs, cu_seqlens=starts, **options)
    parts = [
        mechanism.forward(**{n: a[:, :, first:last] for n, a in inputs.items()}, **options)
        for first, last in pairwise(starts)
    ]
    np.testing.assert_allclose(packed, np.concatenate(parts, axis=2), atol=1e-6)
    ids = np.repeat(np.arange(len(lengths)), lengths)[None]
    np.testing.assert_array_equal(packed, mechanism.forward(**inputs, segment_ids=ids, **options))


def test_packed_sequences_cost_no_more_than_themselves():
    """Keys of other sequences are not scored: 64 sequences take far less than one of their length."""
    inputs = draw(Sizes(rows=8192, heads=1, dim=64))
    times = {}
    for name, starts in (("one", [0, 8192]), ("many", range(0, 8193, 128))):
        for _ in range(3):
            begin = time.perf_counter()
            ra.attention(**inputs, cu_seqlens=np.array(starts))
            took = time.perf_counter() - begin
            times[name] = min(times.get(name, np.inf), took)
    assert times["many"] < times["one"] / 4, times


@by_rule
def test_blocks_see_both_sides(mechanism):
    inputs = mechanism.draw(Sizes(batch=2, rows=40))
    ids = np.full((2, 40), -1)
    ids[0, 5:12], ids[0, 12:15], ids[1, 30:] = 0, 1, 0
    got = mechanism.forward(**inputs, causal=True, window=3, block_ids=ids)
    i, j = np.ogrid[:40, :40]
    mask = np.broadcast_to((j <= i) & (j >= i - 3), (2, 1, 40, 40)).copy()
    mask[0, 0, 5:12, 5:12] = mask[0, 0, 12:15, 12:15] = mask[1, 0, 30:, 30:] = True
    np.testing.assert_allclose(got, mechanism.forward(**inputs, attn_mask=mask), atol=1e-6)


@pytest.mark.parametrize("shape", [(70, 70), (4, 1, 70), (2, 1, 70, 70), (1,), ()])
def test_the_gradient_of_a_mask_is_that_of_its_numbers(shape):
    """Along a random direction, by the law's differences in float64."""
    rng = np.random.default_rng(4)
    inputs, mask = draw(), rng.standard_normal(shape).astype(np.float32)
    grad = rng.standard_normal(inputs["query"].shape).astype(np.float32)
    result = ra.attention(**inputs, attn_mask=mask, causal=True, return_lse=True)
    gradients = attention_backward(grad, **inputs, result=result, attn_mask=mask, causal=True, of_mask=True)
    assert gradients["attn_mask"].shape == shape
    direction, step = rng.standard_normal(shape), 1e-5

    def value(sign):
        law = reference_attention(**inputs, attn_mask=mask + sign * step * direction, causal=True)
        return float((law.output * grad).sum())

    expected = (value(1) - value(-1)) / (2 * step)
    assert float((gradients["attn_mask"] * direction).sum()) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_a_hidden_pair_of_a_mask_has_no_gradient():
    inputs, mask = draw(), np.zeros((70, 70), np.float32)
    mask[:, 7] = -np.inf
    result = ra.attention(**inputs, attn_mask=mask, causal=True, return_lse=True)
    gradient = attention_backward(
        np.ones_like(inputs["query"]), **inputs, result=result, attn_mask=mask, causal=True, of_mask=True
    )["attn_mask"]
    assert not gradient[np.triu(np.ones((70, 70), bool), 1)].any()
    assert not gradient[:, 7].any()
    assert gradient[np.tril(np.ones((70, 70), bool))].any()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"softcap": 0.0}, ValueError, "softcap must be > 0, got 0.0"),
        ({"softcap": -1}, ValueError, "softcap must be > 0"),
        ({"softcap": np.nan}, ValueError, "softcap must be finite"),
        ({"softcap": "50"}, TypeError, "softcap must be a number"),
        ({"sinks": np.zeros(3, np.float32)}, ValueError, "sinks must be a number or one per head"),
        ({"sinks": np.inf}, ValueError, "sinks must be finite"),
        ({"sinks": np.zeros(4, np.int64)}, TypeError, "sinks has dtype int64"),
        ({"relative_bias": np.zeros((4, 8), np.float32)}, ValueError, "relative_bias must have shape"),
        ({"relative_bias": np.zeros((3, 7), np.float32)}, ValueError, "relative_bias must have shape"),
        ({"relative_bias": np.zeros(7, np.float32)}, ValueError, "relative_bias must have 2 dimensions"),
        ({"relative_bias": np.full((4, 7), np.nan, np.float32)}, ValueError, "relative_bias must be finite"),
        ({"block_ids": np.zeros((2, 69), np.int64)}, ValueError, "block_ids must have shape"),
        ({"block_ids": np.zeros((2, 70))}, TypeError, "block_ids must be an integer array"),
        ({"cu_seqlens": np.array([0, 70])}, ValueError, "batch of 1, got batch 2"),
        ({"cu_seqlens": [0, 70]}, TypeError, "cu_seqlens must be an array"),
    ],
)
def test_what_is_refused(options, error, words):
    with pytest.raises(error, match=words):
        ra.attention(**draw(), **options)


@pytest.mark.parametrize(
    "starts", [[0], [], [1, 70], [0, 69], [0, 40, 30, 70], [0, 71], [-1, 70], [0, 2**62, 70]]
)
def test_packed_sequences_that_are_none(starts):
    with pytest.raises(ValueError, match=r"cu_seqlens must rise from 0 to the number of keys \(70\)"):
        ra.attention(**draw(Sizes(rows=70)), cu_seqlens=np.array(starts, np.int64))


def test_segments_are_said_once():
    with pytest.raises(ValueError, match="give one of them"):
        ra.attention(
            **draw(Sizes(rows=70)), cu_seqlens=np.array([0, 70]), segment_ids=np.zeros((1, 70), np.int64)
        )


def test_gravity_has_no_terms_of_dot_products():
    inputs = draw()
    masses = {f"{n}_mass": np.ones(inputs[n].shape[:3], np.float32) for n in ("query", "key")}
    with pytest.raises(TypeError, match="softcap"):
        ra.gravitational_attention(**inputs, **masses, softcap=1.0)
