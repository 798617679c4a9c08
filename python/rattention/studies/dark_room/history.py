"""Histories: what agents did and got, transition after transition across episodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class History:
    """Transitions of a batch of agents, oldest first; every array is ``[batch, length]``."""

    states: NDArray[np.int64]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    next_states: NDArray[np.int64]

    def __post_init__(self) -> None:
        shapes = [array.shape for array in self.arrays()]
        if len(set(shapes)) > 1 or len(shapes[0]) != 2:
            raise ValueError(
                f"states, actions, rewards and next_states must be [batch, length] alike, got {shapes}"
            )

    @classmethod
    def empty(cls, batch: int) -> History:
        """Of agents that have done nothing yet."""
        whole = np.zeros((batch, 0), np.int64)
        return cls(whole, whole, np.zeros((batch, 0), np.float32), whole)

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        """States, actions, rewards and next states, as a model takes them."""
        return self.states, self.actions, self.rewards, self.next_states

    def __len__(self) -> int:
        return int(self.states.shape[1])

    def select(self, indices: ArrayLike) -> History:
        """The transitions at `indices`, ``[k]`` for all agents or ``[batch, k]`` for each its own.

        Those that count from the end may be negative; ValueError for other shapes, IndexError for
        transitions that are not there.
        """
        chosen = np.asarray(indices)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        if chosen.ndim not in (1, 2) or (chosen.ndim == 2 and len(chosen) != len(self.states)):
            raise ValueError(
                f"indices must be [k] or [batch, k] with batch {len(self.states)}, got shape {chosen.shape}"
            )
        rows = np.arange(len(self.states))[:, None]
        return self._map(lambda array: array[rows, np.atleast_2d(chosen)])

    def last(self, count: int) -> History:
        """The newest `count` transitions, or all where there are fewer."""
        start = max(0, len(self) - count)
        return self._map(lambda array: array[:, start:])

    def append(
        self, states: ArrayLike, actions: ArrayLike, rewards: ArrayLike, next_states: ArrayLike
    ) -> History:
        """With one more transition of every agent, each ``[batch]``."""
        new = iter((states, actions, rewards, next_states))
        return self._map(lambda old: np.concatenate([old, np.asarray(next(new), old.dtype)[:, None]], axis=1))

    def of(self, agents: ArrayLike) -> History:
        """The whole histories of some agents, by index or mask."""
        return self._map(lambda array: array[np.asarray(agents)])

    def _map(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> History:
        """The same done to every array."""
        return History(
            change(self.states), change(self.actions), change(self.rewards), change(self.next_states)
        )
