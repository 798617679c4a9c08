"""A tiny task for tests of trainings, and what is compared of two runs."""

from __future__ import annotations

import json
import math
import os
import signal

import numpy as np
import torch
from rattention.studies.lra import (
    ListOps,
    ModelSize,
    Run,
    SequenceClassifier,
    Split,
    Study,
    TaskData,
    Training,
)
from rattention.studies.lra.training import do_run
from safetensors.numpy import load_file

TIMES = ("seconds", "tokens_per_second", "peak_memory_bytes", "seconds_per_epoch")
"""Names of numbers that differ from run to run."""

SIZE = ModelSize(dim=16, heads=2, depth=2, mlp_dim=16, timescales=(2.0, 8.0), window=4)
TRAINING = Training(batch=8, learning_rate=5e-3, epochs=4, measured=2)
STUDY = Study(
    tasks=("listops",),
    mechanisms=("softmax", "rattention"),
    seeds=(0,),
    model=SIZE,
    training=Training(batch=16, epochs=2, learning_rate=1e-3, measured=1),
    data={
        "listops": ListOps(
            train=48, validation=16, test=16, min_length=5, max_length=30, max_depth=3, max_args=3
        )
    },
)
"""Two mechanisms on a few expressions."""


def ragged(samples, seed, *, shortest=3, longest=20, vocabulary=6, classes=3):
    """Sequences whose label is the remainder of their first token."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(shortest, longest + 1, size=samples)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = generator.integers(1, vocabulary, size=offsets[-1]).astype(np.uint8)
    return Split(tokens, offsets, tokens[offsets[:-1]].astype(np.int64) % classes)


def tiny_task(train=40, validation=20, test=20):
    parts = (ragged(count, seed) for seed, count in enumerate((train, validation, test)))
    return TaskData("tiny", 6, 3, *parts, token_names=None)


def tiny_run(mechanism="softmax", seed=0, *, size=SIZE, training=TRAINING):
    return Run("tiny", mechanism, seed, size, training, None)


def straight_run(folder):
    """A run without a break, in `folder`."""
    torch.set_num_threads(1)
    do_run(tiny_run("gravitational_multi_timescale"), tiny_task(), folder / "run")
    return folder / "run"


def lines(path, without=TIMES):
    return [without_times(json.loads(line), without) for line in path.read_text("utf-8").splitlines()]


def without_times(numbers, without=TIMES):
    return {name: value for name, value in numbers.items() if name not in without}


def bits(path):
    """Tensors of a file, to the bit; the order of its metadata is left to chance."""
    return {name: array.tobytes() for name, array in load_file(path).items()}


def everything(folder):
    """All that a run left in its folder and that does not depend on the time it took."""
    return {
        "metrics": lines(folder / "metrics.jsonl"),
        "attention": lines(folder / "attention.jsonl"),
        "result": without_times(json.loads((folder / "result.json").read_text("utf-8"))),
        "model": bits(folder / "model.safetensors"),
        "maps": bits(folder / "attention_maps.safetensors"),
    }


def interrupt_in_step(step, monkeypatch):
    in_step(step, monkeypatch, lambda loss: (os.kill(os.getpid(), signal.SIGINT), loss)[1])


def spoil_in_step(step, monkeypatch):
    in_step(step, monkeypatch, lambda loss: loss * math.nan)


def in_step(step, monkeypatch, change):
    """Change the loss of one step."""
    forward, steps = SequenceClassifier.forward, iter(range(1, 10**6))

    def changed(model, *args, **kwargs):
        outputs = forward(model, *args, **kwargs)
        if model.training and next(steps) == step:
            outputs["loss"] = change(outputs["loss"])
        return outputs

    monkeypatch.setattr(SequenceClassifier, "forward", changed)
