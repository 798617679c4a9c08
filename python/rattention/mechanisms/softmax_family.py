"""What all mechanisms of the softmax family share: a user's arguments in the core's form, one way into the
kernels, one float64 softmax over visible keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rattention import _core
from rattention._arguments import (
    bool_array,
    brief,
    float32_array,
    float64_array,
    float_array,
    integer_array,
    mask_array,
    optional,
    real_number,
    same_dtype,
    truth,
    whole_number,
)
from rattention._metrics import AttentionMetrics, MetricOptions, reference_metrics
from rattention.mechanisms.masks import (
    Masks,
    packed_segments,
    query_positions,
    reference_visible,
    window_bounds,
)
from rattention.mechanisms.results import AttentionResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from rattention.mechanisms.masks import Window

KnownLse: TypeAlias = "ArrayLike | AttentionResult | None"
"""What a forward pass with ``return_lse=True`` returned, or its lse alone."""
MAX_OFFSET = 2**40
"""Far beyond any sequence, and small enough that positions cannot overflow."""


def query_and_key(query: ArrayLike, key: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both as arrays of rank 4 and one dtype."""
    queries, keys = float_array("query", query, 4), float_array("key", key, 4)
    same_dtype(query=queries, key=keys)
    return queries, keys


def require_metric_options(options: MetricOptions | None) -> None:
    """Refuse anything but MetricOptions or None."""
    if options is not None and not isinstance(options, MetricOptions):
        raise TypeError(f"metrics must be a MetricOptions or None, got {type(options).__name__}")


def scale_of(scale: float | None, query: NDArray[Any]) -> float:
    """The factor on dot products, 1 / sqrt(head_dim) by default."""
    return max(query.shape[3], 1) ** -0.5 if scale is None else real_number("scale", scale)


def core_options(
    query: NDArray[Any],
    key: NDArray[Any],
    masks: Masks,
    log_discount: ArrayLike | float | None,
    **score_rule: Any,
) -> _core.ScoreOptions:
    """Masks, discount and score rule in the form the core takes; the core checks the shapes."""
    causal = truth("causal", masks.causal)
    left, right = core_window(masks.window, causal)
    default_offset = key.shape[2] - query.shape[2]
    if masks.block_ids is not None:
        score_rule["block_ids"] = integer_array("block_ids", masks.block_ids, 2)
    return _core.ScoreOptions(
        left=left,
        right=right,
        query_offset=default_offset if masks.query_offset is None else _query_offset(masks.query_offset),
        key_mask=optional(bool_array, "key_mask", masks.key_mask, 2),
        segment_ids=optional(integer_array, "segment_ids", masks.segment_ids, 2)
        if masks.cu_seqlens is None
        else _packed_ids(masks, key),
        attn_mask=None if masks.attn_mask is None else mask_array("attn_mask", masks.attn_mask),
        log_discount=None if log_discount is None else _log_discount(log_discount, query.shape[:3]),
        **score_rule,
    )


def _packed_ids(masks: Masks, key: NDArray[Any]) -> NDArray[np.int64]:
    starts = integer_array("cu_seqlens", masks.cu_seqlens, 1)
    if masks.segment_ids is not None:
        raise ValueError("cu_seqlens and segment_ids say the same; give one of them")
    return packed_segments(starts, key.shape[0], key.shape[2])


def core_window(window: Window, causal: bool) -> list[int]:
    """Left and right reach in the core's terms, -1 where unlimited; larger ones become 2**62, which
    reaches every key and cannot overflow."""
    return [-1 if reach is None else min(reach, 2**62) for reach in window_bounds(window, causal)]


def _query_offset(value: int) -> int:
    offset = whole_number("query_offset", value)
    if abs(offset) > MAX_OFFSET:
        raise ValueError(f"query_offset must lie within +-2**40, got {brief(offset)}")
    return offset


def per_head(name: str, value: ArrayLike | float, heads: int) -> NDArray[np.float32]:
    """A number, or one per head, as float32 ``[heads]``."""
    if isinstance(value, int | float | np.floating) and not isinstance(value, bool):
        numbers = np.full(heads, real_number(name, value), np.float32)
    else:
        numbers = float32_array(name, value, 1)
    if numbers.shape != (heads,):
        raise ValueError(f"{name} must be a number or one per head ({heads}), got shape {numbers.shape}")
    return _finite(name, numbers)


def bias_table(value: ArrayLike, heads: int) -> NDArray[np.float32]:
    """A bias by distance, float32 ``[heads, 2 * reach + 1]``."""
    table = float32_array("relative_bias", value, 2)
    if table.shape[0] != heads or table.shape[1] % 2 == 0:
        raise ValueError(
            f"relative_bias must have shape ({heads}, 2 * reach + 1), one number per head and distance from "
            f"-reach to reach, got {table.shape}"
        )
    return _finite("relative_bias", table)


def _finite(name: str, numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite, got {brief(numbers)}")
    return numbers


def _log_discount(value: ArrayLike | float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A number, or one per head or per query, as float32 ``[heads]`` or ``[batch, heads, query_length]``."""
    number = isinstance(value, int | float | np.floating)
    numbers: Any = value if number else float32_array("log_discount", value)
    if number or numbers.ndim != len(shape):
        numbers = per_head("log_discount", numbers, shape[1])
    if numbers.ndim == len(shape) and numbers.shape != shape:
        raise ValueError(f"log_discount must have shape {shape}, one per query, got {numbers.shape}")
    if not (_finite("log_discount", numbers) <= 0).all():
        raise ValueError(
            f"log_discount must be finite and <= 0 (ln of a discount in (0, 1]), got {brief(value)}"
        )
    return numbers  # type: ignore[no-any-return]


def run_forward(
    query: NDArray[Any],
    key: NDArray[Any],
    value: ArrayLike,
    options: _core.ScoreOptions,
    metrics: MetricOptions | None,
    return_lse: bool,
    dtype: np.dtype[Any],
) -> NDArray[Any] | AttentionResult:
    """The forward pass on checked queries and keys; the output gets `dtype`, that of the user's query."""
    values = float_array("value", value, 4)
    same_dtype(query=query, key=key, value=values)
    require_metric_options(metrics)
    with_lse = truth("return_lse", return_lse)
    output, lse, rest, measured = _core.attention(
        query, key, values, options, metrics=metrics, return_lse=with_lse
    )
    if output.dtype == np.uint16:
        output, rest = output.view(dtype), None if rest is None else rest.view(dtype)
    if metrics is None and not with_lse:
        return output
    return AttentionResult.of(output, lse, rest, AttentionMetrics(**measured) if measured else None)


def run_backward(
    grad_output: ArrayLike,
    query: NDArray[Any],
    key: NDArray[Any],
    value: ArrayLike,
    result: AttentionResult,
    options: _core.ScoreOptions,
    grad_lse: ArrayLike | None,
    given: Mapping[str, Any],
    of_mask: bool,
) -> dict[str, NDArray[np.float32]]:
    """Gradients by name. Those of per-head numbers are summed over batch and rows, unlike that of a per-query
    log_discount. `given` are the user's options; their attn_mask has a gradient only with `of_mask`."""
    attn_mask = given.get("attn_mask") if truth("of_mask", of_mask) else None
    if not isinstance(result, AttentionResult) or result.lse is None:
        raise TypeError("result must be the AttentionResult of a forward call with return_lse=True")
    values = float_array("value", value, 4)
    outputs, grads = (
        float_array("result.output", result.output, 4),
        float_array("grad_output", grad_output, 4),
    )
    same_dtype(query=query, key=key, value=values)
    grad_of_lse = None
    if grad_lse is not None:
        grad_of_lse = np.ascontiguousarray(float_array("grad_lse", grad_lse, 3), np.float32)
    lse = np.ascontiguousarray(result.lse if result.exact_lse is None else result.exact_lse, np.float64)
    rest = optional(float_array, "result.output_rest", result.output_rest, 4)
    gradients = _core.attention_backward(
        query, key, values, options, outputs, lse, grads, grad_of_lse, rest, of_mask=attn_mask is not None
    )
    if attn_mask is not None:
        gradients["attn_mask"] = _summed_to(gradients["attn_mask"], np.shape(attn_mask))
    for name in ("gravity", "exponent", "log_discount", "sinks", "relative_bias"):
        if name in gradients and not (name == "log_discount" and np.ndim(given["log_discount"]) == 3):
            with np.errstate(invalid="ignore"):  # inf - inf is NaN, as it should be
                gradients[name] = gradients[name].sum(axis=(0, 2), dtype=np.float64).astype(np.float32)
    return gradients


def _summed_to(array: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Sums over the axes along which an array of `shape` was broadcast."""
    own = (1,) * (array.ndim - len(shape)) + shape
    axes = tuple(i for i, (a, b) in enumerate(zip(array.shape, own, strict=True)) if a != b)
    summed = array.sum(axis=axes, dtype=np.float64, keepdims=True).astype(np.float32) if axes else array
    return summed.reshape(shape)


def run_metrics(
    query: NDArray[Any], key: NDArray[Any], options: _core.ScoreOptions, metrics: MetricOptions | None
) -> AttentionMetrics:
    """Metrics of the maps of checked queries and keys."""
    chosen = MetricOptions() if metrics is None else metrics
    require_metric_options(chosen)
    return AttentionMetrics(**_core.attention_metrics(query, key, options, chosen))


def known_lse(lse: KnownLse) -> NDArray[np.float64] | None:
    """The log of every row's denominator, in float64 where a result has it so; the core checks the shape."""
    if isinstance(lse, AttentionResult):
        if lse.lse is None:
            raise TypeError("lse is the result of a call without return_lse=True")
        lse = lse.lse if lse.exact_lse is None else lse.exact_lse
    return optional(float64_array, "lse", lse, 3)  # type: ignore[no-any-return]


def softmax_over_visible(
    scores: NDArray[np.float64],
    log_discount: ArrayLike | float | None,
    masks: Masks,
    sinks: ArrayLike | float | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Softmax of ``[batch, heads, query_length, key_length]`` scores with discount and masks, beside
    sinks: weights, visible, lse."""
    batch, heads, rows, keys = scores.shape
    visible, bias = reference_visible(masks, batch, heads, rows, keys)
    scores = scores + bias
    if log_discount is not None:
        distance = np.abs(query_positions(masks, rows, keys)[:, None] - np.arange(keys))
        discount = np.asarray(log_discount, np.float64)
        discount = discount if discount.ndim == 3 else np.broadcast_to(discount, heads)[:, None]
        scores = scores + discount[..., None] * distance
    scores = np.where(visible, scores, -np.inf)
    top = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    sink = np.asarray(-np.inf if sinks is None else sinks, np.float64).reshape(-1, 1, 1)
    top = np.maximum(np.where(visible.any(axis=-1, keepdims=True), top, -np.inf), sink)
    top = np.where(visible.any(axis=-1, keepdims=True) | (sink > -np.inf), top, 0.0)
    with np.errstate(invalid="ignore"):  # inf - inf is NaN, as it should be
        exponentials = np.where(visible, np.exp(scores - top), 0.0)
        total = exponentials.sum(axis=-1, keepdims=True) + np.exp(sink - top)
    with np.errstate(divide="ignore"):
        lse = (np.log(total) + top)[..., 0]
    weights = np.where(visible, exponentials / np.where(total == 0, 1.0, total), 0.0)
    return weights, visible, lse


def reference_result(
    weights: NDArray[np.float64],
    visible: NDArray[np.bool_],
    lse: NDArray[np.float64],
    value: ArrayLike,
    query_offset: int | None,
    metrics: MetricOptions | None,
) -> AttentionResult:
    """Weights times values, row by row over the visible keys alone: a hidden NaN must not leak, and 0 * NaN
    would."""
    v = np.asarray(value).astype(np.float64)
    v = np.repeat(v, weights.shape[1] // v.shape[1], axis=1)
    output = np.zeros((*weights.shape[:3], v.shape[3]))
    for b, h, i in np.ndindex(*weights.shape[:3]):
        seen = visible[b, h, i]
        output[b, h, i] = weights[b, h, i, seen] @ v[b, h, seen]
    positions = query_positions(Masks(query_offset=query_offset), *weights.shape[2:])
    measured = reference_metrics(weights, visible, positions, metrics) if metrics else None
    return AttentionResult(output, lse, measured)
