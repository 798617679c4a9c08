"""Looking into a whole model, and at a long context, against maps that are stored."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import rattention as ra

from benchmarks.inputs import Inputs, random_inputs
from benchmarks.memory_probe import probe
from benchmarks.outcome import MEBI, Figure, Outcome, at_least, at_most
from benchmarks.peers import pytorch, transformers_eager
from benchmarks.peers.numpy_reference import pooled_reference
from benchmarks.race import Peer, Runner, race

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.memory_probe import Work
    from benchmarks.race import Answer, Setup

PEER = "Transformers eager, metrics in PyTorch"
PAGE = 4096
TOLERANCE = 1e-4
MODEL_TOLERANCE = 1e-3
"""Four layers of float32 before the last map, and ratios of small weights."""


def statistics(setup: Setup) -> Outcome:
    """All metrics of all layers and heads of a causal model, 4 layers and 4 heads, in one forward pass."""
    try:
        model = transformers_eager.decoder(setup)
    except ImportError as error:
        return Outcome([], missing={PEER: str(error)})
    peer = Peer(PEER, lambda: stored(setup, model), at_least(5))
    outcome = race(setup, observed(setup, model), [peer], tolerance=MODEL_TOLERANCE)
    work = "benchmarks.cases.microscope:one_pass"
    ours, theirs = (max(probe(work, setup, whose)["beyond"], PAGE) for whose in ("observed", "stored"))
    figures = [
        Figure("their peak memory over ours", theirs / ours, "x", at_least(20)),
        Figure("peak beyond model and results", ours / MEBI, "MiB"),
        Figure("(with stored maps)", theirs / MEBI, "MiB"),
    ]
    details = outcome.details | {"bytes observed": ours, "bytes with stored maps": theirs}
    return Outcome([*outcome.figures, *figures], outcome.samples, outcome.answers, outcome.missing, details)


def stored(setup: Setup, model: Any) -> Runner:
    """The model's maps, stored and looked at afterwards."""
    return transformers_eager.metrics_of_maps(setup, model, _tokens(setup), causal=True)


def observed(setup: Setup, model: Any) -> Runner:
    """The model observed while it runs."""
    from rattention.inspect.observe import METRICS

    torch = pytorch.load(setup)
    tokens = torch.from_numpy(_tokens(setup))

    def call() -> Any:
        with ra.observe(model, names=METRICS) as seen, torch.inference_mode():
            return model(tokens).last_hidden_state, seen

    def answer(result: Any) -> Answer:
        hidden, seen = result
        return {"hidden": hidden.numpy()} | {name: getattr(seen, name) for name in METRICS}

    return Runner(call, answer)


def one_pass(setup: Setup, whose: str) -> Work:
    """A forward pass of `observed` or `stored`, after one of a few tokens."""
    build, model = {"observed": observed, "stored": stored}[whose], transformers_eager.decoder(setup)
    build(replace(setup, length=16), model).call()
    runner = build(setup, model)
    return lambda: list(runner.answer(runner.call()).values())


def _tokens(setup: Setup) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, transformers_eager.VOCABULARY, (1, setup.length))


def heatmap(setup: Setup) -> Outcome:
    """The causal map of one head pooled to 256 x 256, against blocks of rows in PyTorch."""
    inputs = inputs_of_map(setup.length)
    peers = [
        Peer("PyTorch, blocks of rows", partial(pytorch.pooled_map, setup, inputs)),
        pooled_reference(setup, inputs, causal=True),
    ]
    ours = Runner(
        lambda: ra.attention_map(inputs.query, inputs.key, causal=True), lambda means: {"map": means}
    )
    outcome = race(setup, ours, peers, tolerance=TOLERANCE)
    numbers = probe("benchmarks.cases.microscope:pooled_map", setup)
    figure = Figure("peak beyond inputs and the picture", numbers["beyond"] / MEBI, "MiB", at_most(200))
    maps = Figure("(the map alone would take)", 4 * setup.length**2 / MEBI, "MiB")
    details = outcome.details | numbers
    figures = [*outcome.figures, figure, maps]
    return Outcome(figures, outcome.samples, outcome.answers, outcome.missing, details)


def inputs_of_map(length: int) -> Inputs:
    """Of one head."""
    return random_inputs(length, heads=1)


def pooled_map(setup: Setup) -> Work:
    """The call whose memory `heatmap` measures."""
    inputs = inputs_of_map(setup.length)
    return lambda: [ra.attention_map(inputs.query, inputs.key, causal=True)]
