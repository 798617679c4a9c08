"""Learning histories of source agents: collected, split by goal, and kept in a file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._arguments import whole_number
from rattention._config import show_config
from rattention._extras import require
from rattention._files import replacing
from rattention.studies.dark_room.history import History
from rattention.studies.dark_room.rooms import ACTIONS, Room
from rattention.studies.dark_room.source import QLearning, learn
from rattention.studies.kit.settings import require_ranges

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

SETTINGS, HARDWARE = "rattention.histories", "rattention.hardware"
"""Keys of the metadata."""

_STORED = {"states": np.int16, "actions": np.int8, "rewards": np.float32, "next_states": np.int16}


@dataclass(frozen=True)
class Collection:
    """Which histories to collect. ValueError where the numbers do not fit the room."""

    room: Room = field(default_factory=Room)
    """The room, the same for all goals."""
    agent: QLearning = field(default_factory=QLearning)
    """The agent that learns in it."""
    per_goal: int = 32
    """Histories of each goal."""
    held_out: int = 16
    """Goals kept from training, drawn by `seed`."""
    seed: int = 0
    """Of the split and of the agents."""

    def __post_init__(self) -> None:
        require_ranges(self, per_goal=1, seed=0)
        if not 1 <= whole_number("held_out", self.held_out) < self.room.states:
            raise ValueError(
                f"held_out must be between 1 and {self.room.states - 1} of the {self.room.states} goals, "
                f"got {self.held_out}"
            )

    def split(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Goals to train on and goals held out, each in order."""
        goals = np.random.default_rng(self.seed).permutation(self.room.states)
        return np.sort(goals[self.held_out :]), np.sort(goals[: self.held_out])

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Collection:
        """What `dataclasses.asdict` made of one."""
        parts = {"room": Room(**settings["room"]), "agent": QLearning(**settings["agent"])}
        return cls(**(dict(settings) | parts))


@dataclass(frozen=True)
class LearningHistories:
    """Histories ``[histories, episodes * steps]`` of agents that learned, all of one collection."""

    history: History
    goals: NDArray[np.int64]
    """The goal of each, ``[histories]``."""
    collection: Collection

    def returns(self) -> NDArray[np.float64]:
        """Return of each episode, ``[histories, episodes]``."""
        steps = self.collection.room.steps
        by_episode = self.history.rewards.reshape(len(self.goals), -1, steps)
        return np.asarray(by_episode.sum(axis=2), np.float64)

    def of_goals(self, goals: NDArray[np.int64]) -> LearningHistories:
        """Those of some goals only."""
        chosen = np.isin(self.goals, goals)
        return LearningHistories(self.history.of(chosen), self.goals[chosen], self.collection)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file with the settings among the metadata, whole or not at all."""
        tensors = {name: getattr(self.history, name).astype(dtype) for name, dtype in _STORED.items()}
        metadata = {SETTINGS: json.dumps(asdict(self.collection)), HARDWARE: json.dumps(show_config())}
        with replacing(Path(path)) as temporary:
            require("safetensors.numpy").save_file(
                tensors | {"goals": self.goals.astype(np.int16)}, temporary, metadata
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LearningHistories:
        """What `save` wrote; ValueError names the fault of a file that is something else or damaged."""
        tensors, metadata = _read(Path(path))
        if SETTINGS not in metadata or set(tensors) != {*_STORED, "goals"}:
            raise ValueError(f"{path} holds no learning histories: it was not written by save()")
        try:
            collection = Collection.of(json.loads(metadata[SETTINGS]))
            states, actions, next_states = (
                tensors[name].astype(np.int64) for name in ("states", "actions", "next_states")
            )
            history = History(states, actions, tensors["rewards"].astype(np.float32), next_states)
            goals = collection.room.goals(tensors["goals"])
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{path} holds no usable learning histories: {error}") from error
        _check(path, history, goals, collection)
        return cls(history, goals, collection)


def collect(
    collection: Collection | None = None, *, progress: Callable[[range], Iterable[int]] = iter
) -> LearningHistories:
    """Let agents learn, `per_goal` for each goal of the room, those held out included.

    `progress` wraps the range of episodes, for a bar. The same collection gives the same histories.
    """
    collection = Collection() if collection is None else collection
    goals = np.repeat(np.arange(collection.room.states), collection.per_goal)
    history = learn(goals, collection.agent, collection.room, seed=collection.seed, progress=progress)
    return LearningHistories(history, goals, collection)


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    safetensors = require("safetensors")
    if not path.is_file():
        raise ValueError(f"{path} does not exist: make it with rattention ad collect")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _check(
    path: str | os.PathLike[str], history: History, goals: NDArray[np.int64], collection: Collection
) -> None:
    expected = (len(goals), collection.agent.episodes * collection.room.steps)
    if history.states.shape != expected:
        raise ValueError(f"{path} holds histories {history.states.shape} where its settings say {expected}")
    limits = {
        "states": collection.room.states,
        "actions": len(ACTIONS),
        "next_states": collection.room.states,
    }
    for name, limit in limits.items():
        array = getattr(history, name)
        if array.size and not 0 <= array.min() <= array.max() < limit:
            raise ValueError(f"{path} holds {name} outside 0 to {limit - 1}")
    if not np.isfinite(history.rewards).all():
        raise ValueError(f"{path} holds rewards that are no numbers")
