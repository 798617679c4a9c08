"""Attention against other people's attention."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
import rattention as ra

from benchmarks import machine
from benchmarks.inputs import HEAD_DIM, HEADS, Inputs, random_inputs
from benchmarks.outcome import Outcome, at_least, at_most
from benchmarks.peers import onnx_runtime, open_vino, pytorch
from benchmarks.peers.numpy_reference import reference
from benchmarks.race import Peer, Runner, race

if TYPE_CHECKING:
    from typing import Any

    from benchmarks.race import Answer, Setup

TOLERANCE = 1e-4
BFLOAT16_TOLERANCE = 0.05
"""Two results whose last place is 1/256, one of them of weights that were rounded to it as well."""


def full(setup: Setup) -> Outcome:
    """Full attention, and its share of the FMA peak."""
    inputs = random_inputs(setup.length)
    peers = [
        Peer("PyTorch SDPA", partial(pytorch.sdpa, setup, inputs), at_least(1.3)),
        Peer("ONNX Runtime MultiHeadAttention", partial(onnx_runtime.multi_head, setup, inputs)),
        Peer("OpenVINO SDPA", partial(open_vino.sdpa, setup, inputs)),
        reference(setup, inputs),
    ]
    return race(
        setup,
        Runner(lambda: ra.attention(*inputs), output),
        peers,
        tolerance=TOLERANCE,
        best=at_least(1.1),
        flops=4.0 * HEADS * HEAD_DIM * setup.length**2,
        peak_share=at_least(85),
    )


def causal(setup: Setup) -> Outcome:
    """Causal attention."""
    inputs = random_inputs(setup.length)
    peers = [
        Peer("PyTorch SDPA is_causal", partial(pytorch.sdpa, setup, inputs, causal=True), at_least(1.4)),
        Peer(
            "ONNX Runtime GroupQueryAttention",
            partial(onnx_runtime.grouped_query, setup, inputs),
            at_least(1.2),
        ),
        reference(setup, inputs, causal=True),
    ]
    return race(setup, Runner(lambda: ra.attention(*inputs, causal=True), output), peers, tolerance=TOLERANCE)


def window(setup: Setup) -> Outcome:
    """Causal sliding window of 512 (64 in a quick run)."""
    inputs, width = random_inputs(setup.length), 64 if setup.quick else 512
    peers = [
        Peer(
            "PyTorch FlexAttention, compiled",
            partial(pytorch.flex, setup, inputs, window=width),
            at_least(2.2),
        ),
        Peer(
            "PyTorch SDPA with a mask",
            partial(pytorch.masked_sdpa, setup, inputs, window=width),
            at_least(10),
        ),
        reference(setup, inputs, causal=True, window=width),
    ]
    ours = Runner(lambda: ra.attention(*inputs, causal=True, window=width), output)
    return race(setup, ours, peers, tolerance=TOLERANCE)


def bfloat16(setup: Setup) -> Outcome:
    """Full attention of bfloat16 inputs, and of the same numbers as float32."""
    try:
        storage = import_module("ml_dtypes").bfloat16
    except ImportError as error:
        return Outcome([], missing={"ml_dtypes": str(error)})
    inputs = Inputs(*(array.astype(storage) for array in random_inputs(setup.length)))
    exact = Inputs(*(array.astype(np.float32) for array in inputs))
    fast = machine.multiplies_bfloat16()
    peers = [
        Peer(
            "PyTorch SDPA bfloat16",
            partial(pytorch.sdpa, setup, inputs),
            at_least(1.8) if fast else None,
        ),
        Peer(
            "our float32",
            lambda: Runner(lambda: ra.attention(*exact), output),
            None if fast else at_most(1.1),
        ),
        reference(setup, exact),
    ]
    ours = Runner(lambda: ra.attention(*inputs), lambda array: output(array.astype(np.float32)))
    return race(setup, ours, peers, tolerance=BFLOAT16_TOLERANCE)


def output(array: Any) -> Answer:
    """The answer of a call that returns the output alone."""
    return {"output": array}
