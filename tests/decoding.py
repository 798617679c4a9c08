"""Inputs, caches and pieces of sequences for the tests of decoding."""

from __future__ import annotations

from typing import Any

import numpy as np
import rattention as ra
from numpy.typing import NDArray
from rattention.mechanisms.rattention import reference_rms_norm
from rattention.mechanisms.residual_linear import reference_features
from rattention.mechanisms.rotary import reference_rotary

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


def reference_rattention_steps(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    *,
    window: int,
    scale: float | None = None,
    rope_theta: float | None = None,
    feature_map: str = "softmax",
    local_norm_weight: NDArray[Any] | None = None,
    linear_norm_weight: NDArray[Any] | None = None,
    eps: float = 1e-8,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """RAttention as the recurrence it is, token by token in float64: outputs, and for each query head the
    state that the last row reads."""
    q, k, v = (np.asarray(a).astype(np.float64) for a in (query, key, value))
    k, v = (np.repeat(a, q.shape[1] // a.shape[1], axis=1) for a in (k, v))
    scored_q, scored_k = (reference_rotary(x, rope_theta) for x in (q, k))
    phi_q, phi_k = (reference_features(x, feature_map) for x in (q, k))
    factor = q.shape[3] ** -0.5 if scale is None else scale
    state = np.zeros((*q.shape[:2], 2 * q.shape[3], v.shape[3]))
    near, far = np.zeros((2, *q.shape[:3], v.shape[3]))
    for t in range(q.shape[2]):
        left = t - window - 1
        if left >= 0:
            state += np.einsum("bhf,bhv->bhfv", phi_k[:, :, left], v[:, :, left])
        seen = slice(max(0, left + 1), t + 1)
        scores = factor * np.einsum("bhd,bhjd->bhj", scored_q[:, :, t], scored_k[:, :, seen])
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        near[:, :, t] = np.einsum("bhj,bhjv->bhv", weights, v[:, :, seen])
        far[:, :, t] = np.einsum("bhf,bhfv->bhv", phi_q[:, :, t], state)
    return (
        reference_rms_norm(near, local_norm_weight, eps) + reference_rms_norm(far, linear_norm_weight, eps),
        state,
    )


def filled(tokens: int = 25, window: int = 8, **options: Any) -> tuple[ra.RAttentionCache, Inputs]:
    """A cache that has seen some tokens, and the ones to come."""
    dtype = options.pop("dtype", "float32")
    inputs = draw(tokens + 20, batch=2, dim=6, value_dim=5, dtype=dtype)
    cache = cache_for(inputs, window, **options)
    decode(part(inputs, 0, tokens), cache, [])
    return cache, part(inputs, tokens, tokens + 20)


def next_rows(cache: ra.RAttentionCache, inputs: Inputs) -> NDArray[Any]:
    return decode(inputs, cache, [3, 4, 5])
