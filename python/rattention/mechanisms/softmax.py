"""Softmax attention: ``out_i = sum_j softmax_j(scale * q_i . k_j + bias_ij) v_j`` over the visible keys.

With ``window=w`` it is sliding-window attention, the local branch of RAttention (arXiv 2506.15545, section
2, whose sum runs over the w + 1 tokens ``t - w ... t``); work and memory are then O(n w). With
``log_discount`` a weight decays with distance: one number per head is ALiBi, arXiv 2108.12409.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rattention._arguments import positive
from rattention.mechanisms.masks import Masks, masks_of, query_positions
from rattention.mechanisms.options import SoftmaxCall, Typed, shows_options_of
from rattention.mechanisms.softmax_family import (
    bias_table,
    core_options,
    per_head,
    query_and_key,
    reference_result,
    run_backward,
    run_forward,
    run_metrics,
    scale_of,
    softmax_over_visible,
)

if TYPE_CHECKING:
    from rattention import _core
    from rattention._metrics import AttentionMetrics, MetricOptions
    from rattention.mechanisms.masks import Window
    from rattention.mechanisms.options import SoftmaxOptions
    from rattention.mechanisms.results import AttentionResult


@Typed[SoftmaxCall[ArrayLike, NDArray[Any]]]()
def attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    causal: bool = False,
    window: Window = None,
    scale: float | None = None,
    key_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    attn_mask: ArrayLike | None = None,
    log_discount: ArrayLike | float | None = None,
    query_offset: int | None = None,
    softcap: float | None = None,
    sinks: ArrayLike | float | None = None,
    relative_bias: ArrayLike | None = None,
    block_ids: ArrayLike | None = None,
    cu_seqlens: ArrayLike | None = None,
    return_lse: bool = False,
    metrics: MetricOptions | None = None,
) -> NDArray[Any] | AttentionResult:
    """Exact softmax attention, in tiles: nothing of size ``query_length x key_length`` is ever stored.

    Parameters
    ----------
    query:
        ``[batch, heads, query_length, head_dim]``, float32, bfloat16 or float16, any strides.
    key, value:
        ``[batch, kv_heads, key_length, head_dim]`` and ``[batch, kv_heads, key_length, value_dim]``.
        ``kv_heads`` must divide ``heads``; query head h reads key/value head ``h // (heads // kv_heads)``.
    causal:
        Row i sees no key after its own position.
    window:
        An int w or a pair (left, right): row i sees ``i - left <= j <= i + right``. An int means (w, 0)
        under causal, that is w + 1 keys, and (w, w) otherwise. None is unlimited, on either side of a pair;
        flash-attn writes -1 for that. Hugging Face's ``sliding_window=W`` is ``window=W - 1``.
    scale:
        Factor on the scores, ``1 / sqrt(head_dim)`` by default.
    key_mask:
        Bool ``[batch, key_length]``, True = attend.
    segment_ids:
        Integers ``[batch, key_length]``: rows attend within equal ids. A query row has the id of its
        position.
    attn_mask:
        Bool (True = attend) or floating (added to the scores), broadcastable to ``[batch, heads,
        query_length, key_length]``.
    log_discount:
        ``ln gamma <= 0``, a number, one per head, or one per query ``[batch, heads, query_length]``: adds
        ``log_discount_i * |i - j|`` to the scores of row i. One per head is ALiBi (arXiv 2108.12409), with
        ``log_discount = -slopes``.
    query_offset:
        Position of the first query row among the keys; ``key_length - query_length`` by default.
    softcap:
        c > 0: scores become ``c * tanh(score / c)`` before anything is added to them (Gemma 2, arXiv
        2408.00118).
    sinks:
        A number, or one per head: the score of one more key, which every row sees and whose value is 0, as in
        gpt-oss (arXiv 2508.10925). The weights of a row's keys then sum to less than one, and so they do in
        metrics, rows and maps.
    relative_bias:
        ``[heads, 2 * reach + 1]``: entry ``reach + d`` is added to the scores of keys at distance ``d = j -
        i``, the first and the last one to those farther away. It is the position bias of T5 (arXiv
        1910.10683) without its n x n table.
    block_ids:
        Integers ``[batch, key_length]``: neighbouring positions with the same id >= 0 form a block, whose
        rows see the whole block, whatever `causal` and `window` hide; -1 is no block. Used for images in
        Gemma 3 and for bidirectional prefixes.
    cu_seqlens:
        Integers ``[sequences + 1]``, from 0 to `key_length`, for a batch of 1: where each packed sequence
        begins, and where the last ends. Rows attend within their own sequence, as with `segment_ids`.
    return_lse:
        Also return the log of the softmax's denominator.
    metrics:
        Also measure every row, in the same pass. A float32 output stays bit-identical; the last bits of a
        bfloat16 output may change on AMX, which multiplies differently.

    Returns
    -------
    The output ``[batch, heads, query_length, value_dim]``, or an `AttentionResult` when `return_lse` or
    `metrics` is given. A row that may attend to nothing gives 0.

    Raises
    ------
    ValueError
        Shapes or values that do not fit; the message names the argument.
    TypeError
        A dtype other than the three above, or objects that are no arrays.
    """
    masks = causal, window, key_mask, segment_ids, attn_mask, query_offset, block_ids, cu_seqlens
    queries, keys, rule = scores(query, key, scale, log_discount, softcap, sinks, relative_bias, *masks)
    return run_forward(queries, keys, value, rule, metrics, return_lse, dtype=np.asarray(query).dtype)


def attention_backward(
    grad_output: ArrayLike,
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    result: AttentionResult,
    *,
    grad_lse: ArrayLike | None = None,
    of_mask: bool = False,
    **options: Unpack[SoftmaxOptions[ArrayLike]],
) -> dict[str, NDArray[np.float32]]:
    """Gradients of ``sum(output * grad_output)``, plus ``sum(lse * grad_lse)`` where that is given, by name,
    float32: query, key, value and, where given, log_discount, sinks and relative_bias; with `of_mask` also
    that of a float attn_mask, for which memory is O(query_length x key_length).

    `result` is what `attention` returned for the same arguments with ``return_lse=True``. Weights are
    recomputed from its lse, tile by tile: nothing of size ``query_length x key_length`` is stored, and tiles
    outside a window are skipped.
    """
    queries, keys, rule = scores(query, key, **options)
    return run_backward(grad_output, queries, keys, value, result, rule, grad_lse, options, of_mask)


@shows_options_of(attention)
def attention_metrics(
    query: ArrayLike,
    key: ArrayLike,
    *,
    metrics: MetricOptions | None = None,
    **options: Unpack[SoftmaxOptions[ArrayLike]],
) -> AttentionMetrics:
    """Metrics of the attention maps of `query` and `key`, without values and without storing the maps.

    Parameters
    ----------
    query, key:
        As in `attention`, and so are the options that hide, scale and discount.
    metrics:
        Distances, and whether to measure `received`; ``MetricOptions()`` by default.

    Returns
    -------
    `AttentionMetrics`, float32 arrays ``[batch, heads, query_length]``. Memory is O(query_length).

    Raises
    ------
    ValueError, TypeError
        As `attention`.
    """
    return run_metrics(*scores(query, key, **options), metrics)


def scores(
    query: ArrayLike,
    key: ArrayLike,
    scale: float | None = None,
    log_discount: ArrayLike | float | None = None,
    softcap: float | None = None,
    sinks: ArrayLike | float | None = None,
    relative_bias: ArrayLike | None = None,
    *masks: Any,
    **more_masks: Any,
) -> tuple[NDArray[Any], NDArray[Any], _core.ScoreOptions]:
    """Queries and keys as arrays, and what makes scores of them; masks are the fields of `Masks`."""
    queries, keys = query_and_key(query, key)
    hidden = masks_of(*masks, **more_masks)
    rule: dict[str, Any] = {"scale": scale_of(scale, queries)}  # every argument of the core takes its time
    if softcap is not None:
        rule["softcap"] = positive("softcap", softcap)
    if sinks is not None:
        rule["sinks"] = per_head("sinks", sinks, queries.shape[1])
    if relative_bias is not None:
        rule["relative_bias"] = bias_table(relative_bias, queries.shape[1])
    return queries, keys, core_options(queries, keys, hidden, log_discount, **rule)


def reference_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    metrics: MetricOptions | None = None,
    **options: Unpack[SoftmaxOptions[ArrayLike]],
) -> AttentionResult:
    """`attention` by its definition, in float64, with the whole map in memory, which tests hold the kernels
    to."""
    q, k = (np.asarray(a).astype(np.float64) for a in (query, key))
    return reference_result(*reference_weights(q, k, **options), value, options.get("query_offset"), metrics)


def reference_weights(
    query: NDArray[np.float64],
    key: NDArray[np.float64],
    *,
    scale: float | None = None,
    log_discount: ArrayLike | float | None = None,
    softcap: float | None = None,
    sinks: ArrayLike | float | None = None,
    relative_bias: ArrayLike | None = None,
    **masks: Any,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """The attention map in float64, which keys are visible, and the log of the denominator."""
    key = np.repeat(key, query.shape[1] // key.shape[1], axis=1)
    scores = np.einsum("bhid,bhjd->bhij", query, key) * (query.shape[3] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
    if relative_bias is not None:
        table = np.asarray(relative_bias).astype(np.float64)
        rows, keys = scores.shape[2:]
        distance = np.arange(keys) - query_positions(Masks(**masks), rows, keys)[:, None]
        reach = table.shape[1] // 2
        scores = scores + table[:, distance.clip(-reach, reach) + reach]
    return softmax_over_visible(scores, log_discount, Masks(**masks), sinks)
