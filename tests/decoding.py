"""Inputs, caches and pieces of sequences for the tests of decoding."""

from __future__ import annotations

from typing import Any

import numpy as np
import rattention as ra
from numpy.typing import NDArray

from tests.mechanisms import DTYPES

Inputs = dict[str, NDArray[Any]]

LENGTH = 40
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rotary": {"rope_theta": 1e4},
    "relu": {"feature_map": "relu"},
}


def draw(
    length: int = LENGTH,
    *,
    batch: int = 1,
    heads: int = 4,
    kv_heads: int = 2,
    dim: int = 16,
    value_dim: int | None = None,
    dtype: str = "float32",
    seed: int = 0,
) -> Inputs:
    rng = np.random.default_rng(seed)
    shapes = {
        "query": (batch, heads, length, dim),
        "key": (batch, kv_heads, length, dim),
        "value": (batch, kv_heads, length, dim if value_dim is None else value_dim),
    }
    return {
        name: rng.standard_normal(shape, np.float32).astype(DTYPES[dtype]) for name, shape in shapes.items()
    }


def norm_weights(inputs: Inputs) -> Inputs:
    shape = (inputs["query"].shape[1], inputs["value"].shape[3])
    rng = np.random.default_rng(9)
    return {
        f"{name}_norm_weight": rng.uniform(0.5, 1.5, shape).astype(np.float32) for name in ("local", "linear")
    }


def cache_for(inputs: Inputs, window: int, **options: Any) -> ra.RAttentionCache:
    batch, kv_heads, _, dim = inputs["key"].shape
    return ra.RAttentionCache(
        batch,
        kv_heads,
        dim,
        window,
        value_dim=inputs["value"].shape[3],
        dtype=inputs["key"].dtype,
        **options,
    )


def part(inputs: Inputs, first: int, last: int) -> Inputs:
    return {name: array[:, :, first:last] for name, array in inputs.items()}


def decode(inputs: Inputs, cache: ra.RAttentionCache, cuts: list[int], **options: Any) -> NDArray[Any]:
    """The rows of all tokens, in pieces that end at `cuts` and at the last token."""
    length = inputs["key"].shape[2]
    ends = [*cuts, length]
    starts = [0, *cuts]
    rows = [
        ra.rattention_step(**part(inputs, first, last), cache=cache, **options)
        for first, last in zip(starts, ends, strict=True)
    ]
    return np.concatenate(rows, axis=2)


def largest_difference(got: NDArray[Any], wanted: NDArray[Any]) -> float:
    assert got.shape == wanted.shape
    return float(np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max(initial=0.0))


def state_of(cache: ra.RAttentionCache) -> NDArray[np.float32]:
    return cache._core.write()[3]


def filled(tokens: int = 25, window: int = 8, **options: Any) -> tuple[ra.RAttentionCache, Inputs]:
    """A cache that has seen some tokens, and the ones to come."""
    dtype = options.pop("dtype", "float32")
    inputs = draw(tokens + 20, batch=2, dim=6, value_dim=5, dtype=dtype)
    cache = cache_for(inputs, window, **options)
    decode(part(inputs, 0, tokens), cache, [])
    return cache, part(inputs, tokens, tokens + 20)


def next_rows(cache: ra.RAttentionCache, inputs: Inputs) -> NDArray[Any]:
    return decode(inputs, cache, [3, 4, 5])
