"""What attention maps of tensors look like: metrics, rows and pooled maps, on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import torch

import rattention as ra
from rattention.mechanisms.options import shows_options_of
from rattention.mechanisms.pooled_map import MAP_SHAPE
from rattention.torch.checks import require_floats, require_mask_dtypes, require_tensors
from rattention.torch.functional import attention
from rattention.torch.functions import autocast
from rattention.torch.results import not_differentiable
from rattention.torch.storage import as_array, as_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from rattention._metrics import AttentionMetrics, MetricOptions
    from rattention.mechanisms.options import SoftmaxOptions


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
