"""Small language models that differ in how they attend: loss, recall, length, parts, conversion, cost.

    >>> from rattention.studies.lm import PRESETS
    >>> from rattention.studies.lm.study import runs_of
    >>> [run.name for run in runs_of(PRESETS["smoke"])][:3]
    ['ngram-full-0', 'pareto-full-0', 'pareto-window-w8-0']

`run_study` does what a `Study` lists and writes a folder:

- ``study.yaml``, ``environment.json`` and ``corpus.json``: settings, where they ran, and every text's hash;
- ``models/<trained on>-<variant>-<seed>``: ``metrics.jsonl`` with a line per step, ``model.safetensors``,
  ``trained.json``; several experiments may use a model;
- ``tuning/<trained on>-<family>``: ``rates.json``, what each learning rate came to;
- ``results/<experiment>-<variant>-<seed>.json``, one for each finished run, and what the analysis makes of
  them: ``summary.json``, ``summary.csv``, ``findings.md`` and ``figures/``.
"""

from __future__ import annotations

from rattention import _extras

for _module in ("torch", "scipy.stats"):
    _extras.require(_module)

from rattention.studies.kit.folder import new_name
from rattention.studies.lm.config import NAMES, PRESETS, Study
from rattention.studies.lm.corpus import Corpus, CorpusData
from rattention.studies.lm.settings import (
    Conversion,
    Cost,
    Evaluation,
    Length,
    ModelSize,
    Recall,
    Training,
)
from rattention.studies.lm.study import run_study
from rattention.studies.lm.variants import Variant

__all__ = [
    "NAMES",
    "PRESETS",
    "Conversion",
    "Corpus",
    "CorpusData",
    "Cost",
    "Evaluation",
    "Length",
    "ModelSize",
    "Recall",
    "Study",
    "Training",
    "Variant",
    "new_name",
    "run_study",
]
