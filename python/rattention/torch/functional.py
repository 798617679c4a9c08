"""The public functions on tensors: typed, and each one call of the operations made from the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Unpack, overload

import rattention as ra
from rattention.torch.functions import run
from rattention.torch.ops import SIGNATURES

if TYPE_CHECKING:
    from torch import Tensor

    from rattention._metrics import MetricOptions
    from rattention.mechanisms.masks import Window
    from rattention.mechanisms.options import GravityOptions, LinearOptions, RAttentionOptions, SoftmaxOptions
    from rattention.mechanisms.results import AttentionResult, LinearResult

_ATTENTION = SIGNATURES[ra.attention]
_GRAVITATIONAL = SIGNATURES[ra.gravitational_attention]
_RESIDUAL_LINEAR = SIGNATURES[ra.residual_linear_attention]
_RATTENTION = SIGNATURES[ra.rattention]


@overload
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    return_lse: Literal[False] = False,
    metrics: None = None,
    **options: Unpack[SoftmaxOptions[Tensor]],
) -> Tensor: ...
@overload
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    return_lse: Literal[True],
    metrics: MetricOptions | None = None,
    **options: Unpack[SoftmaxOptions[Tensor]],
) -> AttentionResult[Tensor]: ...
@overload
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    return_lse: bool = False,
    metrics: MetricOptions,
    **options: Unpack[SoftmaxOptions[Tensor]],
) -> AttentionResult[Tensor]: ...
@overload
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    return_lse: bool = False,
    metrics: MetricOptions | None = None,
    **options: Unpack[SoftmaxOptions[Tensor]],
) -> Tensor | AttentionResult[Tensor]: ...
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    causal: bool = False,
    window: Window = None,
    scale: float | None = None,
    key_mask: Tensor | None = None,
    segment_ids: Tensor | None = None,
    attn_mask: Tensor | None = None,
    log_discount: Tensor | float | None = None,
    query_offset: int | None = None,
    return_lse: bool = False,
    metrics: MetricOptions | None = None,
) -> Tensor | AttentionResult[Tensor]:
    """Exact softmax attention on tensors: `rattention.attention`, which describes every option.

    Parameters
    ----------
    query, key, value:
        ``[batch, heads, query_length, head_dim]``, ``[batch, kv_heads, key_length, head_dim]`` and
        ``[batch, kv_heads, key_length, value_dim]``: tensors of one dtype, float32, bfloat16 or float16, and
        on one device.
    causal, window, scale, query_offset:
        As in `rattention.attention`.
    key_mask, segment_ids, attn_mask:
        Tensors, bool ``[batch, key_length]``, integer ``[batch, key_length]``, and bool or floating,
        broadcastable to ``[batch, heads, query_length, key_length]``. None is differentiable.
    log_discount:
        A number, or a tensor ``[heads]`` or ``[batch, heads, query_length]``, <= 0; one per head is ALiBi.
    return_lse, metrics:
        Also return the lse, and metrics of every row; the latter on the CPU alone and without gradients.

    Returns
    -------
    A tensor ``[batch, heads, query_length, value_dim]``, or an `AttentionResult` of tensors. Differentiable
    in query, key, value and log_discount, through output and lse.

    Raises
    ------
    ValueError
        Shapes, values or devices that do not fit; the message names the argument.
    TypeError
        Another dtype, or objects that are no dense tensors.
    NotImplementedError
        A second derivative, or `torch.func.grad`.
    """
    arguments = {
        "query": query,
        "key": key,
        "value": value,
        "causal": causal,
        "window": window,
        "scale": scale,
        "key_mask": key_mask,
        "segment_ids": segment_ids,
        "attn_mask": attn_mask,
        "log_discount": log_discount,
        "query_offset": query_offset,
        "return_lse": return_lse,
        "metrics": metrics,
    }
    return run(_ATTENTION, arguments)  # type: ignore[no-any-return]


@overload
def gravitational_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_mass: Tensor,
    key_mass: Tensor,
    *,
    return_lse: Literal[False] = False,
    metrics: None = None,
    **options: Unpack[GravityOptions[Tensor]],
) -> Tensor: ...
@overload
def gravitational_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_mass: Tensor,
    key_mass: Tensor,
    *,
    return_lse: Literal[True],
    metrics: MetricOptions | None = None,
    **options: Unpack[GravityOptions[Tensor]],
) -> AttentionResult[Tensor]: ...
@overload
def gravitational_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_mass: Tensor,
    key_mass: Tensor,
    *,
    return_lse: bool = False,
    metrics: MetricOptions,
    **options: Unpack[GravityOptions[Tensor]],
) -> AttentionResult[Tensor]: ...
@overload
def gravitational_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_mass: Tensor,
    key_mass: Tensor,
    *,
    return_lse: bool = False,
    metrics: MetricOptions | None = None,
    **options: Unpack[GravityOptions[Tensor]],
) -> Tensor | AttentionResult[Tensor]: ...
def gravitational_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_mass: Tensor,
    key_mass: Tensor,
    *,
    gravity: Tensor | float = 1.0,
    eps: float = 1e-3,
    exponent: Tensor | float | None = None,
    causal: bool = False,
    window: Window = None,
    key_mask: Tensor | None = None,
    segment_ids: Tensor | None = None,
    attn_mask: Tensor | None = None,
    log_discount: Tensor | float | None = None,
    query_offset: int | None = None,
    return_lse: bool = False,
    metrics: MetricOptions | None = None,
) -> Tensor | AttentionResult[Tensor]:
    """Gravitational attention on tensors: `rattention.gravitational_attention`.

    Masks, discount, flags, errors and what is returned are those of `attention`.

    Parameters
    ----------
    query, key, value:
        As in `attention`.
    query_mass, key_mass:
        Tensors ``[batch, heads, query_length]`` and ``[batch, heads or kv_heads, key_length]``, >= 0, in the
        dtype of the query.
    gravity, exponent:
        Numbers, or tensors ``[heads]``.
    eps:
        Added to the power of the distance; > 0.

    Differentiable in query, key, value, masses, gravity, exponent and log_discount.
    """
    arguments = {
        "query": query,
        "key": key,
        "value": value,
        "query_mass": query_mass,
        "key_mass": key_mass,
        "gravity": gravity,
        "eps": eps,
        "exponent": exponent,
        "causal": causal,
        "window": window,
        "key_mask": key_mask,
        "segment_ids": segment_ids,
        "attn_mask": attn_mask,
        "log_discount": log_discount,
        "query_offset": query_offset,
        "return_lse": return_lse,
        "metrics": metrics,
    }
    return run(_GRAVITATIONAL, arguments)  # type: ignore[no-any-return]


@overload
def residual_linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int,
    return_state: Literal[False] = False,
    **options: Unpack[LinearOptions[Tensor]],
) -> Tensor: ...
@overload
def residual_linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int,
    return_state: Literal[True],
    **options: Unpack[LinearOptions[Tensor]],
) -> LinearResult[Tensor]: ...
@overload
def residual_linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int,
    return_state: bool = False,
    **options: Unpack[LinearOptions[Tensor]],
) -> Tensor | LinearResult[Tensor]: ...
def residual_linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int,
    feature_map: str = "softmax",
    initial_state: Tensor | None = None,
    key_mask: Tensor | None = None,
    segment_ids: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | LinearResult[Tensor]:
    """Residual linear attention on tensors: `rattention.residual_linear_attention`, which describes every
    option.

    Parameters
    ----------
    query, key, value:
        Tensors ``[batch, heads, length, head_dim]``, ``[batch, kv_heads, length, head_dim]`` and ``[batch,
        kv_heads, length, value_dim]`` of one dtype.
    window, feature_map:
        As in `rattention.residual_linear_attention`.
    initial_state:
        A tensor ``[batch, kv_heads or heads, 2 * head_dim, value_dim]``.
    key_mask, segment_ids:
        Tensors ``[batch, length]``, bool and integer.
    return_state:
        Also return the state that the last row reads.

    Returns
    -------
    A tensor ``[batch, heads, length, value_dim]``, or a `LinearResult` of tensors. Differentiable in query,
    key, value and initial_state, through output and state. Errors are those of `attention`.
    """
    arguments = {
        "query": query,
        "key": key,
        "value": value,
        "window": window,
        "feature_map": feature_map,
        "initial_state": initial_state,
        "key_mask": key_mask,
        "segment_ids": segment_ids,
        "return_state": return_state,
    }
    return run(_RESIDUAL_LINEAR, arguments)  # type: ignore[no-any-return]


@overload
def rattention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int,
    return_state: Literal[False] = False,
    **options: Unpack[RAttentionOptions[Tensor]],
) -> Tensor: ...
@overload
def rattention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int,
    return_state: Literal[True],
    **options: Unpack[RAttentionOptions[Tensor]],
) -> LinearResult[Tensor]: ...
@overload
def rattention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int,
    return_state: bool = False,
    **options: Unpack[RAttentionOptions[Tensor]],
) -> Tensor | LinearResult[Tensor]: ...
def rattention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int,
    scale: float | None = None,
    rope_theta: float | None = None,
    feature_map: str = "softmax",
    local_norm_weight: Tensor | None = None,
    linear_norm_weight: Tensor | None = None,
    eps: float = 1e-8,
    initial_state: Tensor | None = None,
    key_mask: Tensor | None = None,
    segment_ids: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | LinearResult[Tensor]:
    """RAttention on tensors: `rattention.rattention`, which describes every option.

    Parameters
    ----------
    query, key, value, initial_state, key_mask, segment_ids, return_state:
        As in `residual_linear_attention`.
    window, scale, rope_theta, feature_map, eps:
        As in `rattention.rattention`.
    local_norm_weight, linear_norm_weight:
        Tensors ``[heads, value_dim]``; 1 by default.

    Returns
    -------
    A tensor ``[batch, heads, length, value_dim]``, or a `LinearResult` of tensors. Differentiable in query,
    key, value, the norm weights and initial_state. Errors are those of `attention`.
    """
    arguments = {
        "query": query,
        "key": key,
        "value": value,
        "window": window,
        "scale": scale,
        "rope_theta": rope_theta,
        "feature_map": feature_map,
        "local_norm_weight": local_norm_weight,
        "linear_norm_weight": linear_norm_weight,
        "eps": eps,
        "initial_state": initial_state,
        "key_mask": key_mask,
        "segment_ids": segment_ids,
        "return_state": return_state,
    }
    return run(_RATTENTION, arguments)  # type: ignore[no-any-return]
