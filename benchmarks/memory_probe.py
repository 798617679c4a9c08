"""A fresh process that does one piece of work once, and prints its peak memory as JSON.

``python -m benchmarks.memory_probe MODULE:FUNCTION LENGTH THREADS [ARGUMENT...]``; Linux only, as it reads
/proc. The function prepares inputs and models and returns the `Work`; memory is measured from then on.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rattention as ra

from benchmarks.race import Setup

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[], list[Any]]
    """The call to measure; what it returns has `nbytes`."""


def probe(work: str, setup: Setup, *arguments: str) -> dict[str, float]:
    """Bytes before the call, at its peak, of its outputs, and at the peak less the other two ("beyond").

    `work` is "module:function", called with the setup and the arguments in the process that is measured.
    """
    sizes = [str(setup.length), str(setup.threads)]
    command = [sys.executable, "-m", "benchmarks.memory_probe", work, *sizes, *arguments]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    numbers: dict[str, float] = json.loads(done.stdout)
    return numbers


def main(work: str, length: int, threads: int, *arguments: str) -> None:
    ra.set_num_threads(threads)
    module, _, function = work.partition(":")
    prepare: Callable[..., Work] = getattr(importlib.import_module(module), function)
    call = prepare(Setup(length, threads, quick=False), *arguments)
    ctypes.CDLL(None).malloc_trim(0)  # what is free already must not hide what the call takes
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _resident("VmRSS")
    results = call()
    peak = _resident("VmHWM")
    outputs = sum(result.nbytes for result in results)
    numbers = {"before": before, "peak": peak, "outputs": outputs, "beyond": peak - before - outputs}
    print(json.dumps(numbers))


def _resident(field: str) -> int:
    """Bytes of memory in use now (VmRSS) or at most so far (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
