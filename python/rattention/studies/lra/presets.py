"""Studies that are known by name."""

from __future__ import annotations

from typing import Any

from rattention.studies.lra.config import Study
from rattention.studies.lra.settings import ModelSize, Training
from rattention.studies.lra.tasks import TASKS


def _preset(name: str, **parts: Any) -> Study:
    """With each task's own settings of that preset."""
    return Study(
        data={task: row.presets[name] for task, row in TASKS.items() if name in row.presets},
        task_training={task: row.training[name] for task, row in TASKS.items() if name in row.training},
        **parts,
    )


PRESETS = {
    "smoke": _preset(
        "smoke",
        seeds=(0,),
        model=ModelSize(dim=32, heads=2, depth=2, mlp_dim=64, window=16, match_parameters=True),
        training=Training(batch=32, learning_rate=2e-3, epochs=3),
    ),
    "small": _preset(
        "small",
        model=ModelSize(
            dim=64,
            heads=2,
            depth=2,
            mlp_dim=128,
            dropout=0.0,
            window=64,
            match_parameters=True,
            standardize=True,
        ),
        training=Training(batch=32, learning_rate=1e-3, epochs=3, warmup_steps=50, schedule="cosine", pool=1),
    ),
    "paper": _preset("paper"),
}
"""smoke: ListOps and text with all mechanisms in about 2 minutes on 2 cores; small: about an hour; paper: the
sizes of the benchmark and of the published models, for a large machine."""
