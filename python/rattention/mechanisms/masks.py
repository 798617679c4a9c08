"""Which keys a query row may see: the masks all softmax mechanisms share, and their slow reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rattention._arguments import brief

if TYPE_CHECKING:
    from numpy.typing import NDArray

Window = int | tuple[int | None, int | None] | None


class Masks(NamedTuple):
    """Masks that compose by AND, but for blocks, which show what causality and the window hide; query row i
    has position ``i + offset``, by default ``i + key_length - query_length``."""

    causal: bool = False
    window: Window = None
    key_mask: Any = None
    segment_ids: Any = None
    attn_mask: Any = None
    query_offset: int | None = None
    block_ids: Any = None
    cu_seqlens: Any = None


def masks_of(*masks: Any, **more_masks: Any) -> Masks:
    """Of their fields in order or by name; TypeError for the keywords of a user that are none."""
    unknown = next((name for name in more_masks if name not in Masks._fields), None)
    if unknown is not None:
        raise TypeError(f"got an unexpected keyword argument '{unknown}'")
    return Masks(*masks, **more_masks)


def window_bounds(window: Window, causal: bool) -> tuple[int | None, int | None]:
    """``(left, right)`` reach of a window in keys, None where unlimited. An int means one-sided under
    causal."""
    if window is None:
        return None, (0 if causal else None)
    if isinstance(window, tuple | list):
        if len(window) != 2:
            raise ValueError(f"window must be an integer or a pair (left, right), got {brief(window)}")
        left, right = (_reach(side, window) for side in window)
    else:
        left = right = _reach(window, window)
    if causal:
        right = 0
    return left, right


def _reach(value: object, window: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"window must be an integer, a pair of integers or None, got {brief(window)}")
    if value < 0:
        raise ValueError(f"window must be >= 0, got {brief(window)}")
    return int(value)


def packed_segments(cu_seqlens: NDArray[np.int64], batch: int, key_length: int) -> NDArray[np.int64]:
    """The ids ``[1, key_length]`` of sequences that lie one after another, from where each begins and where
    the last ends."""
    starts = [int(start) for start in cu_seqlens]
    if batch != 1:
        raise ValueError(f"cu_seqlens packs sequences into a batch of 1, got batch {batch}")
    if len(starts) < 2 or starts[0] != 0 or starts[-1] != key_length or sorted(starts) != starts:
        raise ValueError(
            f"cu_seqlens must rise from 0 to the number of keys ({key_length}), got {brief(starts)}"
        )
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))[None]


def segment_runs(ids: NDArray[Any]) -> NDArray[np.int64]:
    """Runs of equal ids ``[batch, length]``, counted from 0: one ends where the id changes."""
    runs: NDArray[np.int64] = np.cumsum(np.diff(ids, axis=1, prepend=ids[:, :1]) != 0, axis=1)
    return runs


def query_positions(masks: Masks, query_length: int, key_length: int) -> NDArray[np.int64]:
    """Position of each query row among the keys."""
    offset = key_length - query_length if masks.query_offset is None else masks.query_offset
    return np.arange(query_length, dtype=np.int64) + offset


def reference_visible(
    masks: Masks, batch: int, heads: int, query_length: int, key_length: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which keys each row may see, and what the float mask adds to the scores: two ``[B, H, Lq, Lk]``
    arrays."""
    i = query_positions(masks, query_length, key_length)[:, None]
    j = np.arange(key_length)[None, :]
    left, right = window_bounds(masks.window, masks.causal)
    visible = np.ones((batch, heads, query_length, key_length), bool)
    if left is not None:
        visible &= j >= i - left
    if right is not None:
        visible &= j <= i + right
    if masks.block_ids is not None:
        visible |= _in_blocks(np.asarray(masks.block_ids), i[:, 0])[:, None]
    if masks.key_mask is not None:
        visible &= np.asarray(masks.key_mask)[:, None, None, :]
    ids = masks.segment_ids
    if masks.cu_seqlens is not None:
        ids = packed_segments(np.asarray(masks.cu_seqlens), batch, key_length)
    if ids is not None:
        ids = np.asarray(ids)
        visible &= (ids[:, i[:, 0], None] == ids[:, None, :])[:, None]
    bias = np.zeros(visible.shape)
    if masks.attn_mask is not None:
        dense = np.broadcast_to(np.asarray(masks.attn_mask), visible.shape)
        if dense.dtype == bool:
            visible &= dense
        else:
            visible &= dense != -np.inf
            bias = np.where(visible, dense.astype(np.float64), 0.0)
    return visible, bias


def _in_blocks(ids: NDArray[Any], positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """``[batch, positions, keys]``: whether row and key lie in one run of equal ids >= 0."""
    batch, keys = ids.shape
    runs = np.where(ids >= 0, segment_runs(ids), -1)
    inside = (positions >= 0) & (positions < keys)
    own = np.full((batch, len(positions)), -2)
    own[:, inside] = runs[:, positions[inside]]
    blocks: NDArray[np.bool_] = (own[:, :, None] == runs[:, None, :]) & (runs >= 0)[:, None, :]
    return blocks
