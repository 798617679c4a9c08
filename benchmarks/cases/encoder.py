"""Training steps of a small encoder: 2 layers, 128 wide, 4 heads, MLP 512, batch 8, classes of mean tokens.

At full length the peer of the combined one fills 17 GB with maps, that of the gravitational one 6 GB.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.memory_probe import probe
from benchmarks.outcome import MEBI, Figure, Outcome, at_least
from benchmarks.peers import pytorch_encoder
from benchmarks.race import Peer, race

if TYPE_CHECKING:
    from benchmarks.memory_probe import Work
    from benchmarks.outcome import Goal
    from benchmarks.race import Setup

SDPA, EAGER = "PyTorch SDPA", "PyTorch eager, maps in memory"
TIMESCALES = {"timescales": [4.0, 32.0, 256.0], "learn": False}
"""Fixed ones: SDPA falls back to stored maps where its bias wants a gradient."""
LAYERS: dict[str, dict[str, Any]] = {
    "conventional": {"mechanism": "softmax"},
    "gravitational": {"mechanism": "gravitational"},
    "timescales": {"mechanism": "multi_timescale", **TIMESCALES},
    "combined": {"mechanism": "gravitational_multi_timescale", **TIMESCALES},
}
TOLERANCE = 1e-3
"""Relative to the root mean square, of gradients that went through two layers and 2048 tokens."""


def conventional(setup: Setup) -> Outcome:
    """A training step of an encoder with full attention, against SDPA."""
    return _race(setup, "conventional", SDPA, at_least(1))


def timescales(setup: Setup) -> Outcome:
    """A training step of an encoder with 3 fixed timescales, against SDPA with discounts as a bias."""
    return _race(setup, "timescales", SDPA, at_least(1.5))


def gravitational(setup: Setup) -> Outcome:
    """A training step of an encoder with gravitational attention, time and peak memory."""
    return _with_memory(setup, "gravitational")


def combined(setup: Setup) -> Outcome:
    """A training step of a gravitational encoder with 3 fixed timescales, time and peak memory."""
    return _with_memory(setup, "combined")


def _race(setup: Setup, name: str, against: str, goal: Goal) -> Outcome:
    try:
        ours = pytorch_encoder.ours(setup, LAYERS[name])
    except ImportError as error:
        return Outcome([], missing={against: str(error)})
    peer = Peer(against, partial(pytorch_encoder.plain, setup, LAYERS[name]), goal)
    return race(setup, ours, [peer], tolerance=TOLERANCE)


def _with_memory(setup: Setup, name: str) -> Outcome:
    outcome = _race(setup, name, EAGER, at_least(4))
    if outcome.missing:
        return outcome
    work = "benchmarks.cases.encoder:memory"
    ours, theirs = (probe(work, setup, name, whose)["beyond"] for whose in ("ours", "plain"))
    figures = [
        Figure("their peak memory over ours", theirs / ours, "x", at_least(5)),
        Figure("peak of a step beyond the model", ours / MEBI, "MiB"),
        Figure("(with stored maps)", theirs / MEBI, "MiB"),
    ]
    details = outcome.details | {"bytes ours": ours, "bytes with stored maps": theirs}
    return Outcome([*outcome.figures, *figures], outcome.samples, outcome.answers, outcome.missing, details)


def memory(setup: Setup, name: str, whose: str) -> Work:
    """A training step, ours or in plain PyTorch, after one with a few tokens."""
    build = {"ours": pytorch_encoder.ours, "plain": pytorch_encoder.plain}[whose]
    build(replace(setup, length=16), LAYERS[name]).call()
    runner = build(setup, LAYERS[name])
    return lambda: list(runner.answer(runner.call()).values())
