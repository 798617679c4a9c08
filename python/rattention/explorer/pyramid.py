"""A whole map in bins, and in bins twice as large, again and again: large parts of it, from a few cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rattention.mechanisms.pooled_map import Range, bin_edges

COARSEST = 512
"""Bins along a side at which no coarser level is made."""


class Pyramid:
    """Levels of the mass in square bins: each bin has the sum of the weights of its cells.

    Parameters
    ----------
    means:
        ``[bins, bins]``, mean weights in the bins of `bin_edges`. Levels end where the number of bins is odd.
    length:
        Tokens along a side.
    """

    def __init__(self, means: NDArray[np.float32], length: int) -> None:
        sizes = np.diff(bin_edges(0, length, len(means))).astype(np.float32)
        self._length = length
        self._levels = [means * sizes[:, None] * sizes]
        while (bins := len(self._levels[-1])) > COARSEST and bins % 2 == 0:
            self._levels.append(self._levels[-1].reshape(bins // 2, 2, bins // 2, 2).sum(axis=(1, 3)))

    def is_as_fine(self, rows: Range, keys: Range, shape: tuple[int, int]) -> bool:
        """Whether a part has so many bins of its own."""
        return _is_as_fine(self._levels[0], self._length, rows, keys, shape)

    def cut(
        self, rows: Range, keys: Range, shape: tuple[int, int]
    ) -> tuple[NDArray[np.float32], Range, Range]:
        """Mean weights of a part in at most `shape` bins, and the part that they are of, which may be wider:
        whole bins of a level."""
        fine = [level for level in self._levels if _is_as_fine(level, self._length, rows, keys, shape)]
        level = (fine or self._levels[:1])[-1]
        edges = bin_edges(0, self._length, len(level))
        top, left = (
            bin_edges(int(edges.searchsorted(part[0], "right")) - 1, int(edges.searchsorted(part[1])), most)
            for part, most in zip((rows, keys), shape, strict=True)
        )
        mass = _sums(level[top[0] : top[-1], left[0] : left[-1]], top)
        mass = _sums(np.ascontiguousarray(mass.T), left).T
        cells = np.diff(edges[top])[:, None] * np.diff(edges[left])
        return (mass / cells).astype(np.float32), _ends(edges[top]), _ends(edges[left])


def _sums(rows: NDArray[np.float32], edges: NDArray[np.int64]) -> NDArray[np.float32]:
    """Sums of the rows between edges, the first of which is 0 here.

    There are few between two, which makes this three times as fast as `np.add.reduceat`.
    """
    starts, counts = edges[:-1] - edges[0], np.diff(edges)
    sums: NDArray[np.float32] = rows[starts]
    for further in range(1, int(counts.max())):
        some = counts > further
        sums[some] += rows[starts[some] + further]
    return sums


def _is_as_fine(
    level: NDArray[np.float32], length: int, rows: Range, keys: Range, shape: tuple[int, int]
) -> bool:
    parts = zip((rows, keys), shape, strict=True)
    return all((part[1] - part[0]) * len(level) >= most * length for part, most in parts)


def _ends(edges: NDArray[np.int64]) -> Range:
    return int(edges[0]), int(edges[-1])
