"""How calls would scale to more cores than this machine has: ``python -m benchmarks.schedule --json FILE``.

Every pass is run with as many threads as a larger machine would have, here on fewer cores, and the core
notes the processor time of each of its tasks. Those are then handed out on paper, in their order, to as
many workers. What this leaves out: bandwidth that cores share, their clocks, and the microseconds to
wake a thread.
"""

from __future__ import annotations

import argparse
import heapq
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rattention as ra
from rattention import _core
from rattention._files import write_json
from rattention.mechanisms.rattention import rattention_backward, rattention_keeping
from rattention.mechanisms.residual_linear import (
    residual_linear_attention_backward,
    residual_linear_attention_keeping,
)
from rattention.mechanisms.softmax import attention_backward

from benchmarks import machine
from benchmarks.inputs import random_gradient, random_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Call = Callable[[], Any]
    Loops = list[list[float]]

WORKERS = (1, 4, 16, 64)
REPEATS = 5
WINDOW = 512
BACKWARD_TILE = 512
"""Keys between two turns of the parts of a head in the backward pass of the softmax family."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schedule", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured to FILE")
    options = parser.parse_args()
    described = machine.describe()
    print(machine.line(described), "", "workers".ljust(46) + "".join(f"{n:8}" for n in WORKERS), sep="\n")
    measured = {}
    for name, call, heads, tiles in passes():
        measured[name] = speedups(call, heads, tiles)
        print(name.ljust(46) + "".join(f"{ratio:8.1f}" for ratio in measured[name].values()), flush=True)
    if options.json:
        write_json(options.json, {"machine": described, "options": {"threads": 0}, "schedule": measured})


def passes() -> Iterator[tuple[str, Call, int, int]]:
    """Name, call, and for passes whose parts of a head take turns its heads and the tiles of its keys."""
    for heads, length in ((1, 4096), (8, 4096)):
        shape = f"[1, {heads}, {length}, 64]"
        inputs = random_inputs(length, heads)
        grad = random_gradient(inputs)
        tiles = length // BACKWARD_TILE
        for mask in ({}, {"causal": True}, {"causal": True, "window": WINDOW}):
            kind = "window" if "window" in mask else "causal" if mask else "full"
            result = ra.attention(*inputs, **mask, return_lse=True)
            yield f"{kind} {shape}", partial(ra.attention, *inputs, **mask), 0, 0
            backward = partial(attention_backward, grad, *inputs, result=result, **mask)
            yield f"{kind}, backward {shape}", backward, heads, tiles
        yield from _linear(shape, inputs, grad)
    for heads in (1, 8):
        inputs = random_inputs(131072, heads)
        yield (
            f"one token after 131072 [1, {heads}, 1, 64]",
            partial(ra.attention, inputs.query[:, :, -1:].copy(), inputs.key, inputs.value),
            0,
            0,
        )


def _linear(shape: str, inputs: Any, grad: Any) -> Iterator[tuple[str, Call, int, int]]:
    kept = residual_linear_attention_keeping(*inputs, window=WINDOW)
    back = partial(residual_linear_attention_backward, grad, *inputs, window=WINDOW, kept=kept.kept)
    yield f"residual linear {shape}", partial(ra.residual_linear_attention, *inputs, window=WINDOW), 0, 0
    yield f"residual linear, backward {shape}", back, 0, 0
    kept = rattention_keeping(*inputs, window=WINDOW, rope_theta=1e4)
    back = partial(rattention_backward, grad, *inputs, window=WINDOW, rope_theta=1e4, kept=kept.kept)
    yield f"RAttention {shape}", partial(ra.rattention, *inputs, window=WINDOW, rope_theta=1e4), 0, 0
    yield f"RAttention, backward {shape}", back, 0, 0


def speedups(call: Call, heads: int, tiles: int) -> dict[int, float]:
    """By the number of workers: how many times as fast as one worker, whose tasks may be cut otherwise."""
    spans = {workers: makespan(recorded(call, workers), workers, heads, tiles) for workers in WORKERS}
    return {workers: spans[1] / span for workers, span in spans.items()}


def recorded(call: Call, threads: int) -> Loops:
    """Seconds of the tasks of each loop of a call, the least of a few repetitions."""
    ra.set_num_threads(threads)
    call()
    runs = []
    for _ in range(REPEATS):
        _core.record_task_times()
        call()
        runs.append(_core.recorded_task_times())
    ra.set_num_threads(0)
    return [np.min(loops, axis=0).tolist() for loops in zip(*runs, strict=True)]


def makespan(loops: Loops, workers: int, heads: int, tiles: int) -> float:
    """Seconds until the last task of the last loop ends.

    Where `heads` are given, tasks are parts of as many heads and take turns: with every tile of keys a
    part waits until the part before has added its share.
    """
    return sum(_loop_span(tasks, workers, heads if heads and len(tasks) > 1 else 0, tiles) for tasks in loops)


def _loop_span(tasks: list[float], workers: int, heads: int, tiles: int) -> float:
    free = [0.0] * workers
    passed: dict[int, list[float]] = {}
    for index, seconds in enumerate(tasks):
        end = heapq.heappop(free)
        if heads:
            end = _with_turns(end, seconds, passed.setdefault(index % heads, [0.0] * tiles))
        else:
            end += seconds
        heapq.heappush(free, end)
    return max(free)


def _with_turns(begin: float, seconds: float, passed: list[float]) -> float:
    """When a task ends; `passed`, when each tile was passed on, becomes its own."""
    end = begin
    for tile, before in enumerate(passed):
        end = max(end + seconds / len(passed), before)
        passed[tile] = end
    return end


if __name__ == "__main__":
    main()
