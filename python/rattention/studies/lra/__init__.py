"""Mechanisms compared on tasks with long sequences: data, models, training, results.

    >>> from rattention.studies.lra import PRESETS
    >>> study = PRESETS["smoke"]
    >>> [run.name for run in study.runs()][:3]
    ['listops-softmax-0', 'listops-gravitational-0', 'listops-multi_timescale-0']

`run_study` trains what a `Study` lists and writes a folder:

- ``study.yaml`` and ``environment.json``, the settings and where they ran;
- for each run a folder in ``runs/``: ``metrics.jsonl`` with a line per epoch, ``attention.jsonl`` with one
  per epoch, layer and head, ``attention_maps.safetensors``, ``model.safetensors``, and ``result.json``,
  written last, which says that the run is finished;
- all lines of all runs in ``metrics.parquet`` and ``attention.parquet``, and what the analysis makes of them.
"""

from __future__ import annotations

from rattention import _extras

for _module in ("torch", "scipy.stats", "sklearn"):
    _extras.require(_module)

from rattention.studies.kit.folder import new_name
from rattention.studies.lra.config import PRESETS, TASKS, Run, Study
from rattention.studies.lra.data import Split, Task, TaskData
from rattention.studies.lra.images import Images
from rattention.studies.lra.listops import ListOps
from rattention.studies.lra.models import SequenceClassifier, matched_size
from rattention.studies.lra.settings import MECHANISMS, ModelSize, Training
from rattention.studies.lra.study import run_study
from rattention.studies.lra.text import Text

__all__ = [
    "MECHANISMS",
    "PRESETS",
    "TASKS",
    "Images",
    "ListOps",
    "ModelSize",
    "Run",
    "SequenceClassifier",
    "Split",
    "Study",
    "Task",
    "TaskData",
    "Text",
    "Training",
    "matched_size",
    "new_name",
    "run_study",
]
