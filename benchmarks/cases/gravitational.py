"""Gravitational attention ``[1, 4, n, 32]``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import rattention as ra
from rattention.mechanisms.gravitational import (
    gravitational_attention_backward,
    reference_gravitational_weights,
)

from benchmarks.cases.attention import output
from benchmarks.inputs import random_gradient, random_inputs
from benchmarks.outcome import at_least
from benchmarks.peers import pytorch_gravitational
from benchmarks.peers.numpy_reference import NAME, sampled_rows
from benchmarks.race import Peer, Runner, race

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.outcome import Outcome
    from benchmarks.race import Setup

HEADS, HEAD_DIM = 4, 32
EPS = 1.0
PYTORCH = "PyTorch, compiled or not"
TOLERANCE = 1e-3
"""``cdist`` takes squares of distances from products of the vectors, which costs it digits."""


def forward(setup: Setup) -> Outcome:
    """Gravitational attention, forward."""
    inputs = _inputs(setup.length)
    rows = sampled_rows(setup, setup.length)
    peers = [
        Peer(PYTORCH, partial(pytorch_gravitational.forward, setup, inputs, EPS), at_least(5)),
        Peer(
            NAME,
            lambda: Runner(lambda: _law(inputs, rows) @ inputs["value"], output),
            rows=rows,
            timed=setup.quick,
        ),
    ]
    ours = Runner(lambda: ra.gravitational_attention(**inputs, eps=EPS), output)
    return race(setup, ours, peers, tolerance=TOLERANCE)


def gradients(setup: Setup) -> Outcome:
    """Gravitational attention, forward and backward."""
    inputs = _inputs(setup.length)
    grad = random_gradient(random_inputs(setup.length, HEADS, HEAD_DIM))

    def both() -> Any:
        result = ra.gravitational_attention(**inputs, eps=EPS, return_lse=True)
        return gravitational_attention_backward(grad, **inputs, result=result, eps=EPS)

    every = np.arange(setup.length)
    peers = [
        Peer(PYTORCH, partial(pytorch_gravitational.gradients, setup, inputs, grad, EPS), at_least(6)),
        Peer(
            NAME,
            lambda: Runner(lambda: _law(inputs, every).swapaxes(2, 3) @ grad, lambda a: {"value": a}),
            timed=False,
        ),
    ]
    return race(setup, Runner(both, dict), peers, tolerance=TOLERANCE)


def _inputs(length: int) -> dict[str, NDArray[np.float32]]:
    """Products of masses about as large as squared distances, so that weights differ."""
    drawn = random_inputs(length, HEADS, HEAD_DIM)._asdict()
    rng = np.random.default_rng(2)
    unit = np.float32(2 * HEAD_DIM**0.5)
    masses = {n: unit * rng.random((1, HEADS, length), np.float32) for n in ("query_mass", "key_mass")}
    return drawn | masses


def _law(inputs: dict[str, NDArray[np.float32]], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rows of the map, in float64."""
    q, k, mq, mk = (inputs[n].astype(np.float64) for n in ("query", "key", "query_mass", "key_mass"))
    return reference_gravitational_weights(q[:, :, rows], k, mq[:, :, rows], mk, eps=EPS)[0]
