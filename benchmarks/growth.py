"""Time against length of the mechanisms that promise to be linear in it: a table and a figure."""

from __future__ import annotations

import time
from functools import partial
from importlib import import_module
from statistics import median
from typing import TYPE_CHECKING, Any

import rattention as ra
from rattention._files import save_figure

from benchmarks.clock import wait_until_idle
from benchmarks.inputs import random_inputs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WINDOW = 512
LENGTHS = tuple(1024 << i for i in range(9))
QUICK_LENGTHS = LENGTHS[:3]
ROUNDS = 5
MECHANISMS: dict[str, Callable[..., Any]] = {
    "sliding window": partial(ra.attention, causal=True, window=WINDOW),
    "residual linear": partial(ra.residual_linear_attention, window=WINDOW),
    "RAttention": partial(ra.rattention, window=WINDOW, rope_theta=1e4),
}

Growth = dict[str, dict[int, float]]


def measure(*, quick: bool) -> Growth:
    """Median seconds by mechanism and length; everybody once per round."""
    growth: Growth = {name: {} for name in MECHANISMS}
    for length in QUICK_LENGTHS if quick else LENGTHS:
        inputs = random_inputs(length)
        times: dict[str, list[float]] = {name: [] for name in MECHANISMS}
        for _ in range(ROUNDS + 1):
            for name, call in MECHANISMS.items():
                times[name].append(_seconds(partial(call, *inputs)))
        for name, seconds in times.items():
            growth[name][length] = median(seconds[1:])
    return growth


def _seconds(call: Callable[[], Any]) -> float:
    wait_until_idle()
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def table(growth: Growth) -> str:
    """Microseconds a token: constant where time is linear."""
    head = "growth: microseconds a token, [1, 8, n, 64] float32, window 512"
    rows = [f"  {'n':>8}" + "".join(f"{name:>18}" for name in growth)]
    for length in next(iter(growth.values())):
        rows.append(f"  {length:>8}" + "".join(f"{1e6 * t[length] / length:18.3f}" for t in growth.values()))
    return "\n".join([head, *rows])


def draw(growth: Growth, path: Path) -> None:
    """The figure, in the format of the path's ending; needs matplotlib."""
    import_module("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for (name, seconds), marker in zip(growth.items(), "os^", strict=True):
        axes.plot(list(seconds), [1e3 * s for s in seconds.values()], marker=marker, label=name)
    lengths = list(next(iter(growth.values())))
    below = 500 * min(seconds[lengths[0]] for seconds in growth.values()) / lengths[0]
    axes.plot(lengths, [below * n for n in lengths], "k:", label="in proportion to n")
    axes.set(xscale="log", yscale="log", xlabel="tokens", ylabel="milliseconds")
    axes.set_xticks(lengths, [f"{n // 1024}k" for n in lengths], minor=False)
    axes.minorticks_off()
    axes.set_title("[1, 8, n, 64] float32, window 512")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    save_figure(path, figure)
