"""A fresh process that does one piece of work once, and prints its peak memory as JSON.

``python -m benchmarks.memory_probe WORK LENGTH THREADS``; Linux only, as it reads /proc. Inputs and models
are made, and models called once with a few tokens, before memory is looked at.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rattention as ra

from benchmarks.inputs import random_inputs
from benchmarks.race import Setup

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.race import Runner

    Work = Callable[[], list[Any]]
    """What it returns has `nbytes`."""


def probe(work: str, setup: Setup) -> dict[str, float]:
    """Bytes before, at the peak, of the outputs, and beyond what was there before and the outputs."""
    command = [sys.executable, "-m", "benchmarks.memory_probe", work, str(setup.length), str(setup.threads)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    numbers: dict[str, float] = json.loads(done.stdout)
    return numbers


def main(work: str, length: int, threads: int) -> None:
    ra.set_num_threads(threads)
    call = WORKS[work](Setup(length, threads, quick=False))
    ctypes.CDLL(None).malloc_trim(0)  # what is free already must not hide what the call takes
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _resident("VmRSS")
    results = call()
    peak = _resident("VmHWM")
    outputs = sum(result.nbytes for result in results)
    numbers = {"before": before, "peak": peak, "outputs": outputs, "beyond": peak - before - outputs}
    print(json.dumps(numbers))


def _metrics(setup: Setup) -> Work:
    inputs = random_inputs(setup.length)  # writes, and so touches, every page

    def call() -> list[Any]:
        result = ra.attention(*inputs, metrics=ra.MetricOptions())
        assert isinstance(result, ra.AttentionResult)
        return [result.output, *(array for _, array in result.metrics or ())]

    return call


def _heatmap(setup: Setup) -> Work:
    from benchmarks.cases import microscope

    inputs = microscope.inputs_of_map(setup.length)
    return lambda: [ra.attention_map(inputs.query, inputs.key, causal=True)]


def _model(name: str) -> Callable[[Setup], Work]:
    def prepare(setup: Setup) -> Work:
        from benchmarks.cases import microscope
        from benchmarks.peers.transformers_eager import decoder

        build, model = getattr(microscope, name), decoder(setup)
        build(Setup(16, setup.threads, setup.quick), model).call()
        runner: Runner = build(setup, model)
        return lambda: list(runner.answer(runner.call()).values())

    return prepare


def _encoder(name: str, whose: str) -> Callable[[Setup], Work]:
    def prepare(setup: Setup) -> Work:
        from benchmarks.cases.encoder import LAYERS
        from benchmarks.peers import pytorch_encoder

        build = getattr(pytorch_encoder, whose)
        build(Setup(16, setup.threads, setup.quick), LAYERS[name]).call()
        runner: Runner = build(setup, LAYERS[name])
        return lambda: list(runner.answer(runner.call()).values())

    return prepare


WORKS: dict[str, Callable[[Setup], Work]] = {
    "metrics": _metrics,
    "heatmap": _heatmap,
    "observed": _model("observed"),
    "stored": _model("stored"),
    "encoder-gravitational": _encoder("gravitational", "ours"),
    "encoder-gravitational-plain": _encoder("gravitational", "plain"),
    "encoder-combined": _encoder("combined", "ours"),
    "encoder-combined-plain": _encoder("combined", "plain"),
}


def _resident(field: str) -> int:
    """Bytes of memory in use now (VmRSS) or at most so far (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
