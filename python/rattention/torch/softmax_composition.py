"""The softmax family in plain PyTorch, for tensors that the kernels cannot read.

The same formula as the kernels', chunked over query rows; with a window only the keys in reach are scored.
A NaN that a causal or dense mask hides can reach other rows here, which in the kernels it cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

ROWS = 512
"""Query rows scored at once."""

Score = Callable[[slice, slice], Tensor]
"""Scores ``[batch, heads, rows, keys]`` of slices of query rows and keys."""


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float | None = None,
    softcap: float | None = None,
    **options: Any,
) -> list[Tensor]:
    """`rattention.attention`: output and lse."""
    q, k = (wide(tensor) for tensor in (query, key))
    factor = query.shape[3] ** -0.5 if scale is None else scale

    def score(rows: slice, keys: slice) -> Tensor:
        scores = per_kv_head(lambda a, b: a @ b.mT, q[:, :, rows] * factor, k[:, :, keys])
        return scores if softcap is None else softcap * torch.tanh(scores / softcap)

    return _weighted(score, query, key, value, **options)


def gravitational_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_mass: Tensor,
    key_mass: Tensor,
    *,
    gravity: Tensor,
    eps: float,
    exponent: Tensor | None,
    **masks: Any,
) -> list[Tensor]:
    """`rattention.gravitational_attention`: output and lse."""
    q, k, own, other = (wide(tensor) for tensor in (query, key, query_mass, key_mass))
    own = own * gravity[:, None]
    other = repeated(other, query.shape[1])

    def score(rows: slice, keys: slice) -> Tensor:
        distance = per_kv_head(_distance, q[:, :, rows], k[:, :, keys])
        return own[:, :, rows, None] * other[:, :, None, keys] / (_power(distance, exponent) + eps)

    return _weighted(score, query, key, value, **masks)


def wide(tensor: Tensor) -> Tensor:
    """At least in float32, in which all sums are done."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def repeated(tensor: Tensor, heads: int) -> Tensor:
    """Key/value heads as every query head sees them."""
    return tensor.repeat_interleave(heads // max(tensor.shape[1], 1), dim=1)


def per_kv_head(function: Callable[[Tensor, Tensor], Tensor], own: Tensor, other: Tensor) -> Tensor:
    """`function` of each key/value head's matrix and the rows of all query heads that read it."""
    batch, heads, rows, _ = own.shape
    kv_heads = other.shape[1]
    grouped = own.reshape(batch, kv_heads, heads // max(kv_heads, 1) * rows, own.shape[3])
    result = function(grouped, other)
    return result.reshape(batch, heads, rows, result.shape[-1])


def _power(distance: Tensor, exponent: Tensor | None) -> Tensor:
    """A distance of 0 has no gradient."""
    if exponent is None:
        return distance.square()
    apart = distance > 0
    return torch.where(apart, torch.where(apart, distance, 1.0) ** exponent[:, None, None], 0.0)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _weighted(
    score: Score,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    causal: bool = False,
    window: Sequence[int] | None = None,
    query_offset: int | None = None,
    key_mask: Tensor | None = None,
    block_ids: Tensor | None = None,
    sinks: Tensor | None = None,
    **others: Any,
) -> list[Tensor]:
    length, keys = query.shape[2], key.shape[2]
    offset = keys - length if query_offset is None else query_offset
    left, right = (-1, -1) if window is None else window
    right = 0 if causal else right
    values = wide(value)
    if key_mask is not None:  # 0 * NaN is NaN
        values = values.masked_fill(~key_mask[:, None, :, None], 0.0)
    outputs, denominators = [], []
    for start in range(0, max(length, 1), ROWS):
        rows = slice(start, min(start + ROWS, length))
        whole = block_ids is not None  # blocks may reach beyond the window
        first = max(0, rows.start + offset - left) if left >= 0 and not whole else 0
        last = min(keys, rows.stop + offset + right) if right >= 0 and not whole else keys
        seen = slice(min(first, keys), max(last, min(first, keys)))
        visible, bias = _visible(query, rows, seen, offset, left, right, key_mask, block_ids, **others)
        weights, lse = _softmax(score(rows, seen) + bias, visible, sinks)
        outputs.append(per_kv_head(torch.matmul, weights, values[:, :, seen]))
        denominators.append(lse)
    return [torch.cat(outputs, dim=2).to(query.dtype), torch.cat(denominators, dim=2).to(torch.float32)]


def _visible(
    query: Tensor,
    rows: slice,
    keys: slice,
    offset: int,
    left: int,
    right: int,
    key_mask: Tensor | None,
    block_ids: Tensor | None,
    *,
    segment_ids: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    attn_mask: Tensor | None = None,
    log_discount: Tensor | None = None,
    relative_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Which keys the rows may see, and what is added to their scores; both broadcast over batch and heads."""
    i = torch.arange(rows.start, rows.stop, device=query.device)[:, None] + offset
    j = torch.arange(keys.start, keys.stop, device=query.device)
    visible = torch.ones_like(i - j, dtype=torch.bool)[None, None]
    bias = query.new_zeros((1, 1, 1, 1), dtype=torch.float32)
    if left >= 0:
        visible = visible & (j >= i - left)
    if right >= 0:
        visible = visible & (j <= i + right)
    if block_ids is not None:
        visible = visible | _in_blocks(block_ids, i[:, 0], keys)[:, None]
    if key_mask is not None:
        visible = visible & key_mask[:, None, None, keys]
    if cu_seqlens is not None:
        positions = torch.arange(int(cu_seqlens[-1]), device=query.device)
        segment_ids = torch.bucketize(positions, cu_seqlens[1:], right=True)[None]
    if segment_ids is not None:
        own = segment_ids[:, rows.start + offset : rows.stop + offset]
        visible = visible & (own[:, :, None] == segment_ids[:, None, keys])[:, None]
    if attn_mask is not None:
        shape = (query.shape[0], query.shape[1], query.shape[2], attn_mask.shape[-1])
        dense = attn_mask.expand(shape)[:, :, rows, keys if attn_mask.shape[-1] != 1 else slice(None)]
        visible = visible & (dense if dense.dtype == torch.bool else dense != -torch.inf)
        if dense.dtype != torch.bool:
            bias = bias + wide(dense)
    if log_discount is not None:
        per_query = log_discount.dim() == 3
        slope = log_discount[:, :, rows, None] if per_query else log_discount[:, None, None]
        bias = bias + slope * (i - j).abs()
    if relative_bias is not None:
        reach = relative_bias.shape[1] // 2
        bias = bias + relative_bias[:, (j - i).clamp(-reach, reach) + reach]
    return visible, bias


def segment_runs(ids: Tensor) -> Tensor:
    """Runs of equal ids ``[batch, length]``, counted from 0: one ends where the id changes."""
    changes = torch.diff(ids, dim=1) != 0
    return torch.nn.functional.pad(changes, (min(ids.shape[1], 1), 0)).cumsum(dim=1)


def _in_blocks(ids: Tensor, positions: Tensor, keys: slice) -> Tensor:
    """``[batch, positions, keys]``: whether row and key lie in one run of equal ids >= 0."""
    runs = segment_runs(ids).masked_fill(ids < 0, -1)
    inside = (positions >= 0) & (positions < ids.shape[1])
    own = runs[:, positions.clamp(0, max(ids.shape[1] - 1, 0))].masked_fill(~inside, -1)
    return (own[:, :, None] == runs[:, None, keys]) & (own >= 0)[:, :, None]


def _softmax(scores: Tensor, visible: Tensor, sinks: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weights beside sinks and the log of their denominator; 0 and -inf where nothing is visible."""
    scores = scores.masked_fill(~visible, -torch.inf)
    sink = scores.new_full((1, 1, 1, 1), -torch.inf) if sinks is None else sinks[:, None, None]
    top = torch.cat((scores, sink.expand(*scores.shape[:3], 1)), dim=3).detach().amax(dim=3, keepdim=True)
    top = top.masked_fill(top == -torch.inf, 0.0)
    exponentials = (scores - top).exp()
    total = exponentials.sum(dim=3, keepdim=True) + (sink - top).exp()
    return exponentials / (total + (total == 0)), (total.log() + top)[..., 0]
