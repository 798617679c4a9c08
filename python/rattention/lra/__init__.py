"""Mechanisms compared on tasks with long sequences: data, models, training, results.

    >>> from rattention.lra import PRESETS
    >>> study = PRESETS["smoke"]
    >>> [run.name for run in study.runs()][:3]
    ['listops-conventional-0', 'listops-gravitational-0', 'listops-multi_timescale-0']

`run_study` trains what a `Study` lists and writes a folder: ``study.yaml``, ``environment.json``, a folder for
each run in ``runs/`` (``metrics.jsonl``, a line per epoch; ``attention.jsonl``, a line per epoch, layer and
head; ``attention_maps.safetensors``; ``model.safetensors``; ``result.json``, which says that it is finished),
and all lines of all runs in ``metrics.parquet`` and ``attention.parquet``.
"""

from __future__ import annotations

from rattention import extras

extras.require("torch", "lra")

from rattention.lra.config import MECHANISMS, ModelSize, Run, Study, Training  # noqa: E402
from rattention.lra.data import Split, TaskData  # noqa: E402
from rattention.lra.folder import new_name  # noqa: E402
from rattention.lra.listops import ListOps  # noqa: E402
from rattention.lra.models import SequenceClassifier, matched_size  # noqa: E402
from rattention.lra.presets import PRESETS  # noqa: E402
from rattention.lra.study import run_study  # noqa: E402
from rattention.lra.tasks import TASKS  # noqa: E402
from rattention.lra.text import Text  # noqa: E402

__all__ = [
    "MECHANISMS",
    "PRESETS",
    "TASKS",
    "ListOps",
    "ModelSize",
    "Run",
    "SequenceClassifier",
    "Split",
    "Study",
    "TaskData",
    "Text",
    "Training",
    "matched_size",
    "new_name",
    "run_study",
]
