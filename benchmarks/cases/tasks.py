"""Data of the comparison of mechanisms: how fast expressions of ListOps are drawn."""

from __future__ import annotations

import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from rattention import _core

from benchmarks.outcome import Figure, Outcome, Samples, at_least

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.race import Setup

GRAMMAR = ("min_length", "max_length", "max_depth", "max_args", "operator_share")
"""Settings of ListOps that the core draws by."""
SLOWER = 50
"""Python draws one tree for so many in C++."""


def listops(setup: Setup) -> Outcome:
    """Trees of ListOps a second, drawn in C++ and by the grammar in Python; values are checked first."""
    try:
        module = import_module("rattention.studies.lra.listops")
    except ImportError as error:
        return Outcome([], missing={"Python": str(error)})
    settings = module.ListOps()
    grammar = {name: getattr(settings, name) for name in GRAMMAR}
    _check(module, _core.draw_listops(0, 0, setup.length, **grammar))
    ours, theirs = [], []
    count, generator = max(1, setup.length // SLOWER), np.random.default_rng(0)
    for _ in range(setup.rounds):
        ours.append(_seconds(lambda: _core.draw_listops(0, 0, setup.length, **grammar)) / setup.length)
        theirs.append(_seconds(lambda: _drawn(module, settings, generator, count)) / count)
    samples = {"rattention": Samples(tuple(ours)), "Python": Samples(tuple(theirs))}
    ratio = samples["Python"].median / samples["rattention"].median
    return Outcome([Figure("against Python", ratio, "x", at_least(20))], samples)


def _check(module: Any, drawn: Any) -> None:
    tokens, lengths, labels = drawn
    ends = np.cumsum(lengths)
    for first, last, label in list(zip(ends - lengths, ends, labels, strict=True))[:100]:
        assert module.evaluate(tokens[first:last]) == label


def _drawn(module: Any, settings: Any, generator: np.random.Generator, count: int) -> int:
    """How many of `count` trees of the grammar have a length within the bounds."""
    trees = (module.reference_tree(settings, generator) for _ in range(count))
    return sum(settings.min_length < len(tree) < settings.max_length for tree in trees)


def _seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
