"""Transformers models that are mostly linear, after `use_linear_kernels`, against their own loops."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.outcome import Outcome, at_least
from benchmarks.peers import transformers_hybrids
from benchmarks.race import Peer, race

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.race import Runner, Setup

LOOPS = "Transformers, loops in PyTorch"
MODELS = {
    "granite4": "Granite-4-like model, 2 Mamba2 layers with their MLPs",
    "qwen3.5": "Qwen3.5-0.8B-like model, 3 layers with the gated delta rule and one with attention",
}
GOALS = {"granite4": at_least(2), "qwen3.5": at_least(1.5)}
TOLERANCE = {"prefill": 5e-4, "training": 1e-3}
"""Training: of gradients, sums over the whole text."""


def prefill(name: str) -> Callable[[Setup], Outcome]:
    def case(setup: Setup) -> Outcome:
        return _race(setup, transformers_hybrids.prefill, name, TOLERANCE["prefill"])

    case.__doc__ = f"{MODELS[name]}: forward pass over a prompt"
    return case


def training(name: str) -> Callable[[Setup], Outcome]:
    def case(setup: Setup) -> Outcome:
        return _race(setup, transformers_hybrids.training, name, TOLERANCE["training"])

    case.__doc__ = f"{MODELS[name]}: a training step"
    return case


def _race(setup: Setup, build: Callable[..., Runner], name: str, tolerance: float) -> Outcome:
    try:
        ours = build(setup, name, ours=True)
    except ImportError as error:
        return Outcome([], missing={LOOPS: str(error)})
    peer = Peer(LOOPS, partial(build, setup, name, ours=False), GOALS[name])
    return race(setup, ours, [peer], tolerance=tolerance)
