"""Gradients of the package's references in NumPy and float64, so that no gradient goes unchecked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rattention.mechanisms.softmax import reference_weights

from benchmarks.peers.numpy_reference import NAME, sampled_rows
from benchmarks.race import Peer, Runner, Setup

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.inputs import Inputs
    from benchmarks.race import Answer


def softmax_gradients(setup: Setup, inputs: Inputs, grad: NDArray[np.float32], **options: Any) -> Peer:
    """All gradients in a quick run, else the query's in a few rows: a row of the map is all they need."""
    rows = sampled_rows(setup, inputs.length)
    if setup.quick:
        return Peer(NAME, lambda: _runner(lambda: _all(inputs, grad, options)), timed=True)
    return Peer(NAME, lambda: _runner(lambda: _some(inputs, grad, rows, options)), rows=rows, timed=False)


def _runner(call: Any) -> Runner:
    return Runner(call, lambda answer: answer)


def _all(inputs: Inputs, grad: NDArray[np.float32], options: dict[str, Any]) -> Answer:
    weights, scores = _of_rows(inputs, grad, np.arange(inputs.length), options)
    scale = inputs.query.shape[3] ** -0.5
    return {
        "query": scale * scores @ inputs.key,
        "key": scale * scores.swapaxes(2, 3) @ inputs.query,
        "value": weights.swapaxes(2, 3) @ grad,
    }


def _some(
    inputs: Inputs, grad: NDArray[np.float32], rows: NDArray[np.int64], options: dict[str, Any]
) -> Answer:
    parts = [_of_rows(inputs, grad, rows[i : i + 1], options)[1] @ inputs.key for i in range(len(rows))]
    return {"query": np.concatenate(parts, axis=2) * inputs.query.shape[3] ** -0.5}


def _of_rows(
    inputs: Inputs, grad: NDArray[np.float32], rows: NDArray[np.int64], options: dict[str, Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights of consecutive rows, and the gradients of their scores."""
    query, key, value = (array.astype(np.float64) for array in inputs)
    weights, _, _ = reference_weights(query[:, :, rows], key, query_offset=int(rows[0]), **options)
    of_weights = grad[:, :, rows] @ value.swapaxes(2, 3)
    return weights, weights * (of_weights - (weights * of_weights).sum(axis=-1, keepdims=True))
