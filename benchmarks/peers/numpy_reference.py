"""The reference of the package, in NumPy and float64: always there, so that no answer goes unchecked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rattention.mechanisms.pooled_map import MAP_SHAPE, bin_edges, reference_map
from rattention.mechanisms.softmax import reference_attention, reference_weights

from benchmarks.race import Peer, Runner, Setup

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.inputs import Inputs
    from benchmarks.race import Answer

NAME = "NumPy reference"
SAMPLED_ROWS = 24
SAMPLED_BINS = 4


def sampled_rows(setup: Setup, length: int) -> NDArray[np.int64]:
    """All rows in a quick run, else a few spread over the length."""
    return np.unique(np.linspace(0, length - 1, length if setup.quick else SAMPLED_ROWS).astype(np.int64))


def reference(setup: Setup, inputs: Inputs, **options: Any) -> Peer:
    """The reference on all rows in a quick run, else on a few spread over the length: it is very slow."""
    rows = sampled_rows(setup, inputs.length)
    return Peer(NAME, lambda: _runner(inputs, rows, options), rows=rows, timed=setup.quick)


def pooled_reference(setup: Setup, inputs: Inputs, **options: Any) -> Peer:
    """Rows of the pooled map: all in a quick run, else a few."""
    edges = bin_edges(0, inputs.length, MAP_SHAPE[0])
    bins = np.arange(len(edges) - 1)
    rows = bins if setup.quick else np.linspace(0, bins[-1], SAMPLED_BINS).astype(np.int64)

    def call() -> Answer:
        parts = [_pooled(inputs, int(edges[bin]), int(edges[bin + 1]), options) for bin in rows]
        return {"map": np.concatenate(parts, axis=2)}

    return Peer(NAME, lambda: Runner(call, lambda answer: answer), rows=rows, timed=setup.quick)


def _pooled(inputs: Inputs, first: int, last: int, options: dict[str, Any]) -> NDArray[np.float64]:
    query, key = (array.astype(np.float64) for array in (inputs.query[:, :, first:last], inputs.key))
    weights, _, _ = reference_weights(query, key, query_offset=first, **options)
    return reference_map(weights, (1, MAP_SHAPE[1]))


def _runner(inputs: Inputs, rows: NDArray[np.int64], options: dict[str, Any]) -> Runner:
    def call() -> Answer:
        parts = [_row(inputs, int(row), options) for row in rows]
        return {name: np.concatenate([part[name] for part in parts], axis=2) for name in parts[0]}

    return Runner(call, lambda answer: answer)


def _row(inputs: Inputs, row: int, options: dict[str, Any]) -> Answer:
    query = inputs.query[:, :, row : row + 1]
    result = reference_attention(query, inputs.key, inputs.value, query_offset=row, **options)
    return {"output": result.output, **dict(result.metrics or ())}
