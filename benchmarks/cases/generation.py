"""Tokens generated after a long context, and the bytes that are kept for it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import product
from typing import TYPE_CHECKING, Any

from benchmarks.outcome import Figure, Outcome, at_least
from benchmarks.peers import pytorch_generation, pytorch_training, transformers_generation
from benchmarks.race import Peer, Runner, race

if TYPE_CHECKING:
    from benchmarks.outcome import Samples
    from benchmarks.race import Setup

STEPS = 10
"""Tokens in one timing."""
PIECE = 4096
"""Tokens of the prompt that are read at once."""
FULL = "the same model with a full cache, SDPA"
WHOLE = "RAttention over the context in one pass"
TOLERANCE = 1e-3
"""A state of 32 k tokens, summed in another order."""
CONTEXTS = (1, 512, 4096, 32768)
STEP_CACHES = (transformers_generation.DYNAMIC, transformers_generation.IN_PLACE)
STEP_TOLERANCES = {"float32": 1e-3, "bfloat16": 0.1}


def transformers_steps(setup: Setup) -> Outcome:
    """A token of a model of Transformers, from short to long contexts, against Transformers with SDPA."""
    figures, samples, answers, missing = [], {}, {}, {}
    contexts = [c for c in CONTEXTS if c <= setup.length]
    for dtype, cache, context in product(STEP_TOLERANCES, STEP_CACHES, contexts):
        name = step_name(dtype, context, cache)
        step = partial(transformers_generation.step, setup, dtype=dtype, context=context)
        try:
            ours = step("rattention", cache_class=cache)
        except ImportError as error:
            return Outcome([], missing={"Transformers with SDPA": str(error)})
        peer = Peer(name, partial(step, "sdpa"), at_least(1))
        outcome = race(setup, ours, [peer], tolerance=STEP_TOLERANCES[dtype])
        figures += outcome.figures
        samples |= {f"{name}, {who}": s for who, s in outcome.samples.items()}
        answers |= outcome.answers
        missing |= outcome.missing
    return Outcome(figures, samples, answers, missing)


def step_name(dtype: str, context: int, cache: str) -> str:
    """The peer, with the cache that we have; its own is always `DynamicCache`."""
    ours = "" if cache == transformers_generation.DYNAMIC else f", against {cache}"
    return f"Transformers with SDPA, {dtype}, context of {context}{ours}"


def after_32k(setup: Setup) -> Outcome:
    """Ten tokens of a 4-layer language model after a long context, RAttention at w = 256."""
    layer = {"mechanism": "rattention", "window": 256, "rope_theta": pytorch_training.ROPE_THETA}
    try:
        model = pytorch_training.model(setup, layer).eval()
        torch = import_module("torch")
    except ImportError as error:
        return Outcome([], missing={FULL: str(error)})
    text = torch.randint(256, (1, setup.length), generator=torch.Generator().manual_seed(1))
    cache = _read(torch, model, text[:, :-1])
    before = [past.contents.snapshot() for past in cache.layers]
    theirs, full_bytes = pytorch_generation.full_cache(setup, STEPS)

    def call() -> Any:
        for past, snapshot in zip(cache.layers, before, strict=True):
            past.contents.restore(snapshot)
        return pytorch_generation.generate(model, cache, text[:, -1:], STEPS)

    whole = Runner(pytorch_generation.in_one_pass(model, text), pytorch_generation.logits)
    peers = [
        Peer(FULL, lambda: theirs, comparable=False),
        Peer(WHOLE, lambda: whole, timed=False),
    ]
    outcome = race(setup, Runner(call, pytorch_generation.logits), peers, tolerance=TOLERANCE)
    return _with_caches(outcome, cache.nbytes, full_bytes)


def _read(torch: Any, model: Any, prompt: Any) -> Any:
    cache = model.new_cache(1)
    with torch.no_grad():
        for piece in prompt.split(PIECE, dim=1):
            model(piece, cache=cache)
    return cache


def _with_caches(outcome: Outcome, ours: int, theirs: int) -> Outcome:
    details = {"bytes of the cache": float(ours), "bytes of the full cache": float(theirs)}
    details |= {f"tokens per second, {name}": _rate(s) for name, s in outcome.samples.items()}
    smaller = Figure("bytes of the full cache over ours", theirs / ours, "x")
    return replace(outcome, figures=[*outcome.figures, smaller], details=outcome.details | details)


def _rate(samples: Samples) -> float:
    return STEPS / samples.median
