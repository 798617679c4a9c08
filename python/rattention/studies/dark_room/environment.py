"""Dark Room as a Gymnasium environment."""

from __future__ import annotations

from typing import Any

from rattention._extras import require
from rattention.studies.dark_room.rooms import ACTIONS, DarkRooms, Room

gymnasium = require("gymnasium")


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
