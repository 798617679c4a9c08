"""What ranks send each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.inputs import HEAD_DIM, HEADS
from benchmarks.outcome import MEBI, Figure, Outcome, at_most

if TYPE_CHECKING:
    from benchmarks.race import Setup

RANKS = 4


def sent(setup: Setup) -> Outcome:
    """Bytes a rank sends for RAttention of a sequence over 4 processes, forward and backward."""
    try:
        import_module("torch")
    except ImportError as error:
        return Outcome([], missing={"PyTorch": str(error)})
    by_length = _probed([setup.length // 4, setup.length // 2, setup.length])
    most = {length: max(ranks) for length, ranks in by_length.items()}
    figures = [Figure(f"most a rank sends, n = {n}", sent / MEBI, "MiB") for n, sent in most.items()]
    growth = Figure("longest over shortest", max(most.values()) / min(most.values()), "x", at_most(1.001))
    others = 4 * 2 * HEADS * HEAD_DIM * setup.length * (RANKS - 1) // RANKS
    ring = Figure("(all keys and values, forward alone)", others / MEBI, "MiB")
    details = {
        f"rank {rank}, n = {n}": float(b) for n, ranks in by_length.items() for rank, b in enumerate(ranks)
    }
    return Outcome([*figures, growth, ring], details=details)


def _probed(lengths: list[int]) -> dict[int, list[int]]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
    root = Path(__file__).parents[2]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "sent.json"
        command = [*launcher, "-m", "benchmarks.traffic_probe", str(file), *map(str, lengths)]
        subprocess.run(command, cwd=root, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
        return {int(length): ranks for length, ranks in json.loads(file.read_text()).items()}
