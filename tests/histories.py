"""Small histories, and a small transformer that learns from histories, for the tests of dark rooms."""

from __future__ import annotations

import os
import signal

import numpy as np
import torch
from rattention.nn import Softmax, rattention_pattern
from rattention.studies.dark_room import (
    Collection,
    History,
    HistoryTransformer,
    QLearning,
    Room,
    Training,
    training,
)

SMALL = Collection(Room(size=3, steps=4), QLearning(episodes=6), per_goal=4, held_out=2)
SIZES = {"context": 8, "dim": 16, "heads": 2, "depth": 2}
QUICK = Training(steps=8, batch=4, every=1, warmup=2, log_every=3, checkpoint_every=4)
PATTERNS = {
    "softmax": Softmax(rope_theta=100.0),
    "rattention": rattention_pattern(window=4),
    "gravitational": "gravitational",
}


def small_model(**options):
    torch.manual_seed(0)
    return HistoryTransformer(9, 5, **(SIZES | {"columns": 3} | options)).eval()


def random_history(length, batch=2, states=9):
    generator = np.random.default_rng(0)
    whole = [generator.integers(n, size=(batch, length)) for n in (states, 5, 2, states)]
    return History(whole[0], whole[1], whole[2].astype(np.float32), whole[3])


def tensors(history):
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in history.arrays()]


def interrupt_in_step(step, patch):
    """Ctrl-C while a step computes its losses."""
    count = iter(range(1, 1000))
    losses = training.losses

    def pressed(model, windows):
        if model.training and next(count) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return losses(model, windows)

    patch.setattr(training, "losses", pressed)
