"""What a model attended with while it read a document: queries and keys of every layer, and the logarithms of
the denominators, by which any part of a map can be computed alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rattention._metrics import ROW_METRICS, MetricOptions
from rattention.explorer.document import Document
from rattention.explorer.heads import of_head
from rattention.inspect import Sample
from rattention.inspect.hooks import LayerAttention, attention_layers, visiting
from rattention.mechanisms.pooled_map import bin_edges

MEASURED = tuple(name for name in ROW_METRICS if name != "max_position")
"""The metrics of rows that have a mean."""
BINS = 512
"""Along the positions of a curve."""

Progress = Callable[[str, int, int], None]
"""Called with a stage, and how much of it is done of how much."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Show nothing."""


@dataclass(eq=False, repr=False)
class Reading:
    """A document, and what each layer attended with."""

    document: Document
    model: str
    layers: list[LayerAttention] = field(default_factory=list)
    """Each with its `LayerAttention.lse`."""
    curves: list[NDArray[np.float32]] = field(default_factory=list)
    """Of every layer, the metrics along the positions, ``[metrics, heads, bins]``: means of those rows of a
    bin that see something, NaN where none does."""
    means: list[NDArray[np.float32]] = field(default_factory=list)
    """Of every layer, their means over all rows, ``[metrics, heads]``."""

    def __repr__(self) -> str:
        return f"Reading({self.document!r}, model={self.model!r}, layers={len(self.layers)})"

    @property
    def heads(self) -> int:
        """The most that a layer has."""
        return self.heads_of(None)

    def heads_of(self, layer: int | None) -> int:
        """As many as that layer has; None for the most."""
        return max(int(one.query.shape[1]) for one in self.chosen(layer, None))

    @property
    def edges(self) -> NDArray[np.int64]:
        """Where bins of `curves` begin, and where the last ends; what the model wrote has one a token."""
        length, generated = len(self.document), self.document.generated
        if generated is None:
            return bin_edges(0, length, BINS)
        return np.concatenate([bin_edges(0, generated, BINS)[:-1], np.arange(generated, length + 1)])

    def chosen(self, layer: int | None, head: int | None) -> list[LayerAttention]:
        """The layers, or single heads of them, that a choice averages over; None chooses all."""
        layers = self.layers if layer is None else [self.layers[layer]]
        if head is None:
            return layers
        return [of_head(one, head) for one in layers if head < one.query.shape[1]]

    def add(self, layer: LayerAttention, options: MetricOptions) -> None:
        """Take what a layer attends with, and measure it in the pass that computes its output."""
        if layer.query.shape[:1] + layer.query.shape[2:3] != (1, len(self.document)):
            raise ValueError(
                f"{layer.name} attends with shape {layer.query.shape} for a document of {len(self.document)} "
                "tokens: the explorer shows models that read one sequence in one pass"
            )
        if layer.key.shape[2] != layer.query.shape[2]:
            return  # a decoder that looks at an encoder
        metrics = layer.attend(options, with_lse=True)
        rows = np.stack([getattr(metrics, name)[0] for name in MEASURED]).astype(np.float32)
        rows[:, np.asarray(metrics.empty_rows)[0]] = np.nan
        self.layers.append(layer)
        self.curves.append(_means(rows, self.edges))
        self.means.append(_means(rows, np.array([0, rows.shape[2]]))[..., 0])


def read(
    model: Any,
    sample: Sample,
    document: Document,
    *,
    name: str = "",
    metrics: MetricOptions | None = None,
    progress: Progress = no_progress,
) -> Reading:
    """Let `model` read a document once, and keep what its layers attend with.

    Parameters
    ----------
    model:
        As in `rattention.inspect.capture`.
    sample:
        What the model is called with: one sequence.
    document:
        Its tokens.
    name:
        What the model is called; its class by default.
    metrics:
        Distances; ``received`` is left to `rattention.explorer.received`.
    progress:
        Called after every layer; an exception it raises ends the reading.

    Memory is that of queries, keys and one number per head and token. ValueError where the model reads
    anything but one sequence of the document's length, or has no layers that attend to it.
    """
    reading = Reading(document, name or type(model).__name__)
    given = metrics or MetricOptions()
    options = MetricOptions(given.local_radius, given.long_range_distance, received=False)
    total = len(attention_layers(model))

    def visit(layer: LayerAttention) -> None:
        reading.add(layer, options)
        progress("reading", len(reading.layers), total)

    progress("reading", 0, total)
    with visiting(model, visit):
        sample.run(model)
    if not reading.layers:
        raise ValueError(f"no layer of {reading.model} attends to the document's own tokens")
    return reading


def read_sample(
    model: Any, sample: Sample, name: str = "", title: str = "", progress: Progress = no_progress
) -> Reading:
    """The reading of a sample whose labels are the document."""
    document = Document.of_labels(sample.labels, title or sample.name, sample.episodes)
    return read(model, sample, document, name=name, progress=progress)


def _means(rows: NDArray[np.float32], edges: NDArray[Any]) -> NDArray[np.float32]:
    """Means over the bins of the last axis, without NaN."""
    there = ~np.isnan(rows)
    starts = edges[:-1]
    total = np.add.reduceat(np.where(there, rows, 0), starts, axis=-1, dtype=np.float64)
    count = np.add.reduceat(there, starts, axis=-1, dtype=np.int64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
