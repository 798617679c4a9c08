"""Timing in alternation, on a machine that several thread pools share."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.outcome import Samples

if TYPE_CHECKING:
    from collections.abc import Callable

IDLE_SLICE = 0.005
IDLE_LIMIT = 1.0
SHORT = 0.05
MOST_ROUNDS = 25
LONG = 60.0
"""Seconds of timing after which two rounds are enough."""


def wait_until_idle() -> None:
    """Sleep until no thread of this process runs.

    The workers of OpenMP and of ONNX Runtime spin for 5 to 30 ms after a call, on the cores the next
    contestant needs. Turning that off would slow its owner down; waiting until it has ended is the same for
    everybody.
    """
    give_up = time.perf_counter() + IDLE_LIMIT
    while time.perf_counter() < give_up:
        busy = time.process_time()
        time.sleep(IDLE_SLICE)
        if time.process_time() - busy < IDLE_SLICE / 10:
            return


def elsewhere() -> float:
    """Processor seconds that other programs, and a virtual machine's host, have used since boot."""
    first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0].split()
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(ticks) for ticks in first[1:9])
    mine = os.times()
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return busy - mine.user - mine.system - mine.children_user - mine.children_system


def stopwatch(call: Callable[[], Any]) -> Callable[[], float]:
    """A sampler that returns the seconds of one call; a short one is made twice, to wake threads."""
    last = SHORT  # the first sample warms up: one call will do

    def sample() -> float:
        nonlocal last
        if last < SHORT:
            call()
        begin = time.perf_counter()
        call()
        last = time.perf_counter() - begin
        return last

    return sample


def alternate(samplers: dict[str, Callable[[], float]], budget: float, least: int) -> dict[str, Samples]:
    """Let everyone sample once per round, A B C, B C A, ..., until `budget` seconds are over.

    There are at least `least` rounds, or two that took `LONG`, after a warm-up round that does not count.
    """
    names = list(samplers)
    values: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        wait_until_idle()
        samplers[name]()
    begin = time.perf_counter()
    for done in range(MOST_ROUNDS):
        passed = time.perf_counter() - begin
        if (done >= least and passed > budget) or (done >= 2 and passed > LONG):
            break
        start = done % len(names)
        for name in names[start:] + names[:start]:
            wait_until_idle()
            values[name].append(samplers[name]())
    return {name: Samples(tuple(v)) for name, v in values.items()}
