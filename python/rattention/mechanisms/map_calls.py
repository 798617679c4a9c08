"""What is read from maps of the softmax family: one way from a user's arguments into the core's sweeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rattention import _core
from rattention._arguments import as_array, at_least, brief, integer_array
from rattention.mechanisms.pooled_map import MOST_BINS, map_range, map_shape
from rattention.mechanisms.results import TopKeys
from rattention.mechanisms.softmax_family import known_lse

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from rattention.mechanisms.pooled_map import Range
    from rattention.mechanisms.softmax_family import KnownLse

FARTHEST = 2**60
"""Beyond any distance between tokens, and small enough that positions cannot overflow."""

Scores = tuple["NDArray[Any]", "NDArray[Any]", _core.ScoreOptions]
"""Checked queries and keys, and what makes scores of them."""


def run_rows(scores: Scores, rows: ArrayLike, lse: KnownLse) -> NDArray[np.float32]:
    """The weights of a few query rows."""
    query, key, options = scores
    return _core.attention_rows(query, key, _row_indices(rows, query.shape[2]), options, known_lse(lse))


def run_map(
    scores: Scores, shape: tuple[int, int], rows: Range | None, keys: Range | None, lse: KnownLse
) -> NDArray[np.float32]:
    """The pooled map."""
    query, key, _ = scores
    row_range, key_range = map_range("rows", rows, query.shape[2]), map_range("keys", keys, key.shape[2])
    return _core.attention_map(*scores, map_shape(shape), row_range, key_range, known_lse(lse))


def run_segments(
    scores: Scores, query_edges: ArrayLike, key_edges: ArrayLike, lse: KnownLse
) -> NDArray[np.float32]:
    """Means over the rows of segments of their mass in others."""
    query, key, _ = scores
    down = _edges("query_edges", query_edges, query.shape[2])
    across = _edges("key_edges", key_edges, key.shape[2])
    sums = _core.attention_segments(*scores, down, across, known_lse(lse))
    sums /= np.diff(down)[:, None].astype(np.float32)
    return sums


def run_top_keys(scores: Scores, k: int, rows: Range | None, lse: KnownLse) -> TopKeys[NDArray[Any]]:
    """The largest weights of rows."""
    row_range = map_range("rows", rows, scores[0].shape[2])
    most = at_least("k", k, 1)
    if most > MOST_BINS:
        raise ValueError(f"k must be at most 2**40, got {brief(k)}")
    positions, weights = _core.attention_top_keys(*scores, most, row_range, known_lse(lse))
    return TopKeys(weights, positions)


def run_distances(scores: Scores, edges: ArrayLike, lse: KnownLse) -> NDArray[np.float32]:
    """The mass by distance."""
    apart = np.minimum(_edges("edges", edges), FARTHEST)
    return _core.attention_distances(*scores, apart, known_lse(lse))


def _edges(name: str, value: ArrayLike, length: int | None = None) -> NDArray[np.int64]:
    """Edges of bins, within `length` where there is one, as an array that no other thread writes to."""
    edges = integer_array(name, _listed(name, value), 1).copy()
    inside = edges.size > 1 and edges[0] >= 0 and (length is None or edges[-1] <= length)
    if not inside or (np.diff(edges) <= 0).any():
        bounds = "from 0 on" if length is None else f"from 0 to {length}"
        raise ValueError(f"{name} must be two or more increasing integers {bounds}, got {brief(value)}")
    return edges


def _row_indices(rows: ArrayLike, length: int) -> NDArray[np.int64]:
    indices = integer_array("rows", _listed("rows", rows), 1)
    if indices.size and (indices.min() < -length or indices.max() >= length):
        allowed = f"lie in [{-length}, {length - 1}]" if length else "be empty where query has no rows"
        raise ValueError(f"rows must {allowed}, got {indices.min()} to {indices.max()}")
    return np.where(indices < 0, indices + length, indices)


def _listed(name: str, value: Any) -> Any:
    """Sequences of Python as arrays, of integers where they are empty."""
    if not isinstance(value, list | tuple | range):
        return value
    return as_array(name, value) if value else np.empty(0, np.int64)
