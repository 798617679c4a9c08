"""The gated delta rule: Gated DeltaNet, and with a gate per channel Kimi Delta Attention; and what it is
without its correction."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import rattention as ra
from numpy.typing import NDArray
from rattention.mechanisms.gated_delta import (
    gated_delta_rule_backward,
    gated_delta_rule_keeping,
    reference_gated_delta_rule,
)
from rattention.mechanisms.gated_linear import reference_gated_linear_attention

from benchmarks.cases.attention import TOLERANCE, output
from benchmarks.cases.linear import GRADIENT_TOLERANCE
from benchmarks.inputs import Inputs, random_gradient, random_inputs
from benchmarks.outcome import at_least
from benchmarks.peers import onnx_runtime, transformers_delta
from benchmarks.race import Peer, Runner, race

if TYPE_CHECKING:
    from typing import Any

    from benchmarks.outcome import Outcome
    from benchmarks.race import Setup

CHUNKED = "Transformers, in chunks"
TOKEN_BY_TOKEN = "Transformers, token by token"
LAW = "NumPy in float64, token by token"


class Gated(NamedTuple):
    """Rows, gates from e^-0.3 to 1, most of them near 1, and betas from 0 to 1."""

    rows: Inputs
    log_gate: NDArray[np.float32]
    beta: NDArray[np.float32]

    @property
    def arrays(self) -> tuple[NDArray[np.float32], ...]:
        return (*self.rows, self.log_gate, self.beta)


def drawn(length: int, *, channels: bool = False) -> Gated:
    rows, rng = random_inputs(length), np.random.default_rng(2)
    shape = rows.query.shape if channels else rows.query.shape[:3]
    gates = -0.3 * rng.random(shape, dtype=np.float32) ** 4
    return Gated(rows, gates, rng.random(rows.query.shape[:3], dtype=np.float32))


def _law(inputs: Gated) -> Peer:
    def exact() -> Any:
        return reference_gated_delta_rule(*inputs.arrays, normalize=True)[0]

    return Peer(LAW, lambda: Runner(exact, output), rival=False)


def forward(setup: Setup) -> Outcome:
    """Gated DeltaNet, queries and keys normalised."""
    inputs = drawn(setup.length)
    peers = [
        Peer(CHUNKED, partial(transformers_delta.gated_delta, setup, inputs), at_least(5)),
        Peer(
            "ONNX Runtime LinearAttention, gated_delta, of rows normalised beforehand",
            partial(onnx_runtime.gated_delta, setup, inputs.rows, inputs.log_gate, inputs.beta),
            at_least(3),
        ),
        _law(inputs),
    ]
    ours = Runner(lambda: ra.gated_delta_rule(*inputs.arrays, normalize=True), output)
    return race(setup, ours, peers, tolerance=TOLERANCE)


def gradients(setup: Setup) -> Outcome:
    """Gated DeltaNet, forward and backward."""
    inputs = drawn(setup.length)
    grad = random_gradient(inputs.rows)

    def both() -> Any:
        kept = gated_delta_rule_keeping(*inputs.arrays, normalize=True).kept
        return gated_delta_rule_backward(grad, *inputs.arrays, normalize=True, kept=kept)

    peers = [Peer(CHUNKED, partial(transformers_delta.gradients, setup, inputs, grad), at_least(4))]
    return race(setup, Runner(both, dict), peers, tolerance=GRADIENT_TOLERANCE)


def channels(setup: Setup) -> Outcome:
    """Kimi Delta Attention: a gate per key channel."""
    inputs = drawn(setup.length, channels=True)
    peers = [
        Peer(CHUNKED, partial(transformers_delta.kimi_delta, setup, inputs), at_least(4)),
        Peer(
            "ONNX Runtime LinearAttention, gated_delta, of rows normalised beforehand",
            partial(onnx_runtime.gated_delta, setup, inputs.rows, inputs.log_gate, inputs.beta),
        ),
        _law(inputs),
    ]
    ours = Runner(lambda: ra.gated_delta_rule(*inputs.arrays, normalize=True), output)
    return race(setup, ours, peers, tolerance=TOLERANCE)


def gated_linear(setup: Setup) -> Outcome:
    """Gated linear attention with a gate per key channel (GLA), on the kernels of the delta rule."""
    inputs = drawn(setup.length, channels=True)
    arrays = *inputs.rows, inputs.log_gate

    def exact() -> Any:
        return reference_gated_linear_attention(*arrays)[0]

    peers = [
        Peer(
            "ONNX Runtime LinearAttention, gated",
            partial(onnx_runtime.gated_linear, setup, inputs.rows, inputs.log_gate),
        ),
        Peer(LAW, lambda: Runner(exact, output), rival=False),
    ]
    ours = Runner(lambda: ra.gated_linear_attention(*arrays), output)
    return race(setup, ours, peers, tolerance=TOLERANCE)


def step(setup: Setup) -> Outcome:
    """A decoding step of Gated DeltaNet, after any number of tokens."""
    inputs = drawn(1)
    _, heads, _, dim = inputs.rows.query.shape
    start = np.random.default_rng(3).standard_normal((1, heads, dim, dim), dtype=np.float32)
    cache = ra.GatedDeltaCache.of(start)

    def ours() -> Any:
        """The first answer is compared; after that the state goes on, as it does in decoding."""
        return ra.gated_delta_step(*inputs.arrays, cache, normalize=True)

    peers = [Peer(TOKEN_BY_TOKEN, partial(transformers_delta.step, setup, inputs, start), at_least(10))]
    return race(setup, Runner(ours, output), peers, tolerance=TOLERANCE)
