"""Bins of rows and keys, and the slow references of what is read from an attention map."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from rattention._arguments import brief, whole_number

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MAP_SHAPE = (256, 256)
"""The largest map, unless another shape is asked for."""
TOP_COUNT = 16
"""Keys of each row, unless another number is asked for."""
MOST_BINS = 2**40
"""More than any sequence has tokens; the core's integers end at 2**63."""

Range = tuple[int, int]


def bin_edges(start: int, stop: int, most: int) -> NDArray[np.int64]:
    """Edges of the bins that ``[start, stop)`` falls into, ``[bins + 1]``: bin b is ``[edges[b], edges[b +
    1])``.

    Bins are contiguous, none is empty, their sizes differ by at most one, and there are `most` of them or,
    where the range is no longer than that, one for each index.
    """
    bins = min(most, stop - start)
    return start + np.arange(bins + 1, dtype=np.int64) * (stop - start) // max(bins, 1)


def map_shape(shape: object) -> tuple[int, int]:
    """A pair of whole numbers >= 1; what is larger than any map asks for the map as it is."""
    height, width = _pair("shape", shape)
    if min(height, width) < 1:
        raise ValueError(f"shape must be at least (1, 1), got {brief(shape)}")
    return min(height, MOST_BINS), min(width, MOST_BINS)


def map_range(name: str, value: object, length: int) -> Range:
    """``(start, stop)`` within `length`, all of it for None."""
    if value is None:
        return 0, length
    start, stop = _pair(name, value)
    if not 0 <= start < stop <= length:
        raise ValueError(
            f"{name} must be (start, stop) with 0 <= start < stop <= {length}, got {brief(value)}"
        )
    return start, stop


def reference_map(
    weights: NDArray[np.float64],
    shape: tuple[int, int] = MAP_SHAPE,
    rows: Range | None = None,
    keys: Range | None = None,
) -> NDArray[np.float64]:
    """`attention_map` from stored weights ``[batch, heads, query_length, key_length]``, 0 where hidden."""
    (top, bottom), (left, right) = rows or (0, weights.shape[2]), keys or (0, weights.shape[3])
    down, across = bin_edges(top, bottom, shape[0]), bin_edges(left, right, shape[1])
    means: NDArray[np.float64] = reference_segments(weights, down, across) / np.diff(across)
    return means


def reference_segments(
    weights: NDArray[np.float64], query_edges: ArrayLike, key_edges: ArrayLike
) -> NDArray[np.float64]:
    """`attention_segments` from such weights."""
    down, across = np.asarray(query_edges), np.asarray(key_edges)
    part = weights[:, :, down[0] : down[-1], across[0] : across[-1]]
    of_rows = np.add.reduceat(part, down[:-1] - down[0], axis=2)
    sums = np.add.reduceat(of_rows, across[:-1] - across[0], axis=3)
    means: NDArray[np.float64] = sums / np.diff(down)[:, None]
    return means


def reference_top_keys(
    weights: NDArray[np.float64], visible: NDArray[np.bool_], count: int = TOP_COUNT
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """`attention_top_keys` from such weights and which of their keys are visible."""
    ranked = np.where(visible, np.where(np.isnan(weights), np.inf, weights), -1.0)
    keys = np.argsort(-ranked, axis=3, kind="stable")[..., :count]
    missing = ~np.take_along_axis(np.broadcast_to(visible, weights.shape), keys, axis=3)
    largest = np.where(missing, 0.0, np.take_along_axis(weights, keys, axis=3))
    room = [(0, 0)] * 3 + [(0, count - keys.shape[3])]
    return np.pad(np.where(missing, -1, keys), room, constant_values=-1), np.pad(largest, room)


def reference_distances(
    weights: NDArray[np.float64],
    visible: NDArray[np.bool_],
    positions: NDArray[np.int64],
    edges: ArrayLike,
) -> NDArray[np.float64]:
    """`attention_distances` from such weights, and the positions of the query rows."""
    apart = np.abs(positions[:, None] - np.arange(weights.shape[3]))
    rows = np.broadcast_to(visible, weights.shape).any(axis=3).sum(axis=2)
    bins = [
        np.where((low <= apart) & (apart < high), weights, 0.0).sum(axis=(2, 3))
        for low, high in pairwise(np.asarray(edges))
    ]
    means: NDArray[np.float64] = np.stack(bins, axis=2) / np.maximum(rows, 1)[..., None]
    return means


def _pair(name: str, value: object) -> tuple[int, int]:
    if not isinstance(value, tuple | list):
        raise TypeError(f"{name} must be a pair of integers, got {brief(value)}")
    if len(value) != 2:
        raise ValueError(f"{name} must be a pair of integers, got {brief(value)}")
    first, second = (whole_number(name, number) for number in value)
    return first, second
