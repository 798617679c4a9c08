"""Which passages of a document read which, for pages that hold no queries and keys."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rattention.explorer.document import Document
from rattention.explorer.heads import of_head
from rattention.explorer.reading import Progress, Reading, no_progress
from rattention.mechanisms.pooled_map import bin_edges

MOST_UNITS = 1500
"""Units of a document at most."""
KEPT = 8
"""Units that are told of each."""
Choice = tuple[int | None, int | None]
"""A layer and a head; None stands for all."""
Found = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Units and shares ``[units, KEPT]``, by falling share."""


class Passages(NamedTuple):
    """Of every unit: the mean over its rows of the mass that it gives, and that other units give it."""

    to: Found
    by: Found


def units_of(document: Document) -> NDArray[np.int64]:
    """Edges of tokens, words, sentences or groups of tokens, as fine as `MOST_UNITS` allows."""
    length = len(document)
    for starts in (np.arange(length), document.words, document.sentences):
        if len(starts) <= MOST_UNITS:
            return np.append(starts, length).astype(np.int64)
    return bin_edges(0, length, MOST_UNITS)


def passages(
    reading: Reading, units: NDArray[np.int64], choices: set[Choice], progress: Progress = no_progress
) -> dict[Choice, Passages]:
    """What is told of each choice; one sweep over all maps, in memory of a few maps of units."""
    found: dict[Choice, Passages] = {}
    total, done = sum(layer.query.shape[1] for layer in reading.layers), 0
    sums: dict[Choice, tuple[NDArray[np.float32], float]] = {}
    for index, layer in enumerate(reading.layers):
        for head in range(layer.query.shape[1]):
            progress("passages", done, total)
            mass = of_head(layer, head).segments(units, units)[0, 0]
            for choice in {(index, head), (index, None), (None, head), (None, None)} & choices:
                before, weight = sums.get(choice, (np.float32(0), 0.0))
                own = 1 if choice[1] is not None else 1 / layer.query.shape[1]  # layers count alike
                sums[choice] = before + np.float32(own) * mass, weight + own
            done += 1
        for choice in [c for c in sums if c[0] == index]:
            found[choice] = _told(*sums.pop(choice))
    return found | {choice: _told(*summed) for choice, summed in sums.items()}


def _told(sums: NDArray[np.float32], weight: float) -> Passages:
    means = sums / np.float32(weight)
    return Passages(_largest(means), _largest(means.T))


def _largest(means: NDArray[np.float32]) -> Found:
    """The largest of every row."""
    count = min(KEPT, means.shape[1])
    known = np.nan_to_num(means)
    some = np.argpartition(known, -count, axis=1)[:, -count:]
    shares = np.take_along_axis(known, some, axis=1)
    order = np.argsort(-shares, axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1), np.take_along_axis(shares, order, axis=1)
