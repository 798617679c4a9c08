"""Training steps of a small language model: 4 layers, 256 wide, 4 heads, bytes, batch 1."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.outcome import Outcome, at_least
from benchmarks.peers import pytorch_training
from benchmarks.race import Peer, race

if TYPE_CHECKING:
    from benchmarks.race import Setup

SDPA = "what the architecture saves: PyTorch SDPA over the whole context"
SAME = {
    "sliding_window": "PyTorch SDPA in blocks of rows",
    "rattention": "PyTorch: SDPA in blocks of rows, linear attention in chunks",
}
TOLERANCE = 1e-3
"""Relative to the root mean square, of gradients that went through four layers and 4096 tokens."""
BFLOAT16_TOLERANCE = 0.2
"""Gradients in bfloat16 differ by its rounding, whoever computes them; a wrong one differs by more."""


def window(setup: Setup) -> Outcome:
    """A training step with a window of 256 (32 in a quick run)."""
    return _race(setup, {"mechanism": "sliding_window"})


def rattention(setup: Setup) -> Outcome:
    """A training step with RAttention at w = 256 (32 in a quick run)."""
    return _race(setup, {"mechanism": "rattention"})


def window_bfloat16(setup: Setup) -> Outcome:
    """A training step in mixed bfloat16 with a window of 256 (32 in a quick run)."""
    return _race(setup, {"mechanism": "sliding_window"}, autocast=True)


def rattention_bfloat16(setup: Setup) -> Outcome:
    """A training step in mixed bfloat16 with RAttention at w = 256 (32 in a quick run)."""
    return _race(setup, {"mechanism": "rattention"}, autocast=True)


def _race(setup: Setup, mechanism: dict[str, Any], *, autocast: bool = False) -> Outcome:
    layer = {**mechanism, "window": 32 if setup.quick else 256, "rope_theta": pytorch_training.ROPE_THETA}
    try:
        ours = pytorch_training.ours(setup, layer, autocast=autocast)
    except ImportError as error:
        return Outcome([], missing={SDPA: str(error)})
    whole = partial(pytorch_training.sdpa, setup, autocast=autocast)
    same = partial(pytorch_training.same_layer, setup, layer, autocast=autocast)
    peers = [
        Peer(SAME[layer["mechanism"]], same, at_least(1.2)),
        Peer(SDPA, whole, at_least(3 if autocast else 2.3), comparable=False),
    ]
    tolerance = BFLOAT16_TOLERANCE if autocast else TOLERANCE
    return race(setup, ours, peers, tolerance=tolerance)
