"""What a row of attention looks like, as numbers: definitions, options, results and the slow reference.

All logarithms are natural. *Visible* keys are those no mask hides; the *context* of a query row is its
visible keys except the row's own position. Weights ``p`` are those of the softmax over the visible keys.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from rattention._arguments import at_least, fields_in_brief, truth

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from typing_extensions import TypeVar

    ArrayT = TypeVar("ArrayT", default=NDArray[Any])
else:
    from typing import TypeVar

    ArrayT = TypeVar("ArrayT")
"""NumPy arrays, or tensors in the results of `rattention.torch`."""


@dataclass(frozen=True)
class MetricOptions:
    """What to measure, and at which distances.

    Parameters
    ----------
    local_radius:
        ``local_concentration`` counts keys at most this many positions from the query. An integer >= 0.
    long_range_distance:
        ``long_range`` counts keys more than this many positions from the query. An integer >= 0.
    received:
        Also measure the attention every key receives. It costs a second sweep over the scores.
    """

    local_radius: int = 5
    long_range_distance: int = 50
    received: bool = True

    def __post_init__(self) -> None:
        for name in ("local_radius", "long_range_distance"):
            at_least(name, getattr(self, name), 0)
        truth("received", self.received)


@dataclass(frozen=True, eq=False, repr=False)
class AttentionMetrics(Generic[ArrayT]):
    """Metrics of every attention map, one number per query row: float32 arrays ``[batch, heads,
    query_length]``, or tensors where the inputs were.

    A row that may attend to nothing has entropy, masses, retention and means 0, ``recent_distant_ratio`` NaN
    and ``max_position`` -1.
    """

    entropy: ArrayT
    """``-sum_j p log p``, in nats."""
    local_concentration: ArrayT
    """Mass on keys with ``|i - j| <= local_radius``."""
    long_range: ArrayT
    """Mass on keys with ``|i - j| > long_range_distance``."""
    retention: ArrayT
    """Mean of the terms that exist: ``entropy / ln(visible)`` (visible > 1), ``1 - local_concentration`` and
    ``min(1, long_range / u)``, where u > 0 is the share of visible keys farther than
    ``long_range_distance``."""
    context_mean: ArrayT
    """Mean weight over the context; 0 where the context is empty."""
    context_std: ArrayT
    """Population standard deviation of the weights over the context; 0 where the context is empty."""
    recent_distant_ratio: ArrayT
    """Mean weight of the nearest quarter of the context over that of the farthest quarter (each at least one
    key; ties go to the lower index). NaN where the context has fewer than two keys."""
    max_weight: ArrayT
    """The largest weight."""
    max_position: ArrayT
    """The key with the largest weight, int64; the lowest index among equals, -1 where there is none."""
    received: ArrayT | None = None
    """Per key, ``[batch, heads, key_length]``: mean weight over the query rows that may see it; 0 where none
    may. None when it was not asked for."""

    @property
    def empty_rows(self) -> ArrayT:
        """Rows that may attend to nothing, ``[batch, heads, query_length]``: they belong in no average."""
        rows: Any = self
        empty: ArrayT = (rows.max_position < 0) & (rows.entropy == 0)
        return empty

    def __repr__(self) -> str:
        return fields_in_brief(self, [name for name, _ in self])

    def __iter__(self) -> Iterator[tuple[str, ArrayT]]:
        """Iterate over ``(name, array)`` of what was measured."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                yield field.name, value


ROW_METRICS = tuple(f.name for f in fields(AttentionMetrics) if f.name != "received")
"""The names of the metrics that have one number per query row."""


def reference_metrics(
    weights: NDArray[np.float64],
    visible: NDArray[np.bool_],
    positions: NDArray[np.int64],
    options: MetricOptions,
) -> AttentionMetrics:
    """Metrics from a stored map, by the definitions, in float64. Slow: for tests and for reading.

    Parameters
    ----------
    weights:
        Attention weights ``[batch, heads, query_length, key_length]``, 0 where hidden.
    visible:
        Which weights are not hidden, same shape.
    positions:
        Position of every query row among the keys, ``[query_length]``.
    options:
        Distances and choices.
    """
    batch, heads, rows, _ = weights.shape
    out = {name: np.zeros((batch, heads, rows)) for name in ROW_METRICS}
    for index in np.ndindex(batch, heads, rows):
        row = _reference_row(weights[index], visible[index], int(positions[index[2]]), options)
        for name, value in row.items():
            out[name][index] = value
    seen = visible.sum(axis=2)
    received = weights.sum(axis=2) / np.maximum(seen, 1) if options.received else None
    position = out.pop("max_position").astype(np.int64)
    return AttentionMetrics(**out, max_position=position, received=received)


def _reference_row(
    p: NDArray[np.float64], visible: NDArray[np.bool_], position: int, options: MetricOptions
) -> dict[str, float]:
    keys = np.flatnonzero(visible)
    distance = np.abs(keys - position)
    far = distance > options.long_range_distance
    weights = p[keys]
    positive = weights[weights != 0]  # NaN included
    row = {
        "entropy": float(-(positive * np.log(positive)).sum()),
        "local_concentration": float(weights[distance <= options.local_radius].sum()),
        "long_range": float(weights[far].sum()),
        "max_weight": float(weights.max(initial=0.0)),
        "max_position": int(keys[weights.argmax()]) if keys.size else -1,
    }
    terms = [1 - row["local_concentration"]]
    if keys.size > 1:
        terms.append(row["entropy"] / np.log(keys.size))
    if far.any():
        terms.append(min(1.0, row["long_range"] / far.mean()))
    row["retention"] = float(np.mean(np.clip(terms, 0, 1))) if keys.size else 0.0

    context = keys != position
    row["context_mean"] = float(weights[context].mean()) if context.any() else 0.0
    row["context_std"] = float(weights[context].std()) if context.any() else 0.0
    row["recent_distant_ratio"] = _reference_ratio(weights[context], distance[context])
    return row


def _reference_ratio(weights: NDArray[np.float64], distance: NDArray[np.int64]) -> float:
    if weights.size < 2:
        return float("nan")
    quarter = max(1, weights.size // 4)
    nearest = np.argsort(distance, kind="stable")[:quarter]
    farthest = np.argsort(-distance, kind="stable")[:quarter]
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(weights[nearest].mean() / weights[farthest].mean())
