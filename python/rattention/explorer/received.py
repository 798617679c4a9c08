"""What each token receives, which takes a sweep over every map of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rattention.explorer.heads import of_head
from rattention.explorer.reading import Progress, Reading, no_progress
from rattention.inspect.hooks import LayerAttention
from rattention.mechanisms.masks import Masks

STAGE = "measuring"
Received = NDArray[np.float32]
"""Of a layer, ``[heads, tokens]``: mean weight over the rows that may see a token."""


def measure_received(
    reading: Reading, take: Callable[[int, Received], None], *, progress: Progress = no_progress
) -> None:
    """Call `take` with the number of every layer and what its tokens receive, one layer after the other.

    One sweep per head, in memory of O(tokens). `progress` is called before every head, and may raise to end
    it.
    """
    total = sum(layer.query.shape[1] for layer in reading.layers)
    done = 0
    for index, layer in enumerate(reading.layers):
        seen, sums = np.maximum(rows_that_see(layer), 1), []
        for head in range(layer.query.shape[1]):
            progress(STAGE, done, total)
            sums.append(_sums(of_head(layer, head)))
            done += 1
        take(index, (np.stack(sums) / seen).astype(np.float32))
    progress(STAGE, total, total)


def rows_that_see(layer: LayerAttention) -> NDArray[np.float64]:
    """How many query rows may see each key, ``[tokens]``: the sums of a map whose visible weights are all 1,
    those of e^(0 - 0)."""
    nothing = np.zeros((1, 1, layer.key.shape[2], 1), np.float32)
    masks = {name: value for name, value in layer.options.items() if name in Masks._fields}
    if masks.get("attn_mask") is not None:
        masks["attn_mask"] = _shows(masks["attn_mask"])
    return _sums(LayerAttention(layer.index, layer.name, nothing, nothing, masks, lse=nothing[..., 0]))


def _shows(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """The mask of the first head, True where something is seen."""
    first = mask[:, :1] if mask.ndim == 4 else mask[:1] if mask.ndim == 3 else mask
    return np.asarray(first if first.dtype == bool else first > -np.inf)


def _sums(head: LayerAttention) -> NDArray[np.float64]:
    """Of the weights on every key, of a layer of one head."""
    length = head.key.shape[2]
    return np.asarray(head.map((1, length))[0, 0, 0] * np.float64(length))


def mean_received(layers: list[Received], head: int | None) -> Received:
    """What each token receives, the mean over layers and, for None, over their heads."""
    some = [own if head is None else own[head : head + 1] for own in layers]
    means = [own.mean(axis=0, dtype=np.float64) for own in some if len(own)]
    return np.asarray(np.mean(means, axis=0), np.float32)
