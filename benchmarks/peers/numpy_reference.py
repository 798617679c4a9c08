"""The reference of the package, in NumPy and float64: always there, so that no answer goes unchecked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rattention.mechanisms.softmax import reference_attention

from benchmarks.race import Peer, Runner, Setup

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.inputs import Inputs
    from benchmarks.race import Answer

NAME = "NumPy reference"
SAMPLED_ROWS = 24


def sampled_rows(setup: Setup, length: int) -> NDArray[np.int64]:
    """All rows in a quick run, else a few spread over the length."""
    return np.unique(np.linspace(0, length - 1, length if setup.quick else SAMPLED_ROWS).astype(np.int64))


def reference(setup: Setup, inputs: Inputs, **options: Any) -> Peer:
    """The reference on all rows in a quick run, else on a few spread over the length: it is very slow."""
    rows = sampled_rows(setup, inputs.length)
    return Peer(NAME, lambda: _runner(inputs, rows, options), rows=rows, timed=setup.quick)


def _runner(inputs: Inputs, rows: NDArray[np.int64], options: dict[str, Any]) -> Runner:
    def call() -> Answer:
        parts = [_row(inputs, int(row), options) for row in rows]
        return {name: np.concatenate([part[name] for part in parts], axis=2) for name in parts[0]}

    return Runner(call, lambda answer: answer)


def _row(inputs: Inputs, row: int, options: dict[str, Any]) -> Answer:
    query = inputs.query[:, :, row : row + 1]
    result = reference_attention(query, inputs.key, inputs.value, query_offset=row, **options)
    return {"output": result.output, **dict(result.metrics or ())}
