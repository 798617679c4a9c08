"""What the masks of a captured layer show: to one row, and in the cells of a pooled map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rattention.inspect.hooks import LayerAttention
from rattention.mechanisms.masks import Masks, query_positions, reference_visible, window_bounds
from rattention.mechanisms.pooled_map import bin_edges

NAMES = ("causal", "window", "key_mask", "segment_ids", "attn_mask", "query_offset")


def visible_keys(attention: LayerAttention, row: int) -> NDArray[np.bool_]:
    """Which keys query row `row` (>= 0) may see, ``[batch, heads, key_length]``."""
    batch, heads, rows, keys = _sizes(attention)
    masks = _masks(attention.options)
    masks = masks._replace(query_offset=int(query_positions(masks, rows, keys)[row]))
    if masks.attn_mask is not None:
        whole = np.broadcast_to(masks.attn_mask, (batch, heads, rows, keys))
        masks = masks._replace(attn_mask=whole[:, :, row : row + 1])
    visible, _ = reference_visible(masks, batch, heads, 1, keys)
    return visible[:, :, 0]


def shown_cells(
    attention: LayerAttention,
    weights: NDArray[Any],
    rows: tuple[int, int],
    keys: tuple[int, int],
) -> NDArray[np.bool_]:
    """In which cells of a pooled map a row sees a key, ``[rows, keys]`` of its bins, for the first sequence.

    `weights` is the map ``[heads, bins of rows, bins of keys]`` of the ranges `rows` and `keys`. Segments and
    dense masks are told by the weights themselves, 0 where nothing is seen.
    """
    masks = _masks(attention.options)
    down, across = (
        bin_edges(*span, bins) for span, bins in zip((rows, keys), weights.shape[1:], strict=True)
    )
    first, last = _reach(attention, masks, down)
    begin = np.maximum(across[None, :-1], first[:, None])
    end = np.minimum(across[None, 1:], last[:, None] + 1)
    shown = begin < end
    if masks.key_mask is not None:
        counted = np.concatenate([[0], np.cumsum(masks.key_mask[0])])
        shown &= counted[np.clip(end, 0, None)] > counted[np.minimum(begin, len(counted) - 1)]
    if masks.segment_ids is not None or masks.attn_mask is not None:
        shown &= (weights > 0).any(axis=0)
    return shown


def _reach(
    attention: LayerAttention, masks: Masks, down: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first and the last key that any row of each bin may see under causality and window."""
    _, _, rows, keys = _sizes(attention)
    positions = query_positions(masks, rows, keys)
    left, right = window_bounds(masks.window, masks.causal)
    first = np.zeros(len(down) - 1, np.int64) if left is None else positions[down[:-1]] - left
    last = np.full(len(down) - 1, keys - 1) if right is None else positions[down[1:] - 1] + right
    return np.maximum(first, 0), np.minimum(last, keys - 1)


def _masks(options: dict[str, Any]) -> Masks:
    return Masks(**{name: options[name] for name in NAMES if name in options})


def _sizes(attention: LayerAttention) -> tuple[int, int, int, int]:
    return (*attention.query.shape[:3], attention.key.shape[2])
