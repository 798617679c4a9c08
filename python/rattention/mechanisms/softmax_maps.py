"""What `attention` looks at: rows of its map, the map in bins, mass by distance, the largest weights.

All of it streams: nothing of size ``query_length x key_length`` is stored.

With p_ij the weight of row i on key j, i and j their positions:

- rows: ``p_ij`` for a few i;
- map: the mean of p_ij over the cells of a bin of rows and keys, and segments the sum of p_ij over them;
- distances: the mean over i of the sum of p_ij over ``edges[d] <= |i - j| < edges[d + 1]``;
- top keys: the j of the largest p_ij of row i.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rattention.mechanisms.map_calls import run_distances, run_map, run_rows, run_segments, run_top_keys
from rattention.mechanisms.options import shows_options_of
from rattention.mechanisms.pooled_map import MAP_SHAPE, TOP_COUNT
from rattention.mechanisms.softmax import attention, scores

if TYPE_CHECKING:
    from typing import Any

    from rattention.mechanisms.options import SoftmaxOptions
    from rattention.mechanisms.results import TopKeys
    from rattention.mechanisms.softmax_family import KnownLse


@shows_options_of(attention)
def attention_rows(
    query: ArrayLike,
    key: ArrayLike,
    rows: ArrayLike,
    *,
    lse: KnownLse = None,
    **options: Unpack[SoftmaxOptions[ArrayLike]],
) -> NDArray[np.float32]:
    """The weights of a few query rows: work and memory are O(rows * key_length).

    Parameters
    ----------
    query, key:
        As in `attention`, and so are the options.
    rows:
        Indices of query rows, integers ``[rows]``; negative ones count from the end.
    lse:
        What `attention` returned for the same arguments with ``return_lse=True``: the result, whose
        lse is kept in float64, or a float32 or float64 array ``[batch, heads, query_length]``. Then only the
        cells asked for are computed, and not the softmax's denominators, which takes all keys. It is trusted:
        weights are ``e^(score - lse)``, so a wrong lse gives wrong weights, and NaN gives NaN.
        An lse rounded to float32 leaves them a relative error of up to ``6e-8 * |lse|``.

    Returns
    -------
    Float32 ``[batch, heads, len(rows), key_length]``, 0 where a key is hidden.

    Raises
    ------
    ValueError, TypeError
        As `attention`, and where rows are out of range or `lse` does not fit.
    """
    return run_rows(scores(query, key, **options), rows, lse)


@shows_options_of(attention)
def attention_map(
    query: ArrayLike,
    key: ArrayLike,
    *,
    shape: tuple[int, int] = MAP_SHAPE,
    rows: tuple[int, int] | None = None,
    keys: tuple[int, int] | None = None,
    lse: KnownLse = None,
    **options: Unpack[SoftmaxOptions[ArrayLike]],
) -> NDArray[np.float32]:
    """The attention map, mean-pooled to at most `shape` while its tiles stream: a picture of any length,
    with memory O(query_length + shape).

    Parameters
    ----------
    query, key:
        As in `attention`, and so are the other options.
    shape:
        Largest numbers of rows and columns of the result, a pair of integers >= 1. A range of the map that
        fits is not pooled.
    rows, keys:
        ``(start, stop)``, the query rows and the keys to look at; all by default. Weights stay those of the
        softmax over all keys.
    lse:
        As in `attention_rows`. A part of the map then costs its own cells alone.

    Returns
    -------
    Float32 ``[batch, heads, min(shape[0], rows), min(shape[1], keys)]``. Rows and keys fall into contiguous
    bins whose sizes differ by at most one (`rattention.mechanisms.pooled_map.bin_edges`), and each number is
    the mean weight over all cells of its bin, 0 for those that are hidden. Means times cells are mass: with
    all keys, those in a row of bins sum to the number of its query rows that see something. Bins without a
    visible cell, as those above the causal diagonal, are exactly 0. A NaN is in every bin that a row of NaN
    can see.

    Raises
    ------
    ValueError, TypeError
        As `attention`, and for an invalid `shape`, `rows`, `keys` or `lse`.
    """
    return run_map(scores(query, key, **options), shape, rows, keys, lse)


@shows_options_of(attention)
def attention_segments(
    query: ArrayLike,
    key: ArrayLike,
    query_edges: ArrayLike,
    key_edges: ArrayLike,
    *,
    lse: KnownLse = None,
    **options: Unpack[SoftmaxOptions[ArrayLike]],
) -> NDArray[np.float32]:
    """What segments of rows give to segments of keys: `attention_map` with bins of any size, and shares of a
    row's weight in the place of means.

    Parameters
    ----------
    query, key:
        As in `attention`, and so are the other options.
    query_edges, key_edges:
        Where segments of query rows and of keys begin, and where the last ends: two or more increasing
        integers from 0 to the length. Segment r is ``[edges[r], edges[r + 1])``. What lies outside of the
        segments is left out, and weights stay those of the softmax over all keys.
    lse:
        As in `attention_rows`. Segments of a part of the map then cost its own cells alone.

    Returns
    -------
    Float32 ``[batch, heads, len(query_edges) - 1, len(key_edges) - 1]``: the mean over the rows of a segment
    of the weight that they give to all keys of another. Over segments of all keys the shares sum to 1, sinks
    aside, where every row sees something. Segments without a visible cell are exactly 0. A NaN is in every
    segment that a row of NaN can see.

    Raises
    ------
    ValueError, TypeError
        As `attention`, and for invalid edges or `lse`.
    """
    return run_segments(scores(query, key, **options), query_edges, key_edges, lse)


@shows_options_of(attention)
def attention_top_keys(
    query: ArrayLike,
    key: ArrayLike,
    k: int = TOP_COUNT,
    *,
    rows: tuple[int, int] | None = None,
    lse: KnownLse = None,
    **options: Unpack[SoftmaxOptions[ArrayLike]],
) -> TopKeys[NDArray[Any]]:
    """The keys that every query row weighs most, with memory O(rows * k).

    Parameters
    ----------
    query, key:
        As in `attention`, and so are the other options.
    k:
        How many keys of each row, at least 1.
    rows:
        ``(start, stop)``, the query rows to look at; all by default.
    lse:
        As in `attention_rows`: one sweep over the keys in the place of two.

    Returns
    -------
    `TopKeys`: weights, float32, and positions of keys, int64, ``[batch, heads, rows, k]`` both, by falling
    weight and equal weights by position; 0 and -1 where a row sees fewer keys. Weights are those of
    `attention_rows`. A row of NaN has the first keys that it sees.

    Raises
    ------
    ValueError, TypeError
        As `attention`, and for an invalid `k`, `rows` or `lse`.
    """
    return run_top_keys(scores(query, key, **options), k, rows, lse)


@shows_options_of(attention)
def attention_distances(
    query: ArrayLike,
    key: ArrayLike,
    edges: ArrayLike,
    *,
    lse: KnownLse = None,
    **options: Unpack[SoftmaxOptions[ArrayLike]],
) -> NDArray[np.float32]:
    """The mass by distance: how much of their weight rows give to keys so far away.

    With edges ``[0, 65, 513, key_length]`` the sum over all but the first is what
    ``window=64`` would cut off, that over all but the first two what ``window=512`` would.

    Parameters
    ----------
    query, key:
        As in `attention`, and so are the other options.
    edges:
        Two or more increasing integers >= 0: bin d is ``edges[d] <= |i - j| < edges[d + 1]``, for the
        positions i of a query row (``row + query_offset``) and j of a key.
    lse:
        As in `attention_rows`. Keys beyond the last edge then cost nothing.

    Returns
    -------
    Float32 ``[batch, heads, len(edges) - 1]``: means over the query rows that may see some key; 0 where no
    row may. NaN in every bin in which a row of NaN sees a key.

    Raises
    ------
    ValueError, TypeError
        As `attention`, and for invalid `edges` or `lse`.
    """
    return run_distances(scores(query, key, **options), edges, lse)
