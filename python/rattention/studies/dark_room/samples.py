"""What a transformer has done in rooms, as samples to look into."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rattention.inspect import Sample
from rattention.studies.dark_room.evaluation import collection_of, evaluate
from rattention.studies.dark_room.learning import History
from rattention.studies.dark_room.model import HistoryTransformer
from rattention.studies.dark_room.rooms import ACTIONS


def samples(model: HistoryTransformer, goals: Sequence[int], steps: int, seed: int) -> tuple[Sample, ...]:
    """What the model has done in each room by the time it has seen `steps` transitions."""
    seen, decisions = History.empty(len(goals)), 0

    def keep(history: History) -> History:
        nonlocal seen, decisions
        seen, decisions = history, decisions + 1
        return history

    room = collection_of(model).room
    evaluate(model, goals, -(-(steps + 1) // room.steps), seed=seed, compress=keep)
    history = seen.last(steps)
    labels = _step_labels(history, room.size)
    episodes = tuple(range((len(history) - decisions + 1) % room.steps, len(history) + 1, room.steps))
    arrays = [np.ascontiguousarray(array) for array in (*history.arrays(), history.next_states[:, -1])]
    return tuple(
        Sample(f"goal {goal}", tuple(torch.from_numpy(a[i : i + 1]) for a in arrays), {}, labels[i], episodes)
        for i, goal in enumerate(goals)
    )


def _step_labels(history: History, side: int) -> list[tuple[str, ...]]:
    """Where the agent was and what it did, and the query; "+1" where there was reward."""

    def place(state: int) -> str:
        return f"({state // side},{state % side})"

    return [
        (
            *(f"{place(s)} {ACTIONS[a]}{' +1' if r > 0 else ''}" for s, a, r in zip(*steps, strict=True)),
            f"query {place(reached[-1])}",
        )
        for *steps, reached in zip(*(array.tolist() for array in history.arrays()), strict=True)
    ]
