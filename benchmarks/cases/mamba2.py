"""Mamba2 layers of Transformers after `rattention.hf.use_linear_kernels`, against Transformers' own loop."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.outcome import Outcome, at_least
from benchmarks.peers import transformers_mamba2
from benchmarks.race import Peer, race

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.outcome import Goal
    from benchmarks.race import Runner, Setup

CHUNKED = "Transformers, in chunks"
TOLERANCE = {"prefill": 1e-4, "training": 1e-3}
"""Training: of gradients, sums over the whole text."""


def prefill(setup: Setup) -> Outcome:
    """Granite-4-like model, 2 Mamba2 layers with their MLPs: forward pass over a prompt."""
    return _race(setup, transformers_mamba2.prefill, TOLERANCE["prefill"], at_least(2))


def training(setup: Setup) -> Outcome:
    """Granite-4-like model, 2 Mamba2 layers with their MLPs: a training step."""
    return _race(setup, transformers_mamba2.training, TOLERANCE["training"], at_least(2))


def _race(setup: Setup, build: Callable[..., Runner], tolerance: float, goal: Goal) -> Outcome:
    try:
        ours = build(setup, ours=True)
    except ImportError as error:
        return Outcome([], missing={CHUNKED: str(error)})
    return race(setup, ours, [Peer(CHUNKED, partial(build, setup, ours=False), goal)], tolerance=tolerance)
