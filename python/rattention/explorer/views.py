"""Parts of the maps of a reading, as fast as one looks from one to the next."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from rattention.explorer.reading import Reading
from rattention.mechanisms.pooled_map import Range, bin_edges

FINE = (2048, 4096)
"""Fewest and most bins along a side of the whole map, from which large views are cut; bins of `TOKENS` in
between."""
TOKENS = 32
EXACT_CELLS = 2**24
"""Views of no more cells, over all heads that they average, are computed; what is larger is cut from
the whole map in bins where that is as fine as the view."""
HELD = 4
"""Whole maps that are held, 64 MiB each at most."""


class Views:
    """Answers for one reading; threads may share it."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._fine = max(FINE[0], min(FINE[1], len(reading.document) // TOKENS))
        self._whole: OrderedDict[tuple[int | None, int | None], NDArray[np.float32]] = OrderedDict()
        self._lock = Lock()

    def map(
        self, layer: int | None, head: int | None, rows: Range, keys: Range, shape: tuple[int, int]
    ) -> tuple[NDArray[np.float32], Range, Range]:
        """Mean weights of a part of the map in at most `shape` bins, and the part that they are of, which may
        be wider than was asked for; None averages over layers or heads."""
        if self._is_computed(layer, head, rows, keys, shape):
            return self._pooled(layer, head, rows, keys, shape), rows, keys
        return _cut(self.whole(layer, head), len(self._reading.document), rows, keys, shape)

    def reads(self, layer: int | None, head: int | None, start: int, stop: int) -> NDArray[np.float32]:
        """Mean weights that rows `start` to `stop` - 1 give to each key."""
        length = len(self._reading.document)
        mean: NDArray[np.float32] = self._pooled(layer, head, (start, stop), (0, length), (1, length))[0]
        return mean

    def readers(self, layer: int | None, head: int | None, start: int, stop: int) -> NDArray[np.float32]:
        """The weight that each row gives to keys `start` to `stop` - 1 together."""
        length = len(self._reading.document)
        means = self._pooled(layer, head, (0, length), (start, stop), (length, 1))[:, 0]
        return np.asarray(means * np.float32(stop - start))

    def whole(self, layer: int | None, head: int | None) -> NDArray[np.float32]:
        """The whole map in bins, held for the next view."""
        with self._lock:
            if (layer, head) not in self._whole:
                length = len(self._reading.document)
                while len(self._whole) >= HELD:
                    self._whole.popitem(last=False)
                everything, bins = (0, length), (self._fine, self._fine)
                self._whole[layer, head] = self._pooled(layer, head, everything, everything, bins)
            self._whole.move_to_end((layer, head))
            return self._whole[layer, head]

    def _is_computed(
        self, layer: int | None, head: int | None, rows: Range, keys: Range, shape: tuple[int, int]
    ) -> bool:
        length = len(self._reading.document)
        heads = (self._reading.heads if head is None else 1) * (
            len(self._reading.layers) if layer is None else 1
        )
        cells = (rows[1] - rows[0]) * (keys[1] - keys[0]) * heads
        as_fine = all(
            (part[1] - part[0]) * self._fine >= most * length
            for part, most in zip((rows, keys), shape, strict=True)
        )
        return cells <= EXACT_CELLS or not as_fine

    def _pooled(
        self, layer: int | None, head: int | None, rows: Range, keys: Range, shape: tuple[int, int]
    ) -> NDArray[np.float32]:
        """The mean over the chosen layers and heads, computed one layer at a time."""
        total, count = np.zeros(1, np.float64), 0
        for chosen in self._reading.chosen(layer, head):
            maps = chosen.map(shape, rows, keys)[0]
            total = total + maps.mean(axis=0, dtype=np.float64)
            count += 1
        return np.asarray(total / count, np.float32)


def _cut(
    whole: NDArray[np.float32], length: int, rows: Range, keys: Range, shape: tuple[int, int]
) -> tuple[NDArray[np.float32], Range, Range]:
    """A part of a pooled map in at most `shape` bins: whole bins of it, so that the part may be wider."""
    edges = bin_edges(0, length, len(whole))
    top, left = (
        _groups(length, len(whole), part, most) for part, most in zip((rows, keys), shape, strict=True)
    )
    heights, widths = np.diff(edges[top]), np.diff(edges[left])
    sizes = np.diff(edges)
    part = whole[top[0] : top[-1], left[0] : left[-1]] * sizes[top[0] : top[-1], None]
    sums = np.add.reduceat(part, top[:-1] - top[0], axis=0, dtype=np.float64) * sizes[left[0] : left[-1]]
    sums = np.add.reduceat(sums, left[:-1] - left[0], axis=1)
    means = (sums / (heights[:, None] * widths)).astype(np.float32)
    return means, (int(edges[top[0]]), int(edges[top[-1]])), (int(edges[left[0]]), int(edges[left[-1]]))


def _groups(length: int, count: int, part: Range, most: int) -> NDArray[np.int64]:
    """Edges of at most `most` groups of those of `count` bins that hold a part."""
    return bin_edges(part[0] * count // length, -(-part[1] * count // length), most)
