"""Gravitational attention: softmax over ``G * mq_i * mk_j / (|q_i - k_j|^2 + eps)``, or another power of the
distance, nearer and heavier keys weighing more.

With ``log_discount`` it is the combined mechanism: gravity whose weights decay with distance in time as
``gamma^|i - j|``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rattention import _core
from rattention._arguments import brief, float_array, positive, same_dtype
from rattention.mechanisms.map_calls import run_distances, run_map, run_rows, run_segments, run_top_keys
from rattention.mechanisms.masks import Masks, masks_of
from rattention.mechanisms.options import GravityCall, Typed, shows_options_of
from rattention.mechanisms.pooled_map import MAP_SHAPE, TOP_COUNT
from rattention.mechanisms.softmax_family import (
    core_options,
    per_head,
    query_and_key,
    reference_result,
    run_backward,
    run_forward,
    run_metrics,
    softmax_over_visible,
)

if TYPE_CHECKING:
    from rattention._metrics import AttentionMetrics, MetricOptions
    from rattention.mechanisms.masks import Window
    from rattention.mechanisms.options import GravityOptions
    from rattention.mechanisms.results import AttentionResult, TopKeys
    from rattention.mechanisms.softmax_family import KnownLse


@Typed[GravityCall[ArrayLike, NDArray[Any]]]()
def gravitational_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    query_mass: ArrayLike,
    key_mass: ArrayLike,
    *,
    gravity: ArrayLike | float = 1.0,
    eps: float = 1e-3,
    exponent: ArrayLike | float | None = None,
    causal: bool = False,
    window: Window = None,
    key_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    attn_mask: ArrayLike | None = None,
    log_discount: ArrayLike | float | None = None,
    query_offset: int | None = None,
    block_ids: ArrayLike | None = None,
    cu_seqlens: ArrayLike | None = None,
    return_lse: bool = False,
    metrics: MetricOptions | None = None,
) -> NDArray[Any] | AttentionResult:
    """Gravitational attention, in tiles. Masks, discount, metrics, errors and what is returned are those of
    `attention`.

    Parameters
    ----------
    query, key, value:
        As in `attention`; distances are Euclidean, by default squared, and summed from differences, so near
        keys lose no digits.
    query_mass:
        ``[batch, heads, query_length]``, >= 0, in the dtype of the query.
    key_mass:
        ``[batch, heads, key_length]`` or ``[batch, kv_heads, key_length]``, >= 0.
    gravity:
        The factor G, a number or one per head.
    eps:
        Added to the power of the distance; > 0.
    exponent:
        Power of the distance ``|q_i - k_j|``, > 0, a number or one per head: 1 is the Euclidean distance,
        None means 2, the squared distance, which is fastest. A pair of equal query and key adds nothing to
        the gradients of vectors and exponent; below exponent 1, gradients grow without bound as the distance
        nears 0. Distances below 1e-19 count as 0. For ``1 - cos(q_i, k_j)``, pass vectors of length
        ``sqrt(1/2)``, whose squared distance it is.
    """
    masks = causal, window, key_mask, segment_ids, attn_mask, query_offset, block_ids, cu_seqlens
    queries, keys, rule = _scores(
        query, key, query_mass, key_mass, gravity, eps, exponent, log_discount, *masks
    )
    return run_forward(queries, keys, value, rule, metrics, return_lse, dtype=np.asarray(query).dtype)


def gravitational_attention_backward(
    grad_output: ArrayLike,
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    query_mass: ArrayLike,
    key_mass: ArrayLike,
    result: AttentionResult,
    *,
    grad_lse: ArrayLike | None = None,
    of_mask: bool = False,
    **options: Unpack[GravityOptions[ArrayLike]],
) -> dict[str, NDArray[np.float32]]:
    """Gradients as in `attention_backward`, those of query_mass, key_mass and gravity (``[heads]``), and that
    of exponent (``[heads]``) where it was given."""
    queries, keys, rule = _scores(query, key, query_mass, key_mass, **options)
    return run_backward(grad_output, queries, keys, value, result, rule, grad_lse, options, of_mask)


@shows_options_of(gravitational_attention)
def gravitational_metrics(
    query: ArrayLike,
    key: ArrayLike,
    query_mass: ArrayLike,
    key_mass: ArrayLike,
    *,
    metrics: MetricOptions | None = None,
    **options: Unpack[GravityOptions[ArrayLike]],
) -> AttentionMetrics:
    """`attention_metrics` of gravitational scores. Options as in `gravitational_attention`."""
    return run_metrics(*_scores(query, key, query_mass, key_mass, **options), metrics)


@shows_options_of(gravitational_attention)
def gravitational_rows(
    query: ArrayLike,
    key: ArrayLike,
    query_mass: ArrayLike,
    key_mass: ArrayLike,
    rows: ArrayLike,
    *,
    lse: KnownLse = None,
    **options: Unpack[GravityOptions[ArrayLike]],
) -> NDArray[np.float32]:
    """`attention_rows` of gravitational scores. Options as in `gravitational_attention`."""
    return run_rows(_scores(query, key, query_mass, key_mass, **options), rows, lse)


@shows_options_of(gravitational_attention)
def gravitational_map(
    query: ArrayLike,
    key: ArrayLike,
    query_mass: ArrayLike,
    key_mass: ArrayLike,
    *,
    shape: tuple[int, int] = MAP_SHAPE,
    rows: tuple[int, int] | None = None,
    keys: tuple[int, int] | None = None,
    lse: KnownLse = None,
    **options: Unpack[GravityOptions[ArrayLike]],
) -> NDArray[np.float32]:
    """`attention_map` of gravitational scores. Options as in `gravitational_attention`."""
    return run_map(_scores(query, key, query_mass, key_mass, **options), shape, rows, keys, lse)


@shows_options_of(gravitational_attention)
def gravitational_segments(
    query: ArrayLike,
    key: ArrayLike,
    query_mass: ArrayLike,
    key_mass: ArrayLike,
    query_edges: ArrayLike,
    key_edges: ArrayLike,
    *,
    lse: KnownLse = None,
    **options: Unpack[GravityOptions[ArrayLike]],
) -> NDArray[np.float32]:
    """`attention_segments` of gravitational scores. Options as in `gravitational_attention`."""
    return run_segments(_scores(query, key, query_mass, key_mass, **options), query_edges, key_edges, lse)


@shows_options_of(gravitational_attention)
def gravitational_top_keys(
    query: ArrayLike,
    key: ArrayLike,
    query_mass: ArrayLike,
    key_mass: ArrayLike,
    k: int = TOP_COUNT,
    *,
    rows: tuple[int, int] | None = None,
    lse: KnownLse = None,
    **options: Unpack[GravityOptions[ArrayLike]],
) -> TopKeys[NDArray[Any]]:
    """`attention_top_keys` of gravitational scores. Options as in `gravitational_attention`."""
    return run_top_keys(_scores(query, key, query_mass, key_mass, **options), k, rows, lse)


@shows_options_of(gravitational_attention)
def gravitational_distances(
    query: ArrayLike,
    key: ArrayLike,
    query_mass: ArrayLike,
    key_mass: ArrayLike,
    edges: ArrayLike,
    *,
    lse: KnownLse = None,
    **options: Unpack[GravityOptions[ArrayLike]],
) -> NDArray[np.float32]:
    """`attention_distances` of gravitational scores. Options as in `gravitational_attention`."""
    return run_distances(_scores(query, key, query_mass, key_mass, **options), edges, lse)


def reference_gravitational_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    query_mass: ArrayLike,
    key_mass: ArrayLike,
    *,
    metrics: MetricOptions | None = None,
    **options: Unpack[GravityOptions[ArrayLike]],
) -> AttentionResult:
    """`gravitational_attention` by its definition, in float64, with the whole map in memory."""
    q, k, mq, mk = (np.asarray(a).astype(np.float64) for a in (query, key, query_mass, key_mass))
    weights = reference_gravitational_weights(q, k, mq, mk, **options)
    return reference_result(*weights, value, options.get("query_offset"), metrics)


def reference_gravitational_weights(
    query: NDArray[np.float64],
    key: NDArray[np.float64],
    query_mass: NDArray[np.float64],
    key_mass: NDArray[np.float64],
    *,
    gravity: ArrayLike | float = 1.0,
    eps: float = 1e-3,
    exponent: ArrayLike | float | None = None,
    log_discount: ArrayLike | float | None = None,
    **masks: Any,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """The attention map in float64, which keys are visible, and the log of the denominator."""
    heads = query.shape[1]
    key = np.repeat(key, heads // key.shape[1], axis=1)
    key_mass = np.repeat(key_mass, heads // key_mass.shape[1], axis=1)
    distance = np.stack([((query[:, :, i, None] - key) ** 2).sum(-1) for i in range(query.shape[2])], axis=2)
    power = np.broadcast_to(np.asarray(2.0 if exponent is None else exponent, np.float64), heads)
    distance **= power[:, None, None] / 2
    strength = np.broadcast_to(np.asarray(gravity, np.float64), heads)[:, None, None]
    scores = strength * query_mass[..., None] * key_mass[:, :, None] / (distance + eps)
    return softmax_over_visible(scores, log_discount, Masks(**masks))


def _scores(
    query: ArrayLike,
    key: ArrayLike,
    query_mass: ArrayLike,
    key_mass: ArrayLike,
    gravity: ArrayLike | float = 1.0,
    eps: float = 1e-3,
    exponent: ArrayLike | float | None = None,
    log_discount: ArrayLike | float | None = None,
    *masks: Any,
    **more_masks: Any,
) -> tuple[NDArray[Any], NDArray[Any], _core.ScoreOptions]:
    """Queries and keys as arrays, and what makes scores of them; masks are the fields of `Masks`."""
    queries, keys = query_and_key(query, key)
    own, other = (_mass(name, m) for name, m in (("query_mass", query_mass), ("key_mass", key_mass)))
    same_dtype(query=queries, query_mass=own, key_mass=other)
    power = None if exponent is None else per_head("exponent", exponent, queries.shape[1])
    if power is not None and not (power > 0).all():
        raise ValueError(f"exponent must be > 0, got {brief(exponent)}")
    rule = core_options(
        queries,
        keys,
        masks_of(*masks, **more_masks),
        log_discount,
        scale=1.0,
        query_mass=own,
        key_mass=other,
        gravity=per_head("gravity", gravity, queries.shape[1]),
        eps=positive("eps", eps),
        exponent=power,
    )
    return queries, keys, rule


def _mass(name: str, value: ArrayLike) -> NDArray[Any]:
    mass = float_array(name, value, 3)
    # bfloat16 below 0 has the bits from those of -2^-133 to those of -inf: -0 and NaN lie outside.
    with np.errstate(invalid="ignore"):  # a mask may hide NaN
        negative = (mass > 0x8000) & (mass <= 0xFF80) if mass.dtype == np.uint16 else mass < 0
    if negative.any():
        raise ValueError(f"{name} must be >= 0, {np.count_nonzero(negative)} of its elements are not")
    return mass
