"""Residual and gated linear attention, and RAttention."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import rattention as ra
from rattention.mechanisms.residual_linear import (
    residual_linear_attention_backward,
    residual_linear_attention_keeping,
)

from benchmarks.cases.attention import TOLERANCE, output, window_of
from benchmarks.inputs import random_gradient, random_inputs
from benchmarks.outcome import at_least, at_most
from benchmarks.peers import numpy_linear, onnx_runtime, pytorch, pytorch_linear
from benchmarks.race import Peer, Runner, race

if TYPE_CHECKING:
    from typing import Any

    from benchmarks.outcome import Outcome
    from benchmarks.race import Setup

ROPE_THETA = 1e4
PYTORCH = "PyTorch in chunks, compiled or not"
GRADIENT_TOLERANCE = 1e-3
"""Of sums over the whole sequence in float32, in another order."""


def residual(setup: Setup) -> Outcome:
    """Residual linear attention beyond a window of 512 (64 in a quick run)."""
    inputs, window = random_inputs(setup.length), window_of(setup)
    peers = [
        Peer(PYTORCH, partial(pytorch_linear.residual_linear, setup, inputs, window=window), at_least(4)),
        Peer(
            "ONNX Runtime LinearAttention, of features made beforehand",
            partial(onnx_runtime.residual_linear, setup, inputs, window=window),
            at_least(3),
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
        result = residual_linear_attention_keeping(*inputs, window=window)
        return residual_linear_attention_backward(grad, *inputs, window=window, kept=result.kept)

    peers = [
        Peer(
            PYTORCH,
            partial(pytorch_linear.residual_linear_gradients, setup, inputs, grad, window=window),
            at_least(6),
        ),
        numpy_linear.linear_value_gradient(setup, inputs, grad, window=window),
    ]
    return race(setup, Runner(both, dict), peers, tolerance=GRADIENT_TOLERANCE)


def gated(setup: Setup) -> Outcome:
    """Gated linear attention, decays of e^-0.1 to 1 by token and head."""
    inputs = random_inputs(setup.length)
    log_gate = -(random_gradient(inputs)[..., 0].clip(-1, 1).astype(np.float32) ** 2) / 10
    residual_branch = partial(ra.residual_linear_attention, *inputs, window=-1)
    peers = [
        Peer(PYTORCH, partial(pytorch_linear.gated_linear, setup, inputs, log_gate), at_least(2)),
        Peer(
            "ONNX Runtime LinearAttention, gated",
            partial(onnx_runtime.gated_linear, setup, inputs, log_gate),
            at_least(3),
        ),
        Peer(
            "our residual linear attention, of twice as many features",
            lambda: Runner(residual_branch, output),
            at_least(0.77),
            comparable=False,
        ),
        numpy_linear.gated_linear(setup, inputs, log_gate),
    ]
    ours = Runner(lambda: ra.gated_linear_attention(*inputs, log_gate), output)
    return race(setup, ours, peers, tolerance=TOLERANCE)


def rattention(setup: Setup) -> Outcome:
    """RAttention with a window of 512 (64 in a quick run)."""
    inputs, window = random_inputs(setup.length), window_of(setup)
    branch = partial(ra.attention, *inputs, causal=True, window=window)
    peers = [
        Peer(
            "PyTorch: SDPA in blocks of rows, linear attention in chunks",
            partial(pytorch_linear.rattention, setup, inputs, window=window, rope_theta=ROPE_THETA),
            at_least(2),
        ),
        Peer("our window branch alone", lambda: Runner(branch, output), at_most(1.5), comparable=False),
        Peer(
            "what the architecture saves: PyTorch SDPA is_causal over the whole context",
            partial(pytorch.sdpa, setup, inputs, causal=True),
            comparable=False,
        ),
        numpy_linear.rattention(setup, inputs, window=window, rope_theta=ROPE_THETA),
    ]
    ours = Runner(lambda: ra.rattention(*inputs, window=window, rope_theta=ROPE_THETA), output)
    return race(setup, ours, peers, tolerance=TOLERANCE)
