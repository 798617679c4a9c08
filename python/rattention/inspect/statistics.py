"""Statistics of the attention of a model, streamed while it reads samples: no map is ever stored.

For each sample, layer and head there are statistics of the *query row* (by default the last row, whose
attention decides what the model does next) and their means over all rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rattention._arguments import chosen_numbers, whole_number
from rattention._metrics import AttentionMetrics
from rattention._models import evaluating, kind_of
from rattention.inspect.hooks import LayerAttention, visiting
from rattention.mechanisms.masks import Masks, query_positions, reference_visible, window_bounds
from rattention.mechanisms.pooled_map import bin_edges

OVER_ROWS = ("context_mean", "context_std", "entropy", "recent_distant_ratio")
"""Metrics with a mean over all rows; see `rattention.AttentionMetrics`."""
TOP_SHARE = 0.1
"""`top_mass` is the mass on this share of the visible positions."""
MOST_MASS = 0.9
"""The positions that hold this share of the mass are the *attended* ones."""
SINKS = 4
"""`sink_mass` is the mass on so many first positions."""

Span = tuple[int | None, int | None]


@dataclass(frozen=True, eq=False)
class Sample:
    """One sequence for a model."""

    name: str
    """What figures and tables call it."""
    inputs: tuple[Any, ...] = ()
    """Positional arguments of the model, of one sequence (batch 1)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the model."""
    labels: tuple[str, ...] = ()
    """What the positions are called: tokens or steps; numbers where there are none."""
    episodes: tuple[int, ...] = ()
    """The positions at which episodes begin, where there are any."""

    def run(self, model: Any) -> Any:
        """The model's output, without gradients and dropout."""
        with evaluating(model) if kind_of(model) in ("torch", "transformers") else nullcontext():
            return model(*self.inputs, **self.options)


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
class RowStatistics:
    """Numbers of one query row, float64 ``[heads]`` each; weights are shares of 1."""

    context: NDArray[np.int64]
    """Positions that the row sees besides its own."""
    context_mean: NDArray[np.float64]
    """Mean weight over the context."""
    context_std: NDArray[np.float64]
    """Population standard deviation of the weights over the context."""
    entropy: NDArray[np.float64]
    """Of all weights, in nats."""
    relative_entropy: NDArray[np.float64]
    """Entropy over ln of the number of visible positions, its largest value: 1 is even attention. NaN where
    one position alone is visible."""
    recent_distant_ratio: NDArray[np.float64]
    """Mean weight of the nearest quarter of the context over that of the farthest. NaN where the context has
    fewer than two positions."""
    top_mass: NDArray[np.float64]
    """Mass on the tenth of the visible positions, at least one, that has most."""
    needed_share: NDArray[np.float64]
    """Share of the visible positions that it takes to hold 90 % of the mass: the attended positions."""
    clustering: NDArray[np.float64]
    """Mean length of the runs of attended positions, over what it would be were as many positions drawn at
    random; 1 is chance. NaN where they are one run: that is a stretch, and no groups."""
    sink_mass: NDArray[np.float64]
    """Mass on the first four positions of the sequence."""


STATISTICS = tuple(field.name for field in fields(RowStatistics) if field.name != "context")


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
    row: int = -1
    """The query row."""


@dataclass(frozen=True, eq=False)
class SampleMeasure:
    """What was measured on one sample."""

    name: str
    labels: tuple[str, ...]
    """What the positions are called; empty where they have numbers alone."""
    layers: tuple[LayerMeasure, ...]
    episodes: tuple[int, ...] = ()
    """As in `Sample`."""

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
    return SampleMeasure(sample.name, sample.labels, tuple(measured), sample.episodes)


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
    if not np.isfinite(metrics.entropy).all():
        raise ValueError(
            f"layer {attention.index} ({attention.name}) attends with NaN in {sample}: weights or inputs of "
            "the model hold NaN or infinity"
        )
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
        row=at % rows,
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


def row_statistics(
    metrics: AttentionMetrics,
    weights: NDArray[np.float32],
    visible: NDArray[np.bool_],
    heads: Sequence[int],
    row: int,
) -> RowStatistics:
    """Statistics of row `row` from the `metrics` of one sequence, and the row's `weights` and `visible` keys,
    ``[heads, keys]``, of the chosen `heads`."""
    seen = visible.sum(axis=1)
    measured = {name: getattr(metrics, name)[0, heads, row].astype(np.float64) for name in OVER_ROWS}
    attended = [attended_positions(w, v) for w, v in zip(weights, visible, strict=True)]
    return RowStatistics(
        context=np.maximum(seen - 1, 0),
        **measured,
        relative_entropy=np.where(seen > 1, measured["entropy"] / np.log(np.maximum(seen, 2)), np.nan),
        top_mass=np.array([top_mass(w, v) for w, v in zip(weights, visible, strict=True)]),
        needed_share=np.array([len(a) / max(n, 1) for a, n in zip(attended, seen, strict=True)]),
        clustering=np.array([clustering(a, n) for a, n in zip(attended, seen, strict=True)]),
        sink_mass=weights[:, :SINKS].sum(axis=1, dtype=np.float64),
    )


def top_mass(weights: NDArray[np.float32], visible: NDArray[np.bool_]) -> float:
    """Mass on the tenth of the visible positions that has most."""
    count = max(1, int(TOP_SHARE * visible.sum()))
    return float(np.sort(weights[visible].astype(np.float64))[-count:].sum())


def attended_positions(weights: NDArray[np.float32], visible: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The fewest positions that together hold `MOST_MASS` of the mass, ascending."""
    positions = np.flatnonzero(visible)
    order = positions[np.argsort(-weights[positions], kind="stable")]
    mass = np.cumsum(weights[order], dtype=np.float64)
    if not len(mass) or mass[-1] == 0:
        return positions[:0]
    return np.sort(order[: np.searchsorted(mass, MOST_MASS * mass[-1]) + 1])


def clustering(attended: NDArray[np.int64], visible: int) -> float:
    """Mean length of the runs of `attended` positions over the mean length when as many of `visible` are
    drawn at random, ``1 / (1 - share)`` for long sequences; NaN for fewer than two runs."""
    runs = 1 + np.count_nonzero(np.diff(attended) > 1) if len(attended) else 0
    if runs < 2:
        return float("nan")
    expected = visible / (visible - len(attended) + 1)
    return float(len(attended) / runs / expected)


def visible_keys(attention: LayerAttention, row: int) -> NDArray[np.bool_]:
    """Which keys query row `row` (>= 0) may see, ``[batch, heads, key_length]``."""
    (batch, heads, rows), keys = attention.query.shape[:3], attention.key.shape[2]
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
    dense masks are inferred from the weights, which are 0 where hidden.
    """
    masks = _masks(attention.options)
    down, across = (
        bin_edges(*span, bins) for span, bins in zip((rows, keys), weights.shape[1:], strict=True)
    )
    # The first and the last key that any row of each bin may see under causality and window.
    length = attention.key.shape[2]
    positions = query_positions(masks, attention.query.shape[2], length)
    left, right = window_bounds(masks.window, masks.causal)
    first = 0 if left is None else np.maximum(positions[down[:-1], None] - left, 0)
    last = length - 1 if right is None else np.minimum(positions[down[1:] - 1, None] + right, length - 1)
    begin, end = np.maximum(across[:-1], first), np.minimum(across[1:], last + 1)
    shown = np.broadcast_to(begin < end, weights.shape[1:]).copy()
    if masks.key_mask is not None:
        counted = np.concatenate([[0], np.cumsum(masks.key_mask[0])])
        shown &= counted[np.clip(end, 0, None)] > counted[np.minimum(begin, len(counted) - 1)]
    if masks.segment_ids is not None or masks.attn_mask is not None:
        shown &= (weights > 0).any(axis=0)
    return shown


def _masks(options: dict[str, Any]) -> Masks:
    return Masks(**{name: options[name] for name in Masks._fields if name in options})
