"""What a user waits for before the first call."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.outcome import Figure, Outcome, Samples, at_most

if TYPE_CHECKING:
    from benchmarks.race import Setup

PROGRAM = "import time; t = time.perf_counter(); import rattention; print(time.perf_counter() - t)"


def import_time(setup: Setup) -> Outcome:
    """``import rattention`` in a fresh process, NumPy included."""
    seconds = Samples(tuple(_once() for _ in range(3 if setup.quick else 9)))
    return Outcome([Figure("import rattention", seconds.median, "s", at_most(0.3))], {"import": seconds})


def _once() -> float:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)
