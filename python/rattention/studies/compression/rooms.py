"""Transformers that learn from histories: what they get out of held-out rooms when they remember less."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rattention.compression.past import Budget, resolve_budget, share_kept
from rattention.compression.strategies import Strategy, TopK
from rattention.studies.compression.history import (
    TOKEN_STRATEGIES,
    HistoryBudget,
    choose_transitions,
    past_of,
)
from rattention.studies.compression.results import Measured, Preview
from rattention.studies.compression.tasks import Task
from rattention.studies.dark_room import History, HistoryTransformer, evaluate
from rattention.studies.dark_room.evaluation import LAST, collection_of


class Rooms(Task):
    """Mean return of the last episodes in rooms of held-out goals.

    Full is the model's whole context of the newest transitions; compressed, what a strategy drops is gone
    for good and never more than the budget is held. Rooms and random numbers of a seed are the same for all.

    Parameters
    ----------
    model:
        A `rattention.studies.dark_room.HistoryTransformer`.
    goals:
        States; the held-out ones of its training by default.
    episodes:
        Of each room.
    steps_between:
        Transitions that are dropped at once.
    """

    strategies = TOKEN_STRATEGIES

    def __init__(
        self,
        model: HistoryTransformer,
        goals: ArrayLike | None = None,
        *,
        episodes: int = 40,
        steps_between: int = 10,
    ) -> None:
        self.model, self.episodes, self.steps_between = model, episodes, steps_between
        collection = collection_of(model)
        self.goals: NDArray[np.int64] = np.asarray(collection.split()[1] if goals is None else goals)
        self.context = int(model.config["context"])
        if episodes < 1 or steps_between < 1:
            raise ValueError(f"episodes and steps_between must be >= 1, got {episodes} and {steps_between}")
        self.quality = f"mean return of the last {min(LAST, episodes)} of {episodes} episodes"
        self.name = f"dark rooms, {len(self.goals)} goals, context {self.context}"

    def full(self, seed: int) -> Measured:
        """With the model's whole context."""
        self._seed = seed
        quality, seconds = self._act(None)
        return Measured(quality, seconds, nbytes=self.context)

    def compressed(self, strategy: Strategy, budget: Budget) -> Measured:
        """With the same rooms and random numbers; bytes are counted in transitions."""
        count = resolve_budget(budget, self.context)
        watched = _Watched(self.model, strategy, count, min(self.steps_between, max(1, count - 1)))
        quality, seconds = self._act(watched)
        seconds -= watched.measuring
        return Measured(quality, seconds, watched.seconds, count, watched.mass())

    def preview(self, seed: int, strategy: Strategy, budget: Budget) -> Preview:
        """Of a full history of one room, for all layers together."""
        count = resolve_budget(budget, self.context)
        history = self._history(seed)
        kept = choose_transitions(self.model, history, strategy, count)
        mass = attention_kept(self.model, history, kept)
        return Preview({"all layers": kept[0].tolist()}, self.context, mass, count, self.context)

    def _history(self, seed: int) -> History:
        """What the model has seen of its first room by the time that its context is full."""
        seen: list[History] = []

        def watch(history: History) -> History:
            seen[:] = [history]
            return history

        steps = collection_of(self.model).room.steps
        evaluate(self.model, self.goals[:1], self.context // steps + 1, seed=seed, compress=watch)
        return seen[0]

    def _act(self, compress: _Watched | None) -> tuple[float, float]:
        began = time.perf_counter()
        forget = compress is not None
        returns = evaluate(
            self.model, self.goals, self.episodes, seed=self._seed, compress=compress, forget=forget
        )
        return float(returns[:, -LAST:].mean()), time.perf_counter() - began


class _Watched(HistoryBudget):
    """Takes its time, and at some cuts the attention that it keeps."""

    EVERY = 8
    """Cuts from one measurement of attention to the next."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.seconds = 0.0
        self.measuring = 0.0
        """Seconds that only the measurement took: no part of what compression costs."""
        self._cuts = 0
        self._masses: list[float] = []

    def __call__(self, history: History) -> History:
        began = time.perf_counter()
        seen = super().__call__(history)
        chosen = time.perf_counter()
        self.seconds += chosen - began
        if len(seen) < len(history):
            if self._cuts % self.EVERY == 0:
                assert self.kept is not None
                self._masses.append(attention_kept(self.model, history, self.kept))
            self._cuts += 1
            self.measuring += time.perf_counter() - chosen
        return seen

    def mass(self) -> float | None:
        """Mean share of the query's attention to the history that stayed; None without a cut."""
        return float(np.mean(self._masses)) if self._masses else None


def attention_kept(model: HistoryTransformer, history: History, kept: NDArray[np.int64]) -> float:
    """The query's attention to the transitions `kept` as a share of that to all, mean of the batch."""
    attention = past_of(model, history, TopK(by="query")).attention("query")
    return share_kept(attention, kept)
