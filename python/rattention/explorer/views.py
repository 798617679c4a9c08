"""Parts of the maps of a reading, as fast as one looks from one to the next."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from rattention.explorer.heads import of_head
from rattention.explorer.pyramid import Pyramid
from rattention.explorer.reading import Reading
from rattention.mechanisms.pooled_map import Range

FINE = 4096
"""Bins along a side of the whole map, from which large views are cut: a power of 2, see `Pyramid`."""
EXACT_CELLS = 2**22
"""Views of no more cells, over all heads that they average, are computed; what is larger is cut from
the whole map in bins where that has at least half as many as the view: to compute it would take too long to
look around."""
HELD = 3
"""Whole maps that are held, 85 MiB each."""


class Views:
    """Answers for one reading; threads may share it."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._whole: OrderedDict[tuple[int | None, int | None], Pyramid] = OrderedDict()
        self._lock = Lock()

    def map(
        self, layer: int | None, head: int | None, rows: Range, keys: Range, shape: tuple[int, int]
    ) -> tuple[NDArray[np.float32], Range, Range]:
        """Mean weights of a part of the map in at most `shape` bins, and the part that they are of, which may
        be wider than was asked for; None averages over layers or heads."""
        heads = (self._reading.heads if head is None else 1) * (
            len(self._reading.layers) if layer is None else 1
        )
        if (rows[1] - rows[0]) * (keys[1] - keys[0]) * heads > EXACT_CELLS:
            whole = self._pyramid(layer, head)
            if whole.is_as_fine(rows, keys, (-(-shape[0] // 2), -(-shape[1] // 2))):
                return whole.cut(rows, keys, shape)
        return self._pooled(layer, head, rows, keys, shape), rows, keys

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

    def _pyramid(self, layer: int | None, head: int | None) -> Pyramid:
        """The whole map in bins, held for the next view."""
        with self._lock:
            if (layer, head) not in self._whole:
                while len(self._whole) >= HELD:
                    self._whole.popitem(last=False)
                self._whole[layer, head] = Pyramid(self._mean(layer, head), len(self._reading.document))
            self._whole.move_to_end((layer, head))
            return self._whole[layer, head]

    def _mean(self, layer: int | None, head: int | None) -> NDArray[np.float32]:
        """The whole map in bins, one head at a time: many maps of this size would take much memory."""
        chosen = self._reading.chosen(layer, head)
        total = np.zeros((min(FINE, len(self._reading.document)),) * 2, np.float32)
        for one in chosen:
            heads = int(one.query.shape[1])
            for index in range(heads):
                total += of_head(one, index).map(total.shape)[0, 0] * np.float32(1 / heads / len(chosen))
        return total

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
