"""One step of decoding after a long context."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import rattention as ra

from benchmarks.cases.attention import TOLERANCE, output, window_of
from benchmarks.cases.linear import ROPE_THETA
from benchmarks.inputs import HEAD_DIM, HEADS, Inputs, random_inputs
from benchmarks.outcome import MEBI, Figure, Outcome, at_least, at_most
from benchmarks.peers import pytorch
from benchmarks.peers.numpy_linear import rattention_rows, step_after
from benchmarks.peers.numpy_reference import NAME, reference
from benchmarks.race import Peer, Runner, race

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.race import Setup

STEPS = 20
"""In one timing, by everybody: a step alone is too short for the clock."""
PROMPT = 16384
SHORT_CONTEXT = 4096
LONG_TOLERANCE = 1e-3
"""A state of a million tokens in float32."""


def one_step(setup: Setup) -> Outcome:
    """Twenty decode steps of RAttention at w = 512 (64 in a quick run) after 32 k tokens."""
    inputs = random_inputs(setup.length)
    window = window_of(setup)
    cache = _cache_after(window, setup.length - 1, inputs)
    token = [array[:, :, -1:] for array in inputs]
    last = np.array([setup.length - 1])
    near = Inputs(*(array[:, :, -window - 1 :].copy() for array in inputs))
    one = Inputs(near.query[:, :, -1:].copy(), near.key, near.value)
    peers = [
        Peer(
            f"PyTorch SDPA over the {window + 1} tokens of the window, without cache and residual",
            partial(pytorch.sdpa_steps, setup, near, STEPS),
            comparable=False,
        ),
        Peer(
            "our attention over the same",
            lambda: Runner(_repeated(lambda: ra.attention(*one)), output),
            comparable=False,
        ),
        Peer(
            f"what the architecture saves: PyTorch SDPA over {setup.length} tokens",
            partial(pytorch.sdpa_steps, setup, inputs, STEPS),
            at_least(30),
            comparable=False,
        ),
        Peer(
            NAME,
            lambda: Runner(lambda: rattention_rows(inputs, last, window, ROPE_THETA), output),
            timed=False,
        ),
    ]
    return race(setup, Runner(_steps(cache, token), output), peers, tolerance=TOLERANCE)


def exact_step(setup: Setup) -> Outcome:
    """Twenty times exact attention of one token to 32 k keys, as where all of them are kept."""
    inputs = random_inputs(setup.length)
    one = Inputs(inputs.query[:, :, -1:].copy(), inputs.key, inputs.value)
    peers = [
        Peer("PyTorch SDPA", partial(pytorch.sdpa_steps, setup, one, STEPS)),
        reference(setup, one),
    ]
    ours = Runner(_repeated(lambda: ra.attention(*one)), output)
    return race(setup, ours, peers, tolerance=TOLERANCE)


def long_context(setup: Setup) -> Outcome:
    """Twenty decode steps after a million tokens against as many after 4 k, and the cache's size."""
    inputs, window = random_inputs(min(PROMPT, setup.length)), window_of(setup)
    short = _cache_after(window, min(SHORT_CONTEXT, setup.length // 4), inputs)
    long = _cache_after(window, setup.length, inputs)
    token = [array[:, :, :1] for array in inputs]
    peers = [
        Peer(
            f"the same after {short.length} tokens",
            lambda: Runner(_steps(short, token), output),
            at_most(1.1),
            comparable=False,
        ),
        Peer(
            NAME,
            lambda: Runner(lambda: step_after(inputs, setup.length, window, ROPE_THETA), output),
            timed=False,
        ),
    ]
    outcome = race(setup, Runner(_steps(long, token), output), peers, tolerance=LONG_TOLERANCE)
    growth = Figure("bytes of the cache, over those after the short context", long.nbytes / short.nbytes, "x")
    size = Figure("(the cache)", long.nbytes / MEBI, "MiB")
    details = outcome.details | {"bytes of the cache": float(long.nbytes)}
    return Outcome(
        [*outcome.figures, growth, size], outcome.samples, outcome.answers, outcome.missing, details
    )


def _cache_after(window: int, tokens: int, inputs: Inputs) -> ra.RAttentionCache:
    """A cache that has seen the first `tokens` of the inputs, from the start again where they end."""
    cache = ra.RAttentionCache(1, HEADS, HEAD_DIM, window, rope_theta=ROPE_THETA)
    while cache.length < tokens:
        part = min(tokens - cache.length, inputs.length)
        ra.rattention_step(*(array[:, :, :part] for array in inputs), cache)
    return cache


def _steps(cache: ra.RAttentionCache, token: list[Any]) -> Callable[[], Any]:
    return _repeated(lambda: ra.rattention_step(*token, cache))


def _repeated(call: Callable[[], Any]) -> Callable[[], Any]:
    """`STEPS` calls, the first of which is the answer."""

    def calls() -> Any:
        first = call()
        for _ in range(STEPS - 1):
            call()
        return first

    return calls
