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
