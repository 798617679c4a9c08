"""One query row, as in generation: heads that share keys are scored together, and no bit depends on it."""

from __future__ import annotations

import numpy as np
import pytest
import rattention as ra
from rattention.mechanisms.softmax import reference_attention

from tests.mechanisms import DTYPES

SHAPES = {
    "grouped": (16, 4, 64, 64),
    "odd": (8, 1, 20, 13),
    "threes": (6, 2, 64, 32),
    "alone": (3, 3, 64, 64),
}
OPTIONS = {
    "everything": {},
    "window": {"window": 100},
    "later key": {"query_offset": 300},
    "lse": {"return_lse": True},
}


def draw(shape, dtype, keys):
    heads, kv_heads, dim, value_dim = SHAPES[shape]
    rng = np.random.default_rng(0)
    shapes = ((2, heads, 1, dim), (2, kv_heads, keys, dim), (2, kv_heads, keys, value_dim))
    return [rng.standard_normal(s, dtype=np.float32).astype(DTYPES[dtype]) for s in shapes]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_heads_together_are_heads_alone(shape, dtype, padded, options, use_threads):
    query, key, value = draw(shape, dtype, 1100)
    chosen = {"causal": True, **OPTIONS[options]}
    if padded:
        chosen["key_mask"] = np.arange(1100) >= np.array([[0], [250]])
    group = query.shape[1] // key.shape[1]

    def outputs(*arrays):
        result = ra.attention(*arrays, **chosen)
        return [result.output, result.lse] if options == "lse" else [result]

    alone = [
        outputs(query[:, h : h + 1], *(x[:, h // group : h // group + 1] for x in (key, value)))
        for h in range(query.shape[1])
    ]
    expected = [np.concatenate(parts, axis=1) for parts in zip(*alone, strict=True)]
    for threads in (1, 3, 32):
        use_threads(threads)
        for got, wanted in zip(outputs(query, key, value), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)
    if dtype == "float32":
        law = reference_attention(query, key, value, **{n: v for n, v in chosen.items() if n != "return_lse"})
        np.testing.assert_allclose(expected[0], law.output, rtol=1e-4, atol=1e-5)


def of_cache(rng, dtype, heads, keys, dim):
    """Rows in the middle of a buffer that has room for others, not at an address of whole vectors."""
    room = rng.standard_normal((1, heads, keys + 7, dim + 3), dtype=np.float32).astype(DTYPES[dtype])
    return room[:, :, 2 : 2 + keys, 3:]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dims", [(16, 16), (64, 64), (80, 48), (128, 20)])
@pytest.mark.parametrize("keys", [1, 15, 16, 17, 63, 64, 65, 1023, 1024, 1025])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 8])
def test_few_rows_at_sizes_of_vectors_and_tiles(dtype, dims, keys, rows):
    rng = np.random.default_rng(keys)
    query = of_cache(rng, dtype, rows, 1, dims[0])
    key, value = (of_cache(rng, dtype, 1, keys, dim) for dim in dims)
    law = reference_attention(query, key, value).output
    tolerance = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2}[dtype]
    np.testing.assert_allclose(np.asarray(ra.attention(query, key, value), np.float64), law, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("keys", [17, 64, 1025])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_few_rows_take_nothing_from_hidden_keys(dtype, keys, wrong):
    rng = np.random.default_rng(keys)
    query, key, value = (of_cache(rng, dtype, h, n, 32) for h, n in ((8, 1), (2, keys), (2, keys)))
    shown = rng.random((1, keys)) < 0.5
    shown[0, 0] = True
    expected = ra.attention(query, key, value, key_mask=shown)
    key[:, :, ~shown[0]] = wrong
    value[:, :, ~shown[0]] = wrong
    np.testing.assert_array_equal(ra.attention(query, key, value, key_mask=shown), expected)
    value[0, 1, 0, 5] = wrong
    spoilt = np.asarray(ra.attention(query, key, value, key_mask=shown), np.float64)
    assert np.isfinite(np.delete(spoilt[0, 4:], 5, axis=2)).all()
    np.testing.assert_array_equal(spoilt[0, 4:, 0, 5], np.full(4, wrong))
    np.testing.assert_array_equal(spoilt[0, :4], np.asarray(expected, np.float64)[0, :4])
