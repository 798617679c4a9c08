"""The mechanisms on tensors, each one call of its operation, and attention maps, on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

import rattention as ra
from rattention.mechanisms.options import (
    GravityCall,
    LinearCall,
    RAttentionCall,
    SoftmaxCall,
    Typed,
    shows_options_of,
)
from rattention.mechanisms.pooled_map import MAP_SHAPE
from rattention.torch.checks import as_array, as_tensor, require_floats, require_mask_dtypes, require_tensors
from rattention.torch.functions import autocast, run
from rattention.torch.results import not_differentiable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rattention._metrics import AttentionMetrics, MetricOptions
    from rattention.mechanisms.options import SoftmaxOptions
    from rattention.mechanisms.results import AttentionResult, LinearResult


@Typed[SoftmaxCall[Tensor, Tensor]]()
@shows_options_of(ra.attention, "Tensor", but=())
def attention(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor | AttentionResult[Tensor]:
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
    given = {"query": query, "key": key, "value": value, **options}
    return run(ra.attention, given)  # type: ignore[no-any-return]


@Typed[GravityCall[Tensor, Tensor]]()
@shows_options_of(ra.gravitational_attention, "Tensor", but=())
def gravitational_attention(
    query: Tensor, key: Tensor, value: Tensor, query_mass: Tensor, key_mass: Tensor, **options: Any
) -> Tensor | AttentionResult[Tensor]:
    """Gravitational attention on tensors: `rattention.gravitational_attention`.

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

    Returns
    -------
    As in `attention`; so are the other options and the errors. Differentiable in query, key, value, masses,
    gravity, exponent and log_discount.
    """
    given = {"query": query, "key": key, "value": value, "query_mass": query_mass, "key_mass": key_mass}
    return run(ra.gravitational_attention, given | options)  # type: ignore[no-any-return]


@Typed[LinearCall[Tensor, Tensor]]()
@shows_options_of(ra.residual_linear_attention, "Tensor", but=())
def residual_linear_attention(
    query: Tensor, key: Tensor, value: Tensor, **options: Any
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
    given = {"query": query, "key": key, "value": value, **options}
    return run(ra.residual_linear_attention, given)  # type: ignore[no-any-return]


@Typed[RAttentionCall[Tensor, Tensor]]()
@shows_options_of(ra.rattention, "Tensor", but=())
def rattention(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor | LinearResult[Tensor]:
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
    given = {"query": query, "key": key, "value": value, **options}
    return run(ra.rattention, given)  # type: ignore[no-any-return]


@shows_options_of(ra.attention, "Tensor")
def attention_metrics(
    query: Tensor,
    key: Tensor,
    *,
    metrics: MetricOptions | None = None,
    **options: Unpack[SoftmaxOptions[Tensor]],
) -> AttentionMetrics[Tensor]:
    """Metrics of attention maps, on tensors: `rattention.attention_metrics`.

    Parameters
    ----------
    query, key:
        CPU tensors as in `attention`, and so are the options.
    metrics:
        Distances, and whether to measure `received`; ``MetricOptions()`` by default.

    Returns
    -------
    `AttentionMetrics` of tensors ``[batch, heads, query_length]``; a backward pass through them raises
    NotImplementedError. Other errors are those of `attention`.

    >>> import torch
    >>> import rattention.torch as rt
    >>> query, key = torch.randn(2, 1, 4, 256, 32)
    >>> rt.attention_metrics(query, key, causal=True).entropy.shape
    torch.Size([1, 4, 256])
    """
    require_tensors({"query": query, "key": key}, ("query", "key"))
    chosen = ra.MetricOptions() if metrics is None else metrics
    result = attention(query, key, key[..., :0], metrics=chosen, **options)
    assert result.metrics is not None
    return result.metrics


@shows_options_of(ra.attention, "Tensor")
def attention_rows(
    query: Tensor,
    key: Tensor,
    rows: Tensor | Sequence[int],
    **options: Unpack[SoftmaxOptions[Tensor]],
) -> Tensor:
    """The weights of a few query rows, on tensors: `rattention.attention_rows`.

    Parameters
    ----------
    query, key:
        CPU tensors as in `attention`, and so are the options.
    rows:
        Indices of query rows, a tensor or sequence of integers; negative ones count from the end.

    Returns
    -------
    Float32 ``[batch, heads, len(rows), key_length]``; a backward pass through it raises NotImplementedError.
    It does not go into a graph of ``torch.compile``. Other errors are those of `attention`.
    """
    indices = as_array(rows) if isinstance(rows, torch.Tensor) else rows
    return _looked_at(ra.attention_rows, query, key, {"rows": indices}, options)


@shows_options_of(ra.attention, "Tensor")
def attention_map(
    query: Tensor,
    key: Tensor,
    *,
    shape: tuple[int, int] = MAP_SHAPE,
    rows: tuple[int, int] | None = None,
    keys: tuple[int, int] | None = None,
    **options: Unpack[SoftmaxOptions[Tensor]],
) -> Tensor:
    """The attention map, mean-pooled to at most `shape`, on tensors: `rattention.attention_map`.

    Parameters
    ----------
    query, key:
        CPU tensors as in `attention`, and so are the options.
    shape, rows, keys:
        The size of the result, and the ``(start, stop)`` of the rows and keys to look at.

    Returns
    -------
    Float32 ``[batch, heads, min(shape[0], rows), min(shape[1], keys)]``; a backward pass through it raises
    NotImplementedError. It does not go into a graph of ``torch.compile``. Other errors are those of
    `attention`.
    """
    return _looked_at(ra.attention_map, query, key, {"shape": shape, "rows": rows, "keys": keys}, options)


def _looked_at(
    function: Callable[..., Any], query: Tensor, key: Tensor, part: dict[str, Any], options: Mapping[str, Any]
) -> Tensor:
    inputs = {"query": query, "key": key}
    require_tensors(inputs, inputs)
    require_floats(inputs, inputs)
    query, key = autocast(query), autocast(key)
    if query.device.type != "cpu":
        raise ValueError(f"query must be on the CPU, got {query.device}: move the tensors with .cpu()")
    tensors = {name: value for name, value in options.items() if isinstance(value, torch.Tensor)}
    require_tensors(tensors, tensors)
    require_mask_dtypes(tensors)
    arrays = {name: as_array(value.cpu()) for name, value in tensors.items()}
    rows = function(as_array(query), as_array(key), **part, **{**options, **arrays})
    return not_differentiable(as_tensor(rows), query, key)
