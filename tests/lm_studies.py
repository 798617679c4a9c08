"""A tiny study for tests of ``rattention lm``."""

from __future__ import annotations

import json
from dataclasses import replace

from rattention.studies.lm import (
    Conversion,
    Corpus,
    Cost,
    Evaluation,
    Length,
    ModelSize,
    Recall,
    Study,
    Training,
)

SIZE = ModelSize(dim=16, heads=2, depth=2, mlp_dim=32)
TRAINING = Training(context=128, batch=2, steps=6, rates=(1e-3,), tuning_steps=2, checkpoint_every=2)
TIMES = ("seconds", "tokens_per_second", "evaluation_seconds", "created")
"""Names of numbers that differ from run to run."""


def write_texts(folder, count=80, lines=60):
    """Files of numbered lines, each different."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"{i}.txt").write_text("".join(f"{i}: line {j} of {i * j}\n" for j in range(lines)))
    return str(folder)


def tiny_study(source, **changes):
    """All experiments, in seconds."""
    parts = {
        "seeds": (0, 1),
        "windows": (4, 8),
        "layouts": ("pure",),
        "ablation_window": 4,
        "corpus": Corpus(source),
        "model": SIZE,
        "training": TRAINING,
        "evaluation": Evaluation(sequences=4, validation_sequences=2, positions=4),
        "recall": Recall(
            length=32,
            vocabulary=32,
            pairs=(2,),
            windows=(4,),
            test_sequences=10,
            model=SIZE,
            training=replace(TRAINING, context=32),
        ),
        "length": Length(window=4, factors=(2, 4), samples=2),
        "conversion": Conversion(windows=(4,), steps=(0, 2)),
        "cost": Cost(lengths=(16, 32), windows=(4,), tokens=2, repeats=1),
    }
    return Study(**(parts | changes))


def without_times(value):
    """Results without what differs from run to run."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in (*TIMES, "environment")}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def results(folder):
    """By name, all results in a folder."""
    return {p.name: json.loads(p.read_text()) for p in sorted((folder / "results").glob("*.json"))}
