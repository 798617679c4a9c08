"""From a user's arguments to the core's: what all mechanisms of the softmax family share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rattention import _core
from rattention._arguments import (
    bool_array,
    brief,
    float32_array,
    float_array,
    integer_array,
    mask_array,
    real_number,
    same_dtype,
    truth,
    whole_number,
)
from rattention._metrics import MetricOptions
from rattention.mechanisms.masks import Masks, window_bounds

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

UNLIMITED = -1
"""The reach of a window without an end on that side, in the core's terms."""

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
    left, right = (_core_reach(reach) for reach in window_bounds(masks.window, causal))
    default_offset = key.shape[2] - query.shape[2]
    return _core.ScoreOptions(
        left=left,
        right=right,
        query_offset=default_offset if masks.query_offset is None else _query_offset(masks.query_offset),
        key_mask=_optional(bool_array, "key_mask", masks.key_mask, 2),
        segment_ids=_optional(integer_array, "segment_ids", masks.segment_ids, 2),
        attn_mask=None if masks.attn_mask is None else mask_array("attn_mask", masks.attn_mask),
        log_discount=None if log_discount is None else _log_discount(log_discount, query.shape[:3]),
        **score_rule,
    )


def _core_reach(reach: int | None) -> int:
    """A reach in the core's terms; what is larger than 2**62 is as good as unlimited and cannot
    overflow there."""
    return UNLIMITED if reach is None else min(reach, 2**62)


def _query_offset(value: int) -> int:
    offset = whole_number("query_offset", value)
    if abs(offset) > MAX_OFFSET:
        raise ValueError(f"query_offset must lie within +-2**40, got {brief(offset)}")
    return offset


def _optional(check: Any, name: str, value: Any, rank: int) -> Any:
    return None if value is None else check(name, value, rank)


def per_head(name: str, value: ArrayLike | float, heads: int) -> NDArray[np.float32]:
    """A number, or one per head, as float32 ``[heads]``."""
    if isinstance(value, int | float | np.floating) and not isinstance(value, bool):
        numbers = np.full(heads, real_number(name, value), np.float32)
    else:
        numbers = float32_array(name, value, 1)
    if numbers.shape != (heads,):
        raise ValueError(f"{name} must be a number or one per head ({heads}), got shape {numbers.shape}")
    return _finite(name, numbers)


def _per_query(name: str, value: ArrayLike | float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A number, or one per head or per query, as float32 ``[heads]`` or ``[batch, heads, query_length]``."""
    if isinstance(value, int | float | np.floating):
        return per_head(name, value, shape[1])
    numbers = float32_array(name, value)
    if numbers.ndim != len(shape):
        return per_head(name, numbers, shape[1])
    if numbers.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, one per query, got {numbers.shape}")
    return _finite(name, numbers)


def _finite(name: str, numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite, got {brief(numbers)}")
    return numbers


def _log_discount(value: ArrayLike | float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    numbers = _per_query("log_discount", value, shape)
    if not (numbers <= 0).all():
        raise ValueError(
            f"log_discount must be finite and <= 0 (ln of a discount in (0, 1]), got {brief(value)}"
        )
    return numbers
