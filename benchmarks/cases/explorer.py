"""The explorer: what reading a document costs beside the model's pass, and how soon a page is answered."""

from __future__ import annotations

import time
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.inputs import random_inputs
from benchmarks.outcome import Figure, Outcome, Samples, at_least, at_most
from benchmarks.peers import transformers_models
from benchmarks.race import Peer, Runner, race

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rattention.explorer import Document, Reading

    from benchmarks.race import Setup

OWN = "the model's own forward pass, SDPA"
MOVES = 100
PIXELS = 512
"""Bins along a side of the map on the page."""
READING = 1.2
"""A reading may take this many times the model's own pass."""
MOVE, LONG_MOVE, CLICK = 0.1, 0.3, 0.05
"""Seconds that an answer may take; `LONG_MOVE` for more than `LONG` tokens."""
LONG = 32768
HEAD = {"layer": "0", "head": "0"}


def reading(setup: Setup) -> Outcome:
    """A Qwen3-0.6B-shaped model of two layers reads a document, beside its own forward pass."""
    from rattention.explorer import read
    from rattention.inspect import Sample

    try:
        model, inputs = transformers_models.prepared(setup, "qwen3", "sdpa")
    except ImportError as error:
        return Outcome([], missing={OWN: str(error)})
    own = Runner(partial(_forward, model, inputs), lambda _: {})
    document, sample = _document(setup.length), Sample("tokens", (), inputs)
    ours = Runner(lambda: read(model, sample, document), lambda _: {})
    peer = Peer(OWN, lambda: own, at_least(1 / READING), comparable=False)
    return race(setup, ours, [peer], tolerance=0)


def looking(setup: Setup) -> Outcome:
    """One moves about in the causal map of one head, and clicks on tokens; seconds of the answers."""
    from rattention.explorer.explorer import Explorer

    length = setup.length
    ask = Explorer(read_document(length)).ask
    moves = _timed(ask, "map", map(HEAD.__or__, _moves(length)))
    clicks = _timed(ask, "reads", map(HEAD.__or__, _clicks(length)))
    return answered(moves, clicks, length)


def answered(moves: tuple[float, ...], clicks: tuple[float, ...], length: int, until: str = "") -> Outcome:
    """Seconds of moves and clicks against their goals; `until` says when they ended."""
    limit = at_most(LONG_MOVE if length > LONG else MOVE)
    figures = [
        Figure(f"median of {len(moves)} moves in the map{until}", median(moves), "s", limit),
        Figure(f"worst of {len(moves)} moves", max(moves), "s", limit),
        Figure(f"median of {len(clicks)} clicks on a token{until}", median(clicks), "s", at_most(CLICK)),
        Figure(f"worst of {len(clicks)} clicks", max(clicks), "s", at_most(CLICK)),
    ]
    return Outcome(figures, {"moves": Samples(moves), "clicks": Samples(clicks)})


def read_document(length: int, *, layers: int = 1, head_dim: int = 64) -> Reading:
    """As a model of causal layers with one head would have read it; numbers are random, and seeded."""
    from rattention._metrics import MetricOptions
    from rattention.explorer import Reading
    from rattention.inspect import LayerAttention

    reading = Reading(_document(length), "seeded")
    for index in range(layers):
        inputs = random_inputs(length, heads=1, head_dim=head_dim, seed=index)
        layer = LayerAttention(index, f"layer {index}", inputs.query, inputs.key, {"causal": True})
        reading.add(layer, MetricOptions(received=False))
    return reading


def _document(length: int) -> Document:
    """Words of 2 to 8 letters, a token each."""
    from rattention.explorer import Document

    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 9, length)
    letters = "".join(map(chr, rng.integers(ord("a"), ord("z") + 1, int(sizes.sum()))))
    stops = np.cumsum(sizes)
    words = [letters[stop - size : stop] for size, stop in zip(sizes, stops, strict=True)]
    starts = stops - sizes + np.arange(length)
    return Document(" ".join(words), np.stack([starts, starts + sizes], axis=1).astype(np.int32))


def _forward(model: Any, inputs: dict[str, Any]) -> Any:
    import torch

    with torch.no_grad():
        return model(**inputs).last_hidden_state


def _timed(ask: Callable[..., Any], question: str, asked: Iterator[dict[str, str]]) -> tuple[float, ...]:
    """Seconds of each answer, after a first one that is not counted: it prepares the head's map."""
    took = []
    for params in asked:
        begin = time.perf_counter()
        ask(question, params)
        took.append(time.perf_counter() - begin)
    return tuple(took[1:])


def _moves(length: int) -> Iterator[dict[str, str]]:
    """The whole map, then parts of all sizes, seeded."""
    rng = np.random.default_rng(0)
    yield _part(0, 0, length, length)
    for _ in range(MOVES):
        size = max(1, int(length ** rng.random()))
        row, key = (int(rng.integers(0, length - size + 1)) for _ in range(2))
        yield _part(row, key, size, length)


def _part(row: int, key: int, size: int, length: int) -> dict[str, str]:
    last = min(size, length)
    return {
        "rows": f"{row},{row + last}",
        "keys": f"{key},{key + last}",
        "shape": f"{PIXELS},{PIXELS}",
    }


def _clicks(length: int) -> Iterator[dict[str, str]]:
    for token in np.random.default_rng(1).integers(0, length, MOVES + 1).tolist():
        yield {"start": str(token), "stop": str(token + 1)}
