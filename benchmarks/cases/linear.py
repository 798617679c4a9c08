"""Residual linear attention and RAttention."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import rattention as ra
from rattention.mechanisms.residual_linear import residual_linear_attention_backward

from benchmarks.cases.attention import TOLERANCE, output
from benchmarks.inputs import random_gradient, random_inputs
from benchmarks.outcome import at_least, at_most
from benchmarks.peers import numpy_linear, pytorch, pytorch_linear
from benchmarks.race import Peer, Runner, race

if TYPE_CHECKING:
    from typing import Any

    from benchmarks.outcome import Outcome
    from benchmarks.race import Setup

ROPE_THETA = 1e4
GRADIENT_TOLERANCE = 1e-3
"""Of sums over the whole sequence in float32, in another order."""


def residual(setup: Setup) -> Outcome:
    """Residual linear attention beyond a window of 512 (64 in a quick run)."""
    inputs, window = random_inputs(setup.length), window_of(setup)
    peers = [
        Peer(
            "PyTorch in chunks, compiled",
            partial(pytorch_linear.residual_linear, setup, inputs, window=window),
            at_least(4.5),
        ),
        numpy_linear.residual_linear(setup, inputs, window=window),
    ]
    ours = Runner(lambda: ra.residual_linear_attention(*inputs, window=window), output)
    return race(setup, ours, peers, tolerance=TOLERANCE)


def residual_gradients(setup: Setup) -> Outcome:
    """Residual linear attention, forward and backward."""
    inputs, window = random_inputs(setup.length), window_of(setup)
    grad = random_gradient(inputs)

    def both() -> Any:
        ra.residual_linear_attention(*inputs, window=window)
        return residual_linear_attention_backward(grad, *inputs, window=window)

    peers = [
        Peer(
            "PyTorch in chunks, autograd",
            partial(pytorch_linear.residual_linear_gradients, setup, inputs, grad, window=window),
            at_least(4),
        ),
        numpy_linear.linear_value_gradient(setup, inputs, grad, window=window),
    ]
    return race(setup, Runner(both, dict), peers, tolerance=GRADIENT_TOLERANCE)


def rattention(setup: Setup) -> Outcome:
    """RAttention with a window of 512 (64 in a quick run), against attention to everything."""
    inputs, window = random_inputs(setup.length), window_of(setup)
    branch = partial(ra.attention, *inputs, causal=True, window=window)
    peers = [
        Peer(
            "PyTorch SDPA is_causal, whole context",
            partial(pytorch.sdpa, setup, inputs, causal=True),
            at_least(12),
            comparable=False,
        ),
        Peer("its own window branch", lambda: Runner(branch, output), at_most(1.5), comparable=False),
        numpy_linear.rattention(setup, inputs, window=window, rope_theta=ROPE_THETA),
    ]
    ours = Runner(lambda: ra.rattention(*inputs, window=window, rope_theta=ROPE_THETA), output)
    return race(setup, ours, peers, tolerance=TOLERANCE)


def window_of(setup: Setup) -> int:
    """Of the cases that say 512."""
    return 64 if setup.quick else 512
