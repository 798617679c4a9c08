"""One process of the test of two: ``torchrun -m tests.lra_worker FOLDER``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from rattention.lra import ranks
from rattention.lra.running import do_run

from tests.lra_runs import SIZE, TRAINING, tiny_run, tiny_task

RUN = tiny_run("rattention", size=replace(SIZE, dropout=0.0), training=replace(TRAINING, epochs=3))
TASK = tiny_task(train=43)
"""The last batch of an epoch has three samples, which two cannot share evenly."""

if __name__ == "__main__":
    torch.set_num_threads(1)
    ranks.join()
    do_run(RUN, TASK, Path(sys.argv[1]))
    ranks.leave()
