"""What was found on several samples: arrays, tables, and which layers and heads differ."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rattention.inspect.statistics import OVER_ROWS, STATISTICS, Sample, SampleMeasure, examine_sample


@dataclass(frozen=True, eq=False, repr=False)
class Findings:
    """The attention of a model to one or more samples, whose layers and heads are the same.

    ``this.entropy``, and so each field of `RowStatistics`, is a statistic of the query row, ``[samples,
    layers, heads]``; NaN where a layer has fewer heads.
    """

    samples: tuple[SampleMeasure, ...]
    heads: tuple[int, ...] | None = None
    """Numbers of the heads that were measured; None is all of each layer."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the layers that were measured."""
        return tuple(layer.layer for layer in self.samples[0].layers)

    def head_numbers(self, count: int) -> tuple[int, ...]:
        """What `count` heads of a layer are called."""
        return tuple(range(count)) if self.heads is None else self.heads[:count]

    def __getattr__(self, name: str) -> NDArray[np.float64]:
        if name not in STATISTICS:
            raise AttributeError(f"{name} is no statistic; there are {', '.join(STATISTICS)}")
        return _stacked([[getattr(layer.query, name) for layer in s.layers] for s in self.samples])

    def __repr__(self) -> str:
        return f"Findings(samples={len(self.samples)}, layers={self.layers}, heads={self.heads})"

    def per_layer(self, name: str) -> NDArray[np.float64]:
        """The median over samples and heads, ``[layers]``."""
        return _median(getattr(self, name), (0, 2))

    def per_head(self, name: str) -> NDArray[np.float64]:
        """The median over samples, ``[layers, heads]``."""
        return _median(getattr(self, name), (0,))

    def overall(self, name: str) -> float:
        """The median over samples, layers and heads."""
        return float(_median(getattr(self, name), (0, 1, 2)))

    def table(self) -> list[dict[str, Any]]:
        """A row for each sample, layer and head: what they are, the query row's statistics, and the means
        over all rows with ``rows_`` before their names."""
        return [
            {
                "sample": sample.name,
                "layer": layer.layer,
                "head": head,
                "sequence_length": layer.weights.shape[1],
                "context_tokens": int(layer.query.context[i]),
                **{name: float(getattr(layer.query, name)[i]) for name in STATISTICS},
                "max_position": int(layer.weights[i].argmax()),
                **{f"rows_{name}": float(layer.mean[name][i]) for name in OVER_ROWS},
            }
            for sample in self.samples
            for layer in sample.layers
            for i, head in enumerate(self.head_numbers(len(layer.weights)))
        ]

    def sample_table(self) -> list[dict[str, Any]]:
        """A row for each sample: lengths, the medians over layers and heads of the query row's statistics,
        and the position to which most heads give their largest weight."""
        return [
            {
                "sample": sample.name,
                "sequence_length": sample.sequence_length,
                "context_tokens": sample.context_tokens,
                **{name: float(_median(getattr(self, name)[i], (0, 1))) for name in STATISTICS},
                "max_position": _most_common(np.concatenate([at.weights.argmax(1) for at in sample.layers])),
            }
            for i, sample in enumerate(self.samples)
        ]


def examine(
    model: Any,
    samples: Sequence[Sample],
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    row: int = -1,
    progress: Callable[[Sequence[Sample], str], Iterable[Sample]] | None = None,
) -> Findings:
    """Run `model` on every sample and measure the attention of its layers and heads, streamed.

    Parameters
    ----------
    model:
        As in `rattention.inspect.capture`.
    samples:
        One sequence each, at least one; see `Sample`.
    layers, heads:
        Numbers of those to measure, from 0; all by default.
    row:
        The query row, negative from the end: the last by default, which decides what comes next.
    progress:
        Given the samples and a description, iterates over them and shows how far it is.

    Raises
    ------
    ValueError
        No samples, a layer, head or row that does not exist, or attention that is NaN.

    Examples
    --------
    >>> import torch
    >>> from rattention.inspect import Sample, examine
    >>> from rattention.nn import LanguageModel
    >>> model = LanguageModel(100, dim=32, heads=2, depth=3)
    >>> findings = examine(model, [Sample("numbers", (torch.arange(60)[None],))])
    >>> findings.entropy.shape  # samples, layers, heads
    (1, 3, 2)
    """
    if not samples:
        raise ValueError("samples must hold at least one sample, got none")
    shown = samples if progress is None else progress(samples, "samples")
    measured = [examine_sample(model, s, layers=layers, heads=heads, row=row) for s in shown]
    return Findings(tuple(measured), None if heads is None else tuple(sorted(set(heads))))


def _most_common(positions: NDArray[np.int64]) -> int:
    """The later one where several are equally common."""
    counts = np.bincount(positions)
    return int(np.flatnonzero(counts == counts.max())[-1])


def _stacked(values: list[list[NDArray[np.float64]]]) -> NDArray[np.float64]:
    """Heads of samples and layers in one array, NaN where there are none."""
    most = max(len(heads) for layers in values for heads in layers)
    stacked = np.full((len(values), len(values[0]), most), np.nan)
    for i, layers in enumerate(values):
        for j, heads in enumerate(layers):
            stacked[i, j, : len(heads)] = heads
    return stacked


def _median(values: NDArray[np.float64], axes: tuple[int, ...]) -> NDArray[np.float64]:
    """Without NaN; NaN where there is nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of slices that hold NaN alone
        median: NDArray[np.float64] = np.nanmedian(values, axis=axes)
    return median
