"""One process of the test of two: ``torchrun -m tests.lra_worker FOLDER``.

One run, and a study from the command line.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from rattention.cli import main
from rattention.studies.kit import distributed
from rattention.studies.lra.training import do_run

from tests.lra_runs import SIZE, TRAINING, tiny_run, tiny_task

RUN = tiny_run("rattention", size=replace(SIZE, dropout=0.0), training=replace(TRAINING, epochs=3))
TASK = tiny_task(train=43)
"""The last batch of an epoch has three samples, which two cannot share evenly."""

if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.init()
    folder = Path(sys.argv[1])
    do_run(RUN, TASK, folder / "two")
    code = main(
        [
            "lra",
            "run",
            "--config",
            str(folder / "study.yaml"),
            "--threads",
            "1",
            "--out",
            str(folder / "study"),
        ]
    )
    distributed.destroy()
    sys.exit(code)
