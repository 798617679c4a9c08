"""Attention against other people's attention."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
import rattention as ra

from benchmarks import machine
from benchmarks.inputs import HEAD_DIM, HEADS, Inputs, random_inputs
from benchmarks.outcome import Goal, Outcome, at_least, at_most
from benchmarks.peers import onnx_runtime, open_vino, pytorch, pytorch_windows
from benchmarks.peers.numpy_reference import reference
from benchmarks.race import Peer, Runner, race

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from benchmarks.race import Answer, Setup

TOLERANCE = 1e-4
BFLOAT16_TOLERANCE = 0.05
"""Two results whose last place is 1/256, one of them of weights that were rounded to it as well."""
CAUSAL_BFLOAT16_TOLERANCE = 0.2
"""First rows are much larger than the root mean square that differences are compared with."""
OURS_IN_FLOAT32 = "our float32"


def full(setup: Setup, head_dim: int = HEAD_DIM, share: float = 88) -> Outcome:
    inputs = random_inputs(setup.length, head_dim=head_dim)
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
        flops=_flops(inputs),
        peak_share=at_least(share),
    )


def causal(setup: Setup) -> Outcome:
    """Causal attention."""
    inputs = random_inputs(setup.length)
    peers = [
        Peer("PyTorch SDPA is_causal", partial(pytorch.sdpa, setup, inputs, causal=True), at_least(1.4)),
        Peer(
            "ONNX Runtime MultiHeadAttention unidirectional",
            partial(onnx_runtime.multi_head, setup, inputs, causal=True),
        ),
        Peer(
            "ONNX Runtime GroupQueryAttention",
            partial(onnx_runtime.grouped_query, setup, inputs),
            at_least(1.2),
        ),
        Peer("OpenVINO SDPA causal", partial(open_vino.sdpa, setup, inputs, causal=True)),
        reference(setup, inputs, causal=True),
    ]
    return race(setup, Runner(lambda: ra.attention(*inputs, causal=True), output), peers, tolerance=TOLERANCE)


def window(setup: Setup) -> Outcome:
    """Causal sliding window of 512 (64 in a quick run)."""
    inputs, width = random_inputs(setup.length), window_of(setup)
    peers = [
        Peer(
            "PyTorch FlexAttention, compiled",
            partial(pytorch_windows.flex, setup, inputs, window=width),
            at_least(2.2),
        ),
        Peer(
            "PyTorch SDPA in blocks of rows",
            partial(pytorch_windows.sdpa, setup, inputs, window=width),
            at_least(2),
        ),
        Peer(
            "ONNX Runtime GroupQueryAttention, local_window_size",
            partial(onnx_runtime.grouped_query, setup, inputs, window=width),
        ),
        Peer("OpenVINO SDPA in blocks of rows", partial(open_vino.window, setup, inputs, window=width)),
        reference(setup, inputs, causal=True, window=width),
    ]
    ours = Runner(lambda: ra.attention(*inputs, causal=True, window=width), output)
    return race(setup, ours, peers, tolerance=TOLERANCE)


def bfloat16(setup: Setup, head_dim: int = HEAD_DIM) -> Outcome:
    exact, rounded = _both_formats(setup, head_dim)
    peers = [
        Peer(
            "PyTorch SDPA bfloat16",
            partial(pytorch.sdpa, setup, rounded),
            at_least(1.8) if machine.multiplies_bfloat16() else None,
        ),
        Peer("OpenVINO SDPA bfloat16", partial(open_vino.sdpa, setup, rounded)),
    ]
    return _race_bfloat16(setup, exact, rounded, peers, 1.8, best=at_least(1.3), flops=_flops(exact))


def bfloat16_causal(setup: Setup) -> Outcome:
    """Causal attention of bfloat16 inputs, and of the same numbers as float32."""
    exact, rounded = _both_formats(setup)
    peers = [
        Peer("PyTorch SDPA bfloat16 is_causal", partial(pytorch.sdpa, setup, rounded, causal=True)),
        Peer("OpenVINO SDPA bfloat16 causal", partial(open_vino.sdpa, setup, rounded, causal=True)),
    ]
    tolerance = CAUSAL_BFLOAT16_TOLERANCE
    return _race_bfloat16(setup, exact, rounded, peers, 1.5, tolerance=tolerance, causal=True)


def bfloat16_window(setup: Setup) -> Outcome:
    """Causal sliding window of 512 (64 in a quick run) of bfloat16 inputs, and of the same as float32."""
    width = window_of(setup)
    exact, rounded = _both_formats(setup)
    peers = [
        Peer("PyTorch FlexAttention, compiled", partial(pytorch_windows.flex, setup, rounded, window=width)),
        Peer("PyTorch SDPA in blocks of rows", partial(pytorch_windows.sdpa, setup, rounded, window=width)),
        Peer("OpenVINO SDPA in blocks of rows", partial(open_vino.window, setup, rounded, window=width)),
    ]
    options = {"causal": True, "window": width}
    return _race_bfloat16(setup, exact, rounded, peers, 1.5, tolerance=CAUSAL_BFLOAT16_TOLERANCE, **options)


def float_mask(setup: Setup) -> Outcome:
    """Full attention with a float mask for all heads, against the same without, and against SDPA's."""
    inputs = random_inputs(setup.length)
    mask = np.random.default_rng(3).standard_normal((1, 1, setup.length, setup.length), dtype=np.float32)
    peers = [
        Peer(
            "our attention without a mask",
            lambda: Runner(lambda: ra.attention(*inputs), output),
            at_most(1.5),
            comparable=False,
        ),
        Peer("PyTorch SDPA with the mask", partial(pytorch.sdpa, setup, inputs, mask=mask), at_least(1.2)),
    ]
    ours = Runner(lambda: ra.attention(*inputs, attn_mask=mask), output)
    return race(setup, ours, peers, tolerance=TOLERANCE)


def with_head_dim(measure: Callable[..., Outcome], work: str, head_dim: int, *goals: float) -> Any:
    """A case of heads of `head_dim`."""

    def case(setup: Setup) -> Outcome:
        return measure(setup, head_dim, *goals)

    case.__doc__ = f"{work}, head_dim {head_dim}"
    return case


def _race_bfloat16(
    setup: Setup,
    exact: Inputs,
    rounded: Inputs | None,
    peers: list[Peer],
    goal: float,
    *,
    best: Goal | None = None,
    flops: float = 0.0,
    tolerance: float = BFLOAT16_TOLERANCE,
    **options: Any,
) -> Outcome:
    """`goal`: times as fast as float32 where kernels multiply bfloat16; elsewhere it may take 1.1 times as
    long."""
    if rounded is None:
        return Outcome([], missing={"ml_dtypes": "bfloat16 arrays need it"})
    fast = machine.multiplies_bfloat16()
    mine = Peer(
        OURS_IN_FLOAT32,
        lambda: Runner(lambda: ra.attention(*exact, **options), output),
        at_least(goal) if fast else at_most(1.1),
        rival=False,
    )
    return race(
        setup,
        Runner(lambda: ra.attention(*rounded, **options), lambda array: output(array.astype(np.float32))),
        [*peers, mine, reference(setup, exact, **options)],
        tolerance=tolerance,
        best=best if fast else None,
        flops=flops if fast else 0.0,
        bfloat16=True,
    )


def _both_formats(setup: Setup, head_dim: int = HEAD_DIM) -> tuple[Inputs, Inputs | None]:
    """Numbers that bfloat16 can hold, as float32 and as bfloat16 (None without ml_dtypes)."""
    inputs = random_inputs(setup.length, head_dim=head_dim)
    try:
        storage = import_module("ml_dtypes").bfloat16
    except ImportError:
        return inputs, None
    rounded = Inputs(*(array.astype(storage) for array in inputs))
    return Inputs(*(array.astype(np.float32) for array in rounded)), rounded


def _flops(inputs: Inputs) -> float:
    return 4.0 * HEADS * inputs.query.shape[3] * inputs.length**2


def window_of(setup: Setup) -> int:
    """Of the cases that say 512."""
    return 64 if setup.quick else 512


def output(array: Any) -> Answer:
    """The answer of a call that returns the output alone."""
    return {"output": array}
