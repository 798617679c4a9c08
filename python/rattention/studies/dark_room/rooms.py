"""Dark rooms: a goal that gives reward and cannot be seen, in a square room; many rooms at once.

The environment of Algorithm Distillation (arXiv 2210.14215, section 4): the agent sees only where it stands
and has to remember across episodes where reward came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rattention._arguments import whole_number
from rattention._extras import require

gymnasium = require("gymnasium")

Transition = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]
"""States, actions, rewards and next states."""

ACTIONS = ("no-op", "left", "right", "up", "down")

_MOVES = np.array([(0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)])
"""(rows, columns) of each action; row 0 is the upper one."""

LARGEST = 100
"""Rooms with longer sides are a slip of the keyboard: an agent would not get far in them."""


@dataclass(frozen=True)
class Room:
    """What all rooms of an experiment share. States are ``row * size + column``.

    ValueError where the sizes make no room.
    """

    size: int = 9
    """Length of a side."""
    steps: int = 20
    """Length of an episode."""
    reward_once: bool = False
    """The goal gives its 1 once an episode; else on each step that ends there."""
    random_start: bool = False
    """Episodes start anywhere; else in the centre."""

    def __post_init__(self) -> None:
        for name, most in (("size", LARGEST), ("steps", LARGEST**2)):
            value = whole_number(name, getattr(self, name))
            if not 1 <= value <= most:
                raise ValueError(f"{name} must be between 1 and {most}, got {value}")

    @property
    def states(self) -> int:
        """Number of states."""
        return self.size**2

    @property
    def centre(self) -> int:
        """The state in the middle, of an even size the lower right one of four."""
        return (self.size // 2) * (self.size + 1)

    def next_states(self) -> NDArray[np.int64]:
        """Where each action leads from each state, ``[states, actions]``; walls stop."""
        places = self.places(np.arange(self.states))
        reached = np.clip(places[:, None] + _MOVES, 0, self.size - 1)
        return np.asarray(reached @ (self.size, 1), np.int64)

    def places(self, states: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row and column of each, ``[..., 2]``."""
        return np.stack(np.divmod(states, self.size), axis=-1)

    def goals(self, goals: ArrayLike) -> NDArray[np.int64]:
        """`goals` as states ``[rooms]``; ValueError for places outside the room."""
        states = np.atleast_1d(np.asarray(goals))
        if states.ndim != 1 or not len(states):
            raise ValueError(f"goals must be a list of at least one state, got shape {states.shape}")
        if not np.issubdtype(states.dtype, np.integer):
            raise TypeError(f"goals must be whole numbers, got {states.dtype}")
        outside = states[(states < 0) | (states >= self.states)]
        if len(outside):
            raise ValueError(
                f"goals must be between 0 and {self.states - 1} in a room of side {self.size}, "
                f"got {', '.join(map(str, outside[:8]))}"
            )
        return states.astype(np.int64)


HARD = Room(size=17, reward_once=True)
"""The hard variant: a larger room whose reward comes once."""


class DarkRooms:
    """Rooms with a goal each, whose episodes begin and end together.

    Parameters
    ----------
    goals:
        The state that gives reward in each room, ``[rooms]``.
    room:
        Size and rules.
    generator:
        Of the random starts.

    Examples
    --------
    >>> from rattention.studies.dark_room import DarkRooms
    >>> rooms = DarkRooms([41, 0])  # the goal is right of the centre, and in a corner
    >>> states = rooms.reset()
    >>> states, rewards, over = rooms.step([2, 2])
    >>> states, rewards, over
    (array([41, 41]), array([1., 0.], dtype=float32), False)
    """

    def __init__(
        self, goals: ArrayLike, room: Room | None = None, *, generator: np.random.Generator | None = None
    ) -> None:
        self.room = Room() if room is None else room
        self.goals = self.room.goals(goals)
        self._generator = np.random.default_rng(0) if generator is None else generator
        self._next = self.room.next_states()
        self._left = 0

    def reset(self) -> NDArray[np.int64]:
        """Begin an episode in every room; the states ``[rooms]``."""
        count = len(self.goals)
        self.states = np.full(count, self.room.centre)
        if self.room.random_start:
            self.states = self._generator.integers(self.room.states, size=count)
        self._rewarded = np.zeros(count, bool)
        self._left = self.room.steps
        return self.states.copy()

    def step(self, actions: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float32], bool]:
        """Act in every room: next states and rewards ``[rooms]``, and whether the episode is over."""
        if self._left == 0:
            raise ValueError("the episode is over: call reset()")
        chosen = np.asarray(actions)
        if chosen.shape != self.states.shape or ((chosen < 0) | (chosen >= len(ACTIONS))).any():
            raise ValueError(
                f"actions must be {len(self.goals)} numbers between 0 and {len(ACTIONS) - 1}, got {chosen}"
            )
        self.states = self._next[self.states, chosen]
        there = self.states == self.goals
        rewards = there & ~self._rewarded if self.room.reward_once else there
        self._rewarded |= there
        self._left -= 1
        return self.states.copy(), rewards.astype(np.float32), self._left == 0

    def episode(self, act: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> Iterator[Transition]:
        """Begin an episode and take the actions that `act` gives for states ``[rooms]``, until it is over."""
        states, over = self.reset(), False
        while not over:
            actions = act(states)
            reached, rewards, over = self.step(actions)
            yield states, actions, rewards, reached
            states = reached


class DarkRoom(gymnasium.Env):  # type: ignore[misc, name-defined]
    """A room with a goal that gives reward and cannot be seen.

    The observation is the agent's place, ``row * size + column``; the actions are `dark_room.ACTIONS`.
    An episode is truncated after ``room.steps`` steps and never terminates. For many rooms at once, and with
    the same rules, see `DarkRooms`.

    Parameters
    ----------
    goal:
        Where reward is, a state. By default each ``reset(seed=...)`` draws one, and resets without a seed
        keep it, so that an agent can learn across episodes; ``reset(options={"goal": 7})`` sets it.
    room:
        Size and rules, `Room()` by default; `HARD` is the hard variant.

    Examples
    --------
    >>> from rattention.studies.dark_room import DarkRoom
    >>> env = DarkRoom(goal=41)
    >>> env.reset(seed=0)
    (40, {})
    >>> env.step(2)
    (41, 1.0, False, False, {})
    """

    def __init__(self, goal: int | None = None, room: Room | None = None) -> None:
        self.room = Room() if room is None else room
        self.goal = None if goal is None else self._checked(goal)
        self._given = self.goal is not None
        self.observation_space = gymnasium.spaces.Discrete(self.room.states)
        self.action_space = gymnasium.spaces.Discrete(len(ACTIONS))
        self._rooms: DarkRooms | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Begin an episode: the agent's place, and no information."""
        super().reset(seed=seed)
        if options and "goal" in options:
            self.goal = self._checked(options["goal"])
        elif self.goal is None or (seed is not None and not self._given):
            self.goal = int(self.np_random.integers(self.room.states))
        self._rooms = DarkRooms([self.goal], self.room, generator=self.np_random)
        return int(self._rooms.reset()[0]), {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Next place, reward, terminated (never), truncated, and no information."""
        if self._rooms is None:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        states, rewards, over = self._rooms.step([action])
        return int(states[0]), float(rewards[0]), False, over, {}

    def _checked(self, goal: int) -> int:
        return int(self.room.goals([goal])[0])


def oracle_returns(goals: ArrayLike, room: Room | None = None) -> NDArray[np.float64]:
    """What an agent that knows the goal gets in an episode, ``[rooms]``; over random starts the mean.

    It arrives after as many steps as the goal is away, and the step of arrival counts; at the goal from the
    start, its first step counts.
    """
    room = Room() if room is None else room
    starts = np.arange(room.states) if room.random_start else np.array([room.centre])
    away = np.abs(room.places(room.goals(goals)[:, None]) - room.places(starts)).sum(axis=-1)
    rewarded = np.clip(room.steps + 1 - np.maximum(away, 1), 0, None)
    best = np.minimum(rewarded, 1) if room.reward_once else rewarded
    return np.asarray(best.mean(axis=1), np.float64)


def random_returns(goals: ArrayLike, room: Room | None = None) -> NDArray[np.float64]:
    """What random actions get in an episode on average, ``[rooms]``: exact, by following probabilities."""
    room = Room() if room is None else room
    states = room.goals(goals)
    every = np.arange(len(states))
    likely = np.zeros((len(states), room.states))
    likely[:, slice(None) if room.random_start else room.centre] = 1
    likely /= likely.sum(axis=1, keepdims=True)
    kernel = np.zeros((room.states, room.states))
    np.add.at(kernel, (np.arange(room.states)[:, None], room.next_states()), 1 / len(ACTIONS))
    returns = np.zeros(len(states))
    for _ in range(room.steps):
        likely = likely @ kernel
        returns += likely[every, states]
        if room.reward_once:
            likely[every, states] = 0  # what has been rewarded is out of the game
    return returns
