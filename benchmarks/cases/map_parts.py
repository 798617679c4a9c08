"""What is read from a long map beside its picture: a part of it, and the largest weights of each row."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import rattention as ra
from rattention.mechanisms.pooled_map import reference_top_keys
from rattention.mechanisms.softmax import reference_weights

from benchmarks.cases.microscope import inputs_of_map
from benchmarks.outcome import at_least, at_most
from benchmarks.race import Peer, Runner, race

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from benchmarks.inputs import Inputs
    from benchmarks.outcome import Outcome
    from benchmarks.race import Answer, Setup

SIDE = 1024
SAMPLED_ROWS = 8
TOLERANCE = 1e-4


def zoom(setup: Setup) -> Outcome:
    """A square of 1024 of one head's causal map from a known lse, against the same square without it."""
    inputs, side = inputs_of_map(setup.length), min(SIDE, setup.length // 4)
    lse = ra.attention(inputs.query, inputs.key, inputs.value, causal=True, return_lse=True)
    rows, keys = (setup.length - side, setup.length), (setup.length // 2, setup.length // 2 + side)
    part = partial(
        ra.attention_map, inputs.query, inputs.key, causal=True, shape=(side, side), rows=rows, keys=keys
    )
    peers = [
        Peer("the same without lse", lambda: Runner(part, _map), at_least(4), rival=False),
        _reference(setup, inputs, range(*rows), "map", lambda weights, _: weights[..., slice(*keys)]),
    ]
    return race(setup, Runner(partial(part, lse=lse), _map), peers, tolerance=TOLERANCE)


def top_keys(setup: Setup) -> Outcome:
    """The 16 largest weights of every row of one head's causal map, against the sweep that pools the map."""
    inputs = inputs_of_map(setup.length)
    whole = partial(ra.attention_map, inputs.query, inputs.key, causal=True)
    peers = [
        Peer("the pooled map", lambda: Runner(whole, _map), at_most(1.3), comparable=False, rival=False),
        _reference(setup, inputs, range(setup.length), "weights", lambda *law: reference_top_keys(*law)[1]),
    ]
    ours = Runner(
        lambda: ra.attention_top_keys(inputs.query, inputs.key, causal=True),
        lambda top: {"weights": top.weights},
    )
    return race(setup, ours, peers, tolerance=TOLERANCE)


def _map(means: NDArray[np.float32]) -> Answer:
    return {"map": means}


def _reference(setup: Setup, inputs: Inputs, rows: range, name: str, of: Callable[..., Any]) -> Peer:
    """What `of` makes of the float64 weights of some of these rows, and of which keys they see."""
    samples = len(rows) if setup.quick else SAMPLED_ROWS
    chosen = np.linspace(0, len(rows) - 1, samples).astype(np.int64)
    key = inputs.key.astype(np.float64)

    def of_row(row: int) -> NDArray[np.float64]:
        query = inputs.query[:, :, row : row + 1].astype(np.float64)
        weights, visible, _ = reference_weights(query, key, causal=True, query_offset=row)
        return np.asarray(of(weights, visible))

    def call() -> Answer:
        return {name: np.concatenate([of_row(rows[row]) for row in chosen], axis=2)}

    return Peer("NumPy float64", lambda: Runner(call, lambda answer: answer), rows=chosen, timed=False)
