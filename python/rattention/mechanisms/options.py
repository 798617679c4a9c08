"""The keyword arguments of the public functions, on arrays or tensors, as types.

Functions that other people read have them in their signatures; overloads and internal functions take them as
``**options: Unpack[SoftmaxOptions[ArrayLike]]``.
"""

from __future__ import annotations

from typing import Generic, TypedDict

from rattention._metrics import ArrayT
from rattention.mechanisms.masks import Window


class SharedOptions(TypedDict, Generic[ArrayT], total=False):
    """Those that all of the softmax family take; see `attention`."""

    causal: bool
    window: Window
    key_mask: ArrayT | None
    segment_ids: ArrayT | None
    attn_mask: ArrayT | None
    log_discount: ArrayT | float | None
    query_offset: int | None


class SoftmaxOptions(SharedOptions[ArrayT], total=False):
    """Those of `attention`."""

    scale: float | None


class GravityOptions(SharedOptions[ArrayT], total=False):
    """Those of `gravitational_attention`."""

    gravity: ArrayT | float
    eps: float
    exponent: ArrayT | float | None


class LinearOptions(TypedDict, Generic[ArrayT], total=False):
    """Those of `residual_linear_attention` besides its window."""

    feature_map: str
    initial_state: ArrayT | None
    key_mask: ArrayT | None
    segment_ids: ArrayT | None


class RAttentionOptions(LinearOptions[ArrayT], total=False):
    """Those of `rattention`."""

    scale: float | None
    rope_theta: float | None
    local_norm_weight: ArrayT | None
    linear_norm_weight: ArrayT | None
    eps: float
