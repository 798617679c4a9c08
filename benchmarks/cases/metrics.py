"""What the metrics cost in time and in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rattention as ra

from benchmarks.cases.attention import TOLERANCE, output
from benchmarks.inputs import HEADS, random_inputs
from benchmarks.memory_probe import probe
from benchmarks.outcome import MEBI, Figure, Outcome, at_most
from benchmarks.peers.numpy_reference import reference
from benchmarks.race import Peer, Runner, race

if TYPE_CHECKING:
    from benchmarks.memory_probe import Work
    from benchmarks.race import Answer, Setup


def row_metrics(setup: Setup) -> Outcome:
    """Full attention with all row metrics, against the same attention without."""
    inputs, options = random_inputs(setup.length), ra.MetricOptions(received=False)
    peers = [
        Peer("the same attention alone", lambda: Runner(lambda: ra.attention(*inputs), output), at_most(1.3)),
        reference(setup, inputs, metrics=options),
    ]
    ours = Runner(lambda: ra.attention(*inputs, metrics=options), _with_metrics)
    return race(setup, ours, peers, tolerance=TOLERANCE)


def _with_metrics(result: ra.AttentionResult) -> Answer:
    assert result.metrics is not None
    return {"output": result.output, **dict(result.metrics)}


def memory(setup: Setup) -> Outcome:
    """Peak memory of attention with all metrics, beyond inputs and outputs."""
    numbers = probe("benchmarks.cases.metrics:all_metrics", setup)
    figure = Figure("peak beyond inputs and outputs", numbers["beyond"] / MEBI, "MiB", at_most(64))
    maps = Figure("(the maps alone would take)", 4 * HEADS * setup.length**2 / MEBI, "MiB")
    return Outcome([figure, maps], details=numbers)


def all_metrics(setup: Setup) -> Work:
    """The call that `memory` measures."""
    inputs = random_inputs(setup.length)  # writes, and so touches, every page

    def call() -> list[Any]:
        result = ra.attention(*inputs, metrics=ra.MetricOptions())
        return [result.output, *(array for _, array in result.metrics)]

    return call
