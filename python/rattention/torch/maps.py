"""What is read from attention maps, on tensors: on the CPU, and without gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

import rattention as ra
from rattention.mechanisms.options import shows_options_of
from rattention.mechanisms.pooled_map import MAP_SHAPE, TOP_COUNT
from rattention.mechanisms.results import TopKeys
from rattention.torch.checks import as_array, as_tensor, require_floats, require_mask_dtypes, require_tensors
from rattention.torch.functions import autocast
from rattention.torch.results import not_differentiable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rattention.mechanisms.options import SoftmaxOptions


@shows_options_of(ra.attention, "Tensor")
def attention_rows(
    query: Tensor,
    key: Tensor,
    rows: Tensor | Sequence[int],
    *,
    lse: Tensor | None = None,
    **options: Unpack[SoftmaxOptions[Tensor]],
) -> Tensor:
    """The weights of a few query rows, on tensors: `rattention.attention_rows`.

    Parameters
    ----------
    query, key:
        CPU tensors as in `attention`, and so are the options.
    rows:
        Indices of query rows, a tensor or sequence of integers; negative ones count from the end.
    lse:
        That of `attention` for the same arguments with ``return_lse=True``, or one in float64, where it is
        known: the keys that are not asked for then cost nothing.

    Returns
    -------
    Float32 ``[batch, heads, len(rows), key_length]``; a backward pass through it raises NotImplementedError.
    It does not go into a graph of ``torch.compile``. Other errors are those of `attention`.
    """
    return _looked_at(ra.attention_rows, query, key, {"rows": _indices(rows)}, lse, options)


@shows_options_of(ra.attention, "Tensor")
def attention_map(
    query: Tensor,
    key: Tensor,
    *,
    shape: tuple[int, int] = MAP_SHAPE,
    rows: tuple[int, int] | None = None,
    keys: tuple[int, int] | None = None,
    lse: Tensor | None = None,
    **options: Unpack[SoftmaxOptions[Tensor]],
) -> Tensor:
    """The attention map, mean-pooled to at most `shape`, on tensors: `rattention.attention_map`.

    Parameters
    ----------
    query, key:
        CPU tensors as in `attention`, and so are the options.
    shape, rows, keys:
        The size of the result, and the ``(start, stop)`` of the rows and keys to look at.
    lse:
        As in `attention_rows`.

    Returns
    -------
    Float32 ``[batch, heads, min(shape[0], rows), min(shape[1], keys)]``; a backward pass through it raises
    NotImplementedError. It does not go into a graph of ``torch.compile``. Other errors are those of
    `attention`.
    """
    part = {"shape": shape, "rows": rows, "keys": keys}
    return _looked_at(ra.attention_map, query, key, part, lse, options)


@shows_options_of(ra.attention, "Tensor")
def attention_segments(
    query: Tensor,
    key: Tensor,
    query_edges: Tensor | Sequence[int],
    key_edges: Tensor | Sequence[int],
    *,
    lse: Tensor | None = None,
    **options: Unpack[SoftmaxOptions[Tensor]],
) -> Tensor:
    """The mass between segments, on tensors: `rattention.attention_segments`.

    Parameters
    ----------
    query, key:
        CPU tensors as in `attention`, and so are the options.
    query_edges, key_edges:
        Increasing integers, a tensor or sequence: where segments begin, and where the last ends.
    lse:
        As in `attention_rows`.

    Returns
    -------
    Float32 ``[batch, heads, len(query_edges) - 1, len(key_edges) - 1]``; gradients, graphs and errors are as
    in `attention_rows`.
    """
    part = {"query_edges": _indices(query_edges), "key_edges": _indices(key_edges)}
    return _looked_at(ra.attention_segments, query, key, part, lse, options)


@shows_options_of(ra.attention, "Tensor")
def attention_top_keys(
    query: Tensor,
    key: Tensor,
    k: int = TOP_COUNT,
    *,
    rows: tuple[int, int] | None = None,
    lse: Tensor | None = None,
    **options: Unpack[SoftmaxOptions[Tensor]],
) -> TopKeys[Tensor]:
    """The keys that every query row weighs most, on tensors: `rattention.attention_top_keys`.

    Parameters
    ----------
    query, key:
        CPU tensors as in `attention`, and so are the options.
    k, rows:
        How many keys of each row, and the ``(start, stop)`` of the rows to look at.
    lse:
        As in `attention_rows`.

    Returns
    -------
    `TopKeys` of tensors ``[batch, heads, rows, k]``, float32 and int64; gradients, graphs and errors are
    as in `attention_rows`.
    """
    weights, positions = _measured(ra.attention_top_keys, query, key, {"k": k, "rows": rows}, lse, options)
    return TopKeys(not_differentiable(as_tensor(weights), query, key), as_tensor(positions))


@shows_options_of(ra.attention, "Tensor")
def attention_distances(
    query: Tensor,
    key: Tensor,
    edges: Tensor | Sequence[int],
    *,
    lse: Tensor | None = None,
    **options: Unpack[SoftmaxOptions[Tensor]],
) -> Tensor:
    """The mass by distance, on tensors: `rattention.attention_distances`.

    Parameters
    ----------
    query, key:
        CPU tensors as in `attention`, and so are the options.
    edges:
        Increasing integers >= 0, a tensor or sequence.
    lse:
        As in `attention_rows`.

    Returns
    -------
    Float32 ``[batch, heads, len(edges) - 1]``; gradients, graphs and errors are as in `attention_rows`.
    """
    return _looked_at(ra.attention_distances, query, key, {"edges": _indices(edges)}, lse, options)


def _indices(numbers: Tensor | Sequence[int]) -> Any:
    return as_array(numbers.cpu()) if isinstance(numbers, torch.Tensor) else numbers


def _looked_at(
    function: Callable[..., Any],
    query: Tensor,
    key: Tensor,
    part: dict[str, Any],
    lse: Tensor | None,
    options: Mapping[str, Any],
) -> Tensor:
    return not_differentiable(as_tensor(_measured(function, query, key, part, lse, options)), query, key)


def _measured(
    function: Callable[..., Any],
    query: Tensor,
    key: Tensor,
    part: dict[str, Any],
    lse: Tensor | None,
    options: Mapping[str, Any],
) -> Any:
    """What the function on arrays returns for these tensors."""
    inputs = {"query": query, "key": key}
    require_tensors(inputs, inputs, ("query", "key"))
    require_floats(inputs, inputs)
    if query.device.type != "cpu":
        raise ValueError(f"query must be on the CPU, got {query.device}: move the tensors with .cpu()")
    tensors = {name: value for name, value in options.items() if isinstance(value, torch.Tensor)}
    if lse is not None:
        tensors["lse"] = lse
    require_tensors(tensors, tensors)
    require_mask_dtypes(tensors)
    if lse is not None and lse.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"lse must be torch.float32 or torch.float64, got {lse.dtype}")
    arrays = {name: as_array(value.cpu()) for name, value in tensors.items()}
    on_arrays = as_array(autocast(query)), as_array(autocast(key))
    return function(*on_arrays, **part, **{**options, **arrays})
