"""Histories of what agents did and got, and the tabular Q-learning agents whose learning is learned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rattention.studies.dark_room.rooms import ACTIONS, DarkRooms, Room, Transition
from rattention.studies.kit.settings import require_ranges

_EQUAL = 1e-4
"""Values closer than this are equal: rounding must not decide where an agent goes."""


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

    def arrays(self) -> Transition:
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

    def append(self, *transition: ArrayLike) -> History:
        """With one more transition of every agent: states, actions, rewards and next states, ``[batch]``."""
        new = iter(transition)
        return self._map(lambda old: np.concatenate([old, np.asarray(next(new), old.dtype)[:, None]], axis=1))

    def of(self, agents: ArrayLike) -> History:
        """The whole histories of some agents, by index or mask."""
        return self._map(lambda array: array[np.asarray(agents)])

    def _map(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> History:
        return History(**{name: change(array) for name, array in vars(self).items()})


@dataclass(frozen=True)
class QLearning:
    """How a source agent learns: ``Q(s, a) += rate * (r + discount * max Q(s', .) - Q(s, a))``.

    So after each step, and after each episode, `replays` times, from everything it has ever done. It takes an
    action of largest value, but with probability epsilon a random one. ValueError where a number is not in
    its range.
    """

    episodes: int = 40
    """Length of a learning history."""
    rate: float = 1.0
    """Learning rate, in [0, 1]: nothing in a room is random."""
    discount: float = 0.9
    """Of later rewards, in [0, 1)."""
    replays: int = 20
    """Of all past transitions after an episode; each carries a reward one step back."""
    optimism: float = 0.0
    """First value of every action, as a share of the largest there can be, ``1 / (1 - discount)``. With more
    than 0 an agent tries what it has not tried yet; with much more, even when it knows a way to the goal."""
    persistence: float = 0.8
    """Probability that of equally good actions the last one is taken again, where it is among them: so an
    agent that knows nothing yet walks in straight lines and gets somewhere."""
    epsilon: float = 0.5
    """Probability of a random action in the first episode."""
    annealing: int = 20
    """After so many episodes there are no random actions any more; until then epsilon falls evenly."""

    def __post_init__(self) -> None:
        shares = ("rate", "discount", "optimism", "persistence", "epsilon")
        require_ranges(self, episodes=1, annealing=0, replays=0, shares=shares)
        if self.discount == 1:
            raise ValueError("discount must be below 1: values would grow without end")

    def epsilon_in(self, episode: int) -> float:
        """The probability of a random action in an episode, counted from 0."""
        return self.epsilon * max(0.0, 1 - episode / self.annealing) if self.annealing else 0.0


def learn(
    goals: ArrayLike,
    agent: QLearning | None = None,
    room: Room | None = None,
    *,
    seed: int = 0,
    progress: Callable[[range], Iterable[int]] = iter,
) -> History:
    """Q-learning from nothing in a room for each of `goals`: histories ``[rooms, episodes * steps]``.

    The same seed gives the same histories. `progress` wraps the range of episodes, for a bar.
    """
    agent = QLearning() if agent is None else agent
    generator = np.random.default_rng(seed)
    rooms = DarkRooms(goals, room, generator=generator)
    table = _Table(agent, rooms.room, len(rooms.goals), generator)
    lived: list[Transition] = []
    for episode in progress(range(agent.episodes)):
        lived += table.episode(rooms, agent.epsilon_in(episode))
        table.replay()
    return History(*(np.stack(column, axis=1) for column in zip(*lived, strict=True)))


class _Table:
    """Values ``[rooms, states, actions]`` and what is done with them."""

    def __init__(self, agent: QLearning, room: Room, rooms: int, generator: np.random.Generator) -> None:
        self.agent, self.generator = agent, generator
        shape = (rooms, room.states, len(ACTIONS))
        self.values = np.full(shape, agent.optimism / (1 - agent.discount), np.float32)
        self.rewards = np.full(shape, np.nan, np.float32)
        """The largest seen, as a goal may give its reward once; NaN where an action was never tried."""
        self.next_states = room.next_states()
        self.every = np.arange(rooms)
        self.epsilon = 0.0
        self.last: NDArray[np.int64] | None = None

    def episode(self, rooms: DarkRooms, epsilon: float) -> Iterator[Transition]:
        """Act and learn until the episode is over."""
        self.epsilon, self.last = epsilon, None
        for transition in rooms.episode(self._choose):
            self._update(transition)
            yield transition

    def _update(self, transition: Transition) -> None:
        states, actions, rewards, reached = transition
        at = (self.every, states, actions)
        hoped = rewards + self.agent.discount * self.values[self.every, reached].max(axis=1)
        self.values[at] += self.agent.rate * (hoped - self.values[at])
        self.rewards[at] = np.fmax(self.rewards[at], rewards)
        self.last = actions

    def replay(self) -> None:
        """Learn from every transition there was, all at once."""
        for _ in range(self.agent.replays):
            hoped = self.rewards + self.agent.discount * self.values.max(axis=2)[:, self.next_states]
            change = np.nan_to_num(hoped - self.values)
            self.values += np.float32(self.agent.rate) * change

    def _choose(self, states: NDArray[np.int64]) -> NDArray[np.int64]:
        """The best actions, chance deciding among equals, or random ones."""
        values = self.values[self.every, states]
        chances = self.generator.random(values.shape, np.float32)
        if self.last is not None:
            chances[self.every, self.last] += self.generator.random(len(states)) < self.agent.persistence
        best = np.where(values >= values.max(axis=1, keepdims=True) - _EQUAL, chances, -1).argmax(axis=1)
        at_random = self.generator.integers(len(ACTIONS), size=len(states))
        return np.where(self.generator.random(len(states)) < self.epsilon, at_random, best)
