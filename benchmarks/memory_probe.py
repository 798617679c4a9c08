"""A fresh process that computes attention with all metrics once, and prints its peak memory as JSON.

``python -m benchmarks.memory_probe LENGTH THREADS``; Linux only, as it reads /proc.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import rattention as ra

from benchmarks.inputs import HEADS, random_inputs


def main(length: int, threads: int) -> None:
    ra.set_num_threads(threads)
    inputs = random_inputs(length)  # writes, and so touches, every page
    before = _resident("VmRSS")
    result = ra.attention(*inputs, metrics=ra.MetricOptions())
    peak = _resident("VmHWM")
    assert isinstance(result, ra.AttentionResult)
    assert result.metrics is not None
    outputs = result.output.nbytes + sum(array.nbytes for _, array in result.metrics)
    numbers = {
        "before": before,
        "peak": peak,
        "outputs": outputs,
        "beyond": peak - before - outputs,
        "maps": 4 * HEADS * length**2,
    }
    print(json.dumps(numbers))


def _resident(field: str) -> int:
    """Bytes of memory in use now (VmRSS) or at most so far (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
