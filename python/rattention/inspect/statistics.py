"""Statistics of the attention of a model, streamed while it reads samples: no map is ever stored.

Of each sample, layer and head there are numbers of the *query row*, the last one unless another is chosen,
whose attention decides what the model does next, and their means over all rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rattention._arguments import chosen_numbers, whole_number
from rattention._metrics import AttentionMetrics
from rattention.inspect.hooks import LayerAttention, visiting
from rattention.inspect.query_row import RowStatistics, row_statistics
from rattention.inspect.samples import Sample
from rattention.inspect.visibility import shown_cells, visible_keys

OVER_ROWS = ("context_mean", "context_std", "entropy", "recent_distant_ratio")
"""Metrics with a mean over all rows; see `rattention.AttentionMetrics`."""


Span = tuple[int | None, int | None]


@dataclass(frozen=True)
class MapOptions:
    """Which part of the maps to keep, and how finely."""

    shape: tuple[int, int] = (192, 192)
    """Most rows and columns of a picture; longer maps are mean-pooled."""
    rows: Span = (None, None)
    """Query rows ``(start, stop)``, as in a slice: negative from the end, None for the end itself."""
    keys: Span = (None, None)
    """Keys, the same way."""


@dataclass(frozen=True, eq=False)
class PooledMap:
    """The maps of a layer's heads as pictures."""

    weights: NDArray[np.float32]
    """``[heads, bins of rows, bins of keys]``: the mean weight in each cell."""
    shown: NDArray[np.bool_]
    """``[bins of rows, bins of keys]``: False where no row sees a key."""
    rows: tuple[int, int]
    keys: tuple[int, int]
    """The ranges that the picture covers, ``(start, stop)``."""


@dataclass(frozen=True, eq=False)
class LayerMeasure:
    """The attention of one layer to one sample; arrays of heads are in the order of `Findings.heads`."""

    layer: int
    """Of the model, from 0."""
    query: RowStatistics
    """Of the query row."""
    mean: dict[str, NDArray[np.float64]]
    """By the names in `OVER_ROWS`, ``[heads]``: the mean over all rows, of the ratio the median; NaN is left
    out."""
    weights: NDArray[np.float32]
    """``[heads, keys]``: the query row itself."""
    received: NDArray[np.float32]
    """``[heads, keys]``: the mean weight that each position gets from the rows that may see it."""
    map: PooledMap | None
    """Where maps were asked for."""


@dataclass(frozen=True, eq=False)
class SampleMeasure:
    """What was measured on one sample."""

    name: str
    labels: tuple[str, ...]
    """What the positions are called; empty where they have numbers alone."""
    layers: tuple[LayerMeasure, ...]

    @property
    def sequence_length(self) -> int:
        """Positions of the longest layer."""
        return max(len(layer.weights[0]) for layer in self.layers)

    @property
    def context_tokens(self) -> int:
        """Positions that the query row sees besides its own, in the layer that sees most."""
        return int(max(layer.query.context.max() for layer in self.layers))


def examine_sample(
    model: Any,
    sample: Sample,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    row: int = -1,
    maps: MapOptions | None = None,
) -> SampleMeasure:
    """Run `model` on one sample and measure the layers and heads named; all by default.

    Raises
    ------
    ValueError
        A layer, head, row or range that does not exist, a batch of several sequences, or attention that is
        NaN.
    """
    measured: list[LayerMeasure] = []
    there = 0

    def visit(attention: LayerAttention) -> None:
        nonlocal there
        there = max(there, attention.index + 1)
        if layers is None or attention.index in layers:
            measured.append(measure_layer(attention, sample.name, heads, row, maps))

    with visiting(model, visit):
        sample.run(model)
    chosen_numbers("layers", layers, range(there))
    return SampleMeasure(sample.name, sample.labels, tuple(measured))


def measure_layer(
    attention: LayerAttention,
    sample: str,
    heads: Iterable[int] | None,
    row: int,
    maps: MapOptions | None,
) -> LayerMeasure:
    """One layer of one sample, as `examine_sample` does it."""
    batch, count, rows, _ = attention.query.shape
    if batch != 1:
        raise ValueError(f"a sample must be one sequence, got a batch of {batch} in {sample}")
    chosen = list(chosen_numbers("heads", heads, range(count)))
    at = whole_number("row", row)
    if not -rows <= at < rows:
        raise ValueError(f"row must be between {-rows} and {rows - 1} in {sample}, got {row}")
    metrics = attention.metrics()
    _require_numbers(attention, metrics, sample)
    weights = attention.rows([at])[0, chosen, 0]
    visible = visible_keys(attention, at % rows)[0, chosen]
    assert metrics.received is not None
    return LayerMeasure(
        layer=attention.index,
        query=row_statistics(metrics, weights, visible, chosen, at),
        mean={
            name: _over_rows(name, getattr(metrics, name)[0, chosen], ~metrics.empty_rows[0, chosen])
            for name in OVER_ROWS
        },
        weights=weights,
        received=metrics.received[0, chosen],
        map=None if maps is None else _picture(attention, chosen, maps, sample),
    )


def _over_rows(name: str, values: NDArray[np.float32], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """``[heads, rows]`` to ``[heads]``, over the rows that are `counted`; a ratio is large where the distant
    quarter gets next to nothing, and one such row must not speak for all."""
    numbers = values.astype(np.float64)
    if name != "recent_distant_ratio":
        return np.asarray(numbers.sum(axis=1, where=counted) / np.maximum(counted.sum(axis=1), 1))
    return np.array([np.median(r[~np.isnan(r)]) if (~np.isnan(r)).any() else np.nan for r in numbers])


def _picture(attention: LayerAttention, heads: list[int], options: MapOptions, sample: str) -> PooledMap:
    rows = _positions("rows", options.rows, attention.query.shape[2], sample)
    keys = _positions("keys", options.keys, attention.key.shape[2], sample)
    weights = attention.map(options.shape, rows, keys)[0]
    return PooledMap(weights[heads], shown_cells(attention, weights, rows, keys), rows, keys)


def _positions(name: str, span: Span, length: int, sample: str) -> tuple[int, int]:
    """The span without negative numbers and None; ValueError where it is empty or outside."""
    start, stop = span[0] or 0, length if span[1] is None else span[1]
    first, last = (at + length if at < 0 else at for at in (start, stop))
    if not 0 <= first < last <= length:
        raise ValueError(f"{name} {start}:{stop} does not lie within the {length} positions of {sample}")
    return first, last


def _require_numbers(attention: LayerAttention, metrics: AttentionMetrics, sample: str) -> None:
    if not np.isfinite(metrics.entropy).all():
        raise ValueError(
            f"layer {attention.index} ({attention.name}) attends with NaN in {sample}: weights or inputs of "
            "the model hold NaN or infinity"
        )
