"""Threads, and what this installation runs on."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from rattention import _core
from rattention._arguments import whole_number


def set_num_threads(n: int) -> None:
    """Use `n` threads from the next call on; 0 goes back to the default (``OMP_NUM_THREADS``,
    ``torch.set_num_threads``).

    Results are bit-identical for any number of threads. All calling Python threads share one pool of
    `n - 1` worker threads. If the system refuses to start threads, fewer are used.
    """
    threads = whole_number("n", n)
    if not 0 <= threads <= 4096:
        raise ValueError(f"n must be between 0 and 4096, got {threads}")
    _core.set_num_threads(threads)


def get_num_threads() -> int:
    """Threads the next call will use, at most. A child made by ``fork()`` has its own, as many."""
    return int(_core.get_num_threads())


def show_config() -> dict[str, Any]:
    """What this installation runs on: versions, processor, instruction set, threads. Print it when you
    report a bug. ``onednn`` is None where dense layers run on the package's own kernels."""
    return {
        "rattention": _core.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onednn": _core.onednn_version(),
        "processor": _processor(),
        "instruction_set": _core.instruction_set(),
        "threads": get_num_threads(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
