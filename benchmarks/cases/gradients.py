"""Backward passes alone, the forward pass done beforehand by everybody."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import rattention as ra
from rattention.mechanisms.softmax import attention_backward

from benchmarks import machine
from benchmarks.cases.attention import BFLOAT16_TOLERANCE, window_of
from benchmarks.inputs import random_gradient, random_inputs
from benchmarks.outcome import Outcome, at_least
from benchmarks.peers import pytorch_gradients, pytorch_windows
from benchmarks.peers.numpy_gradients import softmax_gradients
from benchmarks.race import OURS, Peer, Runner, race

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.race import Setup

TOLERANCE = 1e-4
"""Relative to the root mean square, as everywhere: gradients of far keys are tiny."""


def full(setup: Setup) -> Outcome:
    """Backward pass of full attention."""
    return _race(setup, "PyTorch SDPA", 1.2, pytorch_gradients.sdpa_backward)


def causal(setup: Setup) -> Outcome:
    """Backward pass of causal attention."""
    return _race(setup, "PyTorch SDPA is_causal", 1.3, pytorch_gradients.sdpa_backward, causal=True)


def window(setup: Setup) -> Outcome:
    """Backward pass of a causal sliding window of 512 (64 in a quick run)."""
    width = window_of(setup)
    peer = partial(pytorch_windows.sdpa_backward, window=width)
    return _race(setup, "PyTorch SDPA in blocks of rows", 1.5, peer, causal=True, window=width)


def bfloat16(setup: Setup) -> Outcome:
    """Forward and backward pass of full attention of bfloat16 tensors, and of the same numbers in float32."""
    names = ("PyTorch SDPA bfloat16", "our float32")
    try:
        ours = pytorch_gradients.both_passes(setup, OURS, "bfloat16")
    except ImportError as error:
        return Outcome([], missing=dict.fromkeys(names, str(error)))
    build = partial(pytorch_gradients.both_passes, setup)
    peers = [
        Peer(names[0], partial(build, "sdpa", "bfloat16"), at_least(1.3)),
        Peer(
            names[1],
            partial(build, OURS, "float32"),
            at_least(1.4) if machine.multiplies_bfloat16() else None,
            rival=False,
        ),
    ]
    return race(setup, ours, peers, tolerance=BFLOAT16_TOLERANCE)


def _race(setup: Setup, name: str, goal: float, peer: Callable[..., Runner], **options: Any) -> Outcome:
    inputs = random_inputs(setup.length)
    grad = random_gradient(inputs)
    result = ra.attention(*inputs, **options, return_lse=True)
    causal = {"causal": True} if options.get("causal") and "window" not in options else {}
    peers = [
        Peer(name, partial(peer, setup, inputs, grad, **causal), at_least(goal)),
        softmax_gradients(setup, inputs, grad, **options),
    ]
    ours = Runner(lambda: attention_backward(grad, *inputs, result=result, **options), dict)
    return race(setup, ours, peers, tolerance=TOLERANCE)
