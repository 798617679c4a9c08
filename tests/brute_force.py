"""Attention and its metrics in plain Python, one number at a time: a judge of the reference itself.

Nothing here is shared with the package: definitions are read off the documentation, not off the code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass
class Row:
    """One query row: the visible keys in order, their weights, the log of the denominator and the output."""

    position: int
    keys: list[int]
    weights: list[float]
    lse: float
    output: list[float]


def brute_row(inputs: dict[str, Any], b: int, h: int, i: int, options: dict[str, Any]) -> Row:
    query, key, value = inputs["query"], inputs["key"], inputs["value"]
    group = query.shape[1] // key.shape[1]
    length, dim = key.shape[2], query.shape[3]
    offset = options.get("query_offset")
    position = i + (length - query.shape[2] if offset is None else offset)
    keys = [j for j in range(length) if _sees(b, h, i, position, j, options)]
    scores = []
    for j in keys:
        dot = math.fsum(float(query[b, h, i, c]) * float(key[b, h // group, j, c]) for c in range(dim))
        scores.append(dot * _scale(dim, options) + _bias(b, h, i, position, j, options))
    if not keys:
        return Row(position, [], [], -math.inf, [0.0] * value.shape[3])
    denominator = math.fsum(math.exp(score) for score in scores)
    weights = [math.exp(score) / denominator for score in scores]
    output = [
        math.fsum(p * float(value[b, h // group, j, c]) for p, j in zip(weights, keys, strict=True))
        for c in range(value.shape[3])
    ]
    return Row(position, keys, weights, math.log(denominator), output)


def _scale(dim: int, options: dict[str, Any]) -> float:
    scale = options.get("scale")
    return 1 / math.sqrt(dim) if scale is None else scale


def _sees(b: int, h: int, i: int, position: int, j: int, options: dict[str, Any]) -> bool:
    window, causal = options.get("window"), options.get("causal", False)
    left, right = window if isinstance(window, tuple) else (window, window)
    if left is not None and j < position - left:
        return False
    if right is not None and j > position + right:
        return False
    if causal and j > position:
        return False
    padding, segments, dense = (options.get(n) for n in ("key_mask", "segment_ids", "attn_mask"))
    if padding is not None and not padding[b, j]:
        return False
    if segments is not None and segments[b, position] != segments[b, j]:
        return False
    return dense is None or _dense(dense, b, h, i, j) not in (False, -math.inf)


def _dense(mask: Any, b: int, h: int, i: int, j: int) -> Any:
    index = [n if size > 1 else 0 for n, size in zip((b, h, i, j)[-mask.ndim :], mask.shape, strict=True)]
    return mask.dtype.type(mask[tuple(index)]).item()


def _bias(b: int, h: int, i: int, position: int, j: int, options: dict[str, Any]) -> float:
    bias = 0.0
    discount, dense = options.get("log_discount"), options.get("attn_mask")
    if discount is not None:
        bias += float(discount if isinstance(discount, float) else discount[h]) * abs(position - j)
    if dense is not None and dense.dtype != bool:
        bias += _dense(dense, b, h, i, j)
    return bias


def brute_metrics(row: Row, local_radius: int, long_range_distance: int) -> dict[str, float]:
    p = dict(zip(row.keys, row.weights, strict=True))
    far = [j for j in row.keys if abs(row.position - j) > long_range_distance]
    context = [j for j in row.keys if j != row.position]
    mean = math.fsum(p[j] for j in context) / len(context) if context else 0.0
    variance = math.fsum((p[j] - mean) ** 2 for j in context) / len(context) if context else 0.0
    metrics = {
        "entropy": -math.fsum(w * math.log(w) for w in row.weights if w > 0),
        "local_concentration": math.fsum(p[j] for j in row.keys if abs(row.position - j) <= local_radius),
        "long_range": math.fsum(p[j] for j in far),
        "context_mean": mean,
        "context_std": math.sqrt(variance),
        "recent_distant_ratio": _ratio(p, context, row.position),
        "max_weight": max(row.weights, default=0.0),
        "max_position": min((j for j in row.keys if p[j] == max(row.weights)), default=-1),
    }
    terms = [1 - metrics["local_concentration"]]
    if len(row.keys) > 1:
        terms.append(metrics["entropy"] / math.log(len(row.keys)))
    if far:
        terms.append(min(1.0, metrics["long_range"] / (len(far) / len(row.keys))))
    metrics["retention"] = math.fsum(terms) / len(terms) if row.keys else 0.0
    return metrics


def _ratio(p: dict[int, float], context: list[int], position: int) -> float:
    if len(context) < 2:
        return math.nan
    quarter = max(1, len(context) // 4)
    nearest = sorted(context, key=lambda j: (abs(position - j), j))[:quarter]
    farthest = sorted(context, key=lambda j: (-abs(position - j), j))[:quarter]
    return math.fsum(p[j] for j in nearest) / math.fsum(p[j] for j in farthest)
