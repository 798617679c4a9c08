"""Softmax attention: ``out_i = sum_j softmax_j(scale * q_i . k_j + bias_ij) v_j`` over the visible keys.

With ``window=w`` it is sliding-window attention, the local branch of RAttention (arXiv 2506.15545, section 2, whose sum runs
over the w + 1 tokens ``t - w ... t``); work and memory are then O(n w). With ``log_discount`` a weight decays with distance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rattention import _core
from rattention._arguments import (
    bool_array,
    float_array,
    integer_array,
    mask_array,
    real_number,
    same_dtype,
    whole_number,
)
from rattention.mechanisms.masks import Masks, Window, query_positions, reference_visible, window_bounds
from rattention.metrics import AttentionMetrics, MetricOptions, reference_metrics

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

UNLIMITED = -1
"""How the core is told that a window has no end on one side."""

MAX_OFFSET = 2**40
"""Far beyond any sequence, and small enough that positions cannot overflow."""


class AttentionResult(NamedTuple):
    """What `attention` returns when more than the output is asked for."""

    output: NDArray[Any]
    """``[batch, heads, query_length, value_dim]``, in the dtype of the inputs."""
    lse: NDArray[np.float32] | None
    """Natural logarithm of the softmax's denominator, ``[batch, heads, query_length]``; -inf for empty rows."""
    metrics: AttentionMetrics | None
    """One number per query row for every metric asked for."""


def attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    causal: bool = False,
    window: Window = None,
    scale: float | None = None,
    key_padding_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    attn_mask: ArrayLike | None = None,
    log_discount: ArrayLike | float | None = None,
    query_offset: int | None = None,
    return_lse: bool = False,
    metrics: MetricOptions | None = None,
) -> NDArray[Any] | AttentionResult:
    """Exact softmax attention, in tiles: nothing of size ``query_length x key_length`` is ever stored.

    Parameters
    ----------
    query:
        ``[batch, heads, query_length, head_dim]``, float32, bfloat16 or float16, any strides.
    key, value:
        ``[batch, kv_heads, key_length, head_dim]`` and ``[batch, kv_heads, key_length, value_dim]``. ``kv_heads`` must divide
        ``heads``; query head h reads key/value head ``h // (heads // kv_heads)``.
    causal:
        Row i sees no key after its own position.
    window:
        An int w or a pair (left, right): row i sees ``i - left <= j <= i + right``. An int means (w, 0) under causal, that is
        w + 1 keys, and (w, w) otherwise. Hugging Face's ``sliding_window=W`` is ``window=W - 1``.
    scale:
        Factor on the scores, ``1 / sqrt(head_dim)`` by default.
    key_padding_mask:
        Bool ``[batch, key_length]``, True = attend.
    segment_ids:
        Integers ``[batch, key_length]``: rows attend within equal ids. A query row has the id of its position.
    attn_mask:
        Bool (True = attend) or floating (added to the scores), broadcastable to ``[batch, heads, query_length, key_length]``.
    log_discount:
        ``ln gamma <= 0``, a number or one per head: adds ``log_discount * |i - j|`` to the scores.
    query_offset:
        Position of the first query row among the keys; ``key_length - query_length`` by default.
    return_lse:
        Also return the log of the softmax's denominator.
    metrics:
        Also measure every row, in the same pass.

    Returns
    -------
    The output ``[batch, heads, query_length, value_dim]``, or an `AttentionResult` when `return_lse` or `metrics` is given.
    A row that may attend to nothing gives 0.

    Raises
    ------
    ValueError
        Shapes or values that do not fit; the message names the argument.
    TypeError
        A dtype other than the three above, or objects that are no arrays.
    """
    queries, keys = _query_and_key(query, key)
    values = float_array("value", value, 4)
    same_dtype(query=queries, key=keys, value=values)
    _require_options(metrics)
    masks = Masks(causal, window, key_padding_mask, segment_ids, attn_mask, query_offset)
    output, lse, measured = _core.attention(
        queries,
        keys,
        values,
        _core_options(queries, keys, masks, scale, log_discount),
        metrics=metrics,
        return_lse=bool(return_lse),
    )
    if output.dtype == np.uint16:
        output = output.view(np.asarray(query).dtype)
    if metrics is None and not return_lse:
        return output
    return AttentionResult(output, lse, AttentionMetrics(**measured) if measured else None)


def attention_metrics(
    query: ArrayLike,
    key: ArrayLike,
    *,
    causal: bool = False,
    window: Window = None,
    scale: float | None = None,
    key_padding_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    attn_mask: ArrayLike | None = None,
    log_discount: ArrayLike | float | None = None,
    query_offset: int | None = None,
    metrics: MetricOptions | None = None,
) -> AttentionMetrics:
    """Metrics of the attention maps of `query` and `key`, without values and without the maps. Options as in `attention`."""
    queries, keys = _query_and_key(query, key)
    options = MetricOptions() if metrics is None else metrics
    _require_options(options)
    masks = Masks(causal, window, key_padding_mask, segment_ids, attn_mask, query_offset)
    measured = _core.attention_metrics(queries, keys, _core_options(queries, keys, masks, scale, log_discount), options)
    return AttentionMetrics(**measured)


def attention_rows(
    query: ArrayLike,
    key: ArrayLike,
    rows: ArrayLike,
    *,
    causal: bool = False,
    window: Window = None,
    scale: float | None = None,
    key_padding_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    attn_mask: ArrayLike | None = None,
    log_discount: ArrayLike | float | None = None,
    query_offset: int | None = None,
) -> NDArray[np.float32]:
    """The weights of a few query rows, ``[batch, heads, len(rows), key_length]``: work and memory are O(rows * key_length).

    `rows` are indices of query rows, negative ones counting from the end. Options as in `attention`.
    """
    queries, keys = _query_and_key(query, key)
    indices = _row_indices(rows, queries.shape[2])
    masks = Masks(causal, window, key_padding_mask, segment_ids, attn_mask, query_offset)
    return _core.attention_rows(queries, keys, indices, _core_options(queries, keys, masks, scale, log_discount))


def reference_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    scale: float | None = None,
    log_discount: ArrayLike | float | None = None,
    metrics: MetricOptions | None = None,
    **masks: Any,
) -> AttentionResult:
    """`attention` by its definition, in float64, with the whole map in memory: the law the kernels are held to."""
    q, k, v = (np.asarray(a).astype(np.float64) for a in (query, key, value))
    weights, visible, lse = reference_weights(q, k, scale=scale, log_discount=log_discount, **masks)
    v = np.repeat(v, q.shape[1] // k.shape[1], axis=1)
    output = np.zeros((*q.shape[:3], v.shape[3]))
    for b, h, i in np.ndindex(*q.shape[:3]):  # a hidden value must not leak, whatever it is: 0 * NaN would
        seen = visible[b, h, i]
        output[b, h, i] = weights[b, h, i, seen] @ v[b, h, seen]
    positions = query_positions(Masks(**masks), q.shape[2], k.shape[2])
    measured = reference_metrics(weights, visible, positions, metrics) if metrics else None
    return AttentionResult(output, lse, measured)  # type: ignore[arg-type]


def reference_weights(
    query: NDArray[np.float64],
    key: NDArray[np.float64],
    *,
    scale: float | None = None,
    log_discount: ArrayLike | float | None = None,
    **masks: Any,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """The attention map in float64, which keys are visible, and the log of the denominator."""
    batch, heads, rows, dim = query.shape
    key = np.repeat(key, heads // key.shape[1], axis=1)
    options = Masks(**masks)
    visible, bias = reference_visible(options, batch, heads, rows, key.shape[2])
    scores = np.einsum("bhid,bhjd->bhij", query, key) * (dim**-0.5 if scale is None else scale) + bias
    if log_discount is not None:
        distance = np.abs(query_positions(options, rows, key.shape[2])[:, None] - np.arange(key.shape[2]))
        scores = scores + np.broadcast_to(np.asarray(log_discount, np.float64), heads)[:, None, None] * distance
    scores = np.where(visible, scores, -np.inf)
    top = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    exponentials = np.exp(scores - np.where(np.isneginf(top), 0.0, top))
    total = exponentials.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = (np.log(total) + top)[..., 0]
    weights = np.where(visible, exponentials / np.where(total == 0, 1.0, total), 0.0)
    return weights, visible, lse


def _query_and_key(query: ArrayLike, key: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    queries, keys = float_array("query", query, 4), float_array("key", key, 4)
    same_dtype(query=queries, key=keys)
    return queries, keys


def _require_options(options: MetricOptions | None) -> None:
    if options is not None and not isinstance(options, MetricOptions):
        raise TypeError(f"metrics must be a MetricOptions or None, got {type(options).__name__}")


def _core_options(
    query: NDArray[Any], key: NDArray[Any], masks: Masks, scale: float | None, log_discount: ArrayLike | float | None
) -> _core.ScoreOptions:
    """Masks and numbers in the form the core takes; the core checks the shapes."""
    if not isinstance(masks.causal, bool | np.bool_):
        raise TypeError(f"causal must be True or False, got {masks.causal!r}")
    left, right = (_core_reach(reach) for reach in window_bounds(masks.window, bool(masks.causal)))
    default_offset = key.shape[2] - query.shape[2]
    return _core.ScoreOptions(
        left=left,
        right=right,
        query_offset=default_offset if masks.query_offset is None else _query_offset(masks.query_offset),
        scale=max(query.shape[3], 1) ** -0.5 if scale is None else real_number("scale", scale),
        key_padding_mask=_optional(bool_array, "key_padding_mask", masks.key_padding_mask, 2),
        segment_ids=_optional(integer_array, "segment_ids", masks.segment_ids, 2),
        attn_mask=None if masks.attn_mask is None else mask_array("attn_mask", masks.attn_mask),
        log_discount=None if log_discount is None else _log_discount(log_discount, query.shape[1]),
    )


def _core_reach(reach: int | None) -> int:
    """A reach in the core's terms; anything beyond 2**62 is as good as unlimited and cannot overflow there."""
    return UNLIMITED if reach is None else min(reach, 2**62)


def _query_offset(value: int) -> int:
    offset = whole_number("query_offset", value)
    if abs(offset) > MAX_OFFSET:
        raise ValueError(f"query_offset must lie within +-2**40, got {offset}")
    return offset


def _optional(check: Any, name: str, value: Any, rank: int) -> Any:
    return None if value is None else check(name, value, rank)


def _log_discount(value: ArrayLike | float, heads: int) -> NDArray[np.float32]:
    if isinstance(value, int | float | np.floating) and not isinstance(value, bool):
        numbers = np.full(heads, real_number("log_discount", value), np.float32)
    else:
        float_array("log_discount", value, 1)
        numbers = np.ascontiguousarray(value, np.float32)
    if numbers.shape != (heads,):
        raise ValueError(f"log_discount must be a number or one per head ({heads}), got shape {numbers.shape}")
    if not (np.isfinite(numbers) & (numbers <= 0)).all():
        raise ValueError(f"log_discount must be finite and <= 0 (ln of a discount in (0, 1]), got {value!r}")
    return numbers


def _row_indices(rows: ArrayLike, length: int) -> NDArray[np.int64]:
    if isinstance(rows, list | tuple | range):
        rows = np.asarray(rows, None if rows else np.int64)
    indices = integer_array("rows", rows, 1)
    if indices.size and (indices.min() < -length or indices.max() >= length):
        raise ValueError(f"rows must lie in [{-length}, {length - 1}], got {indices.min()} to {indices.max()}")
    return np.where(indices < 0, indices + length, indices)
