"""Models of Transformers with `attn_implementation="rattention"`, against what Transformers has itself."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.memory_probe import probe
from benchmarks.outcome import MEBI, Figure, Outcome, at_most
from benchmarks.peers import transformers_layers, transformers_models
from benchmarks.peers.transformers_layers import LAYERS
from benchmarks.peers.transformers_models import OURS, SDPA, SHAPES
from benchmarks.race import Peer, race

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.memory_probe import Work
    from benchmarks.race import Runner, Setup

    Measure = Callable[[Setup], Outcome]

NAMES = (*SHAPES, *LAYERS)
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.2}
"""The largest difference of all counts, and bfloat16 has 8 bits: after two layers SDPA in bfloat16 differs by
more than this from itself in float32."""
PARTS = {False: (16, 4, 2, 1), True: (2, 1)}
"""Memory is measured at the length divided by each of these, in a quick run by fewer."""


def title(name: str) -> str:
    return SHAPES[name].title if name in SHAPES else LAYERS[name].title


def against(name: str) -> str:
    """The fastest implementation of Transformers that has what the model needs."""
    return SDPA if name in SHAPES else LAYERS[name].against


def forward(name: str, dtype: str = "float32", batch: int = 1) -> Measure:
    """A case: one forward pass over a batch of texts."""

    def measure(setup: Setup) -> Outcome:
        peer = against(name)
        try:
            ours = _runner(setup, name, OURS, dtype=dtype, batch=batch)
        except ImportError as error:
            return Outcome([], missing={peer: str(error)})
        theirs = Peer(peer, lambda: _runner(setup, name, peer, dtype=dtype, batch=batch))
        return race(setup, ours, [theirs], tolerance=TOLERANCE[dtype])

    measure.__doc__ = f"{title(name)}: forward pass, {dtype}, batch {batch}"
    return measure


def memory(name: str) -> Measure:
    """A case: the peak memory of one layer at growing lengths."""

    def measure(setup: Setup) -> Outcome:
        peer = against(name)
        try:
            import_module("rattention.hf")
        except ImportError as error:
            return Outcome([], missing={peer: str(error)})
        lengths = [setup.length // part for part in PARTS[setup.quick]]
        ours = _peaks(setup, name, OURS, lengths)
        theirs = _peaks(setup, name, peer, lengths[-1:] if setup.quick else lengths)
        return _memory_outcome(ours, theirs, peer)

    measure.__doc__ = f"{title(name)}: peak memory beyond model and inputs, one layer"
    return measure


def _runner(setup: Setup, name: str, implementation: str, **options: Any) -> Runner:
    build = transformers_models.prefill if name in SHAPES else transformers_layers.attend
    return build(setup, name, implementation, **options)


def _peaks(setup: Setup, name: str, implementation: str, lengths: list[int]) -> dict[int, float]:
    """Bytes by length, outputs included, as far as they fit."""
    tables = transformers_models.tables if name in SHAPES else transformers_layers.tables
    peaks, size = {}, "small" if setup.quick else "full"
    for length in lengths:
        try:
            transformers_models.require_memory(tables(name, implementation, length))
        except ImportError:
            break
        work = (
            "benchmarks.cases.models:one_layer",
            replace(setup, length=length),
            name,
            implementation,
            size,
        )
        measured = probe(*work)
        peaks[length] = measured["peak"] - measured["before"]
    return peaks


def one_layer(setup: Setup, name: str, implementation: str, size: str) -> Work:
    """A forward pass of one layer, after one over a few tokens."""
    setup = replace(setup, quick=size == "small")
    options = SHAPES[name].one_layer if name in SHAPES else {"prepared": False}
    _runner(replace(setup, length=16), name, implementation, **options).call()
    runner = _runner(setup, name, implementation, **options)
    return lambda: [runner.call()]


def _memory_outcome(ours: dict[int, float], theirs: dict[int, float], peer: str) -> Outcome:
    lengths = list(ours)
    longest, common = lengths[-1], list(theirs)[-1]
    growth = ours[longest] / ours[lengths[-2]]
    figures = [
        Figure(f"peak at {longest} tokens", ours[longest] / MEBI, "MiB"),
        Figure(f"from {lengths[-2]} to {longest} tokens", growth, "x", at_most(2.2)),
        Figure(f"peak of {peer} over ours at {common} tokens", theirs[common] / ours[common], "x"),
    ]
    details = {
        f"bytes, {who}, {n} tokens": peak
        for who, peaks in ((OURS, ours), (peer, theirs))
        for n, peak in peaks.items()
    }
    return Outcome(figures, details=details)
