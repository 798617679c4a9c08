"""Algorithm Distillation: a transformer that learns in its context, from histories of agents that learn.

`collect` lets tabular Q-learning agents learn in dark rooms, `train` trains a `HistoryTransformer` to predict
what they do next, and `evaluate` lets it act in rooms whose goals it was never trained on: its return rises
from episode to episode while its weights stay as they are (arXiv 2210.14215).

    >>> from rattention.studies.dark_room import HistoryTransformer, evaluate, example_checkpoint
    >>> model = HistoryTransformer.load(example_checkpoint())
    >>> evaluate(model, goals=[30], episodes=2).shape
    (1, 2)
"""

from __future__ import annotations

from rattention import _extras

for _module in ("torch", "gymnasium"):
    _extras.require(_module)

from rattention.studies.dark_room.evaluation import Comparison, compare, evaluate
from rattention.studies.dark_room.histories import Collection, LearningHistories, collect
from rattention.studies.dark_room.learning import History, QLearning, learn
from rattention.studies.dark_room.model import HistoryTransformer, example_checkpoint
from rattention.studies.dark_room.rooms import (
    ACTIONS,
    HARD,
    DarkRoom,
    DarkRooms,
    Room,
    oracle_returns,
    random_returns,
)
from rattention.studies.dark_room.training import Training, train

__all__ = [
    "ACTIONS",
    "HARD",
    "Collection",
    "Comparison",
    "DarkRoom",
    "DarkRooms",
    "History",
    "HistoryTransformer",
    "LearningHistories",
    "QLearning",
    "Room",
    "Training",
    "collect",
    "compare",
    "evaluate",
    "example_checkpoint",
    "learn",
    "oracle_returns",
    "random_returns",
    "train",
]
