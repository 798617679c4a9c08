"""Learning histories of source agents: collected, split by goal, kept in a file, and sampled for training."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rattention._arguments import whole_number
from rattention._config import show_config
from rattention._extras import require
from rattention._files import replacing
from rattention.nn.weights import read_tensors
from rattention.studies.dark_room.learning import History, QLearning, learn
from rattention.studies.dark_room.rooms import ACTIONS, Room
from rattention.studies.kit.settings import from_mapping, require_ranges

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
        return from_mapping(cls, settings, "collection")


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
        if not Path(path).is_file():
            raise ValueError(f"{path} does not exist: make it with rattention ad collect")
        tensors, metadata = read_tensors(Path(path))
        if SETTINGS not in metadata or set(tensors) != {*_STORED, "goals"}:
            raise ValueError(f"{path} holds no learning histories: it was not written by save()")
        try:
            collection = Collection.of(json.loads(metadata[SETTINGS]))
            kinds: dict[str, Any] = {name: np.float32 if name == "rewards" else np.int64 for name in _STORED}
            history = History(**{name: tensors[name].numpy().astype(kind) for name, kind in kinds.items()})
            goals = collection.room.goals(tensors["goals"].numpy())
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{path} holds no usable learning histories: {error}") from error
        histories = cls(history, goals, collection)
        _check(path, histories)
        return histories


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


def _check(path: str | os.PathLike[str], histories: LearningHistories) -> None:
    history, collection = histories.history, histories.collection
    expected = (len(histories.goals), collection.agent.episodes * collection.room.steps)
    if history.states.shape != expected:
        raise ValueError(f"{path} holds histories {history.states.shape} where its settings say {expected}")
    states = collection.room.states
    for name, limit in {"states": states, "actions": len(ACTIONS), "next_states": states}.items():
        array = getattr(history, name)
        if array.size and not 0 <= array.min() <= array.max() < limit:
            raise ValueError(f"{path} holds {name} outside 0 to {limit - 1}")
    if not np.isfinite(history.rewards).all():
        raise ValueError(f"{path} holds rewards that are no numbers")


@dataclass(frozen=True)
class Windows:
    """A batch of stretches of histories.

    The query stands at ``lengths``, after the transitions it sees; what lies after it is seen by nothing that
    counts.
    """

    history: History
    """``[batch, context + 1]``."""
    lengths: NDArray[np.int64]
    """Transitions that the query sees, ``[batch]``, 0 to context."""
    counted: NDArray[np.bool_]
    """Transitions ``[batch, context]`` after which the next action is predicted, too."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """All arrays by name."""
        arrays = vars(self.history) | {"lengths": self.lengths, "counted": self.counted}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


class WindowSampler:
    """Draws windows anywhere in a learning history.

    Each window keeps all episodes of its history, or each second, and so on up to each `every`-th, at
    random, beginning with any of the first: so windows span more or less of what was learned.

    Half of the windows are full and begin anywhere in an episode, as does what a model sees whose context
    slides; of the others, whose queries stand anywhere, the history begins with an episode, as it does where
    a model starts to act. Half of both are placed so that the query is where an episode begins. There nothing
    else teaches: the last transition of an episode does not count, as the next action is taken elsewhere.
    """

    def __init__(self, histories: LearningHistories, context: int, every: int) -> None:
        self.history, self.context, self.every = histories.history, context, every
        self.steps = histories.collection.room.steps
        self.episodes = histories.collection.agent.episodes
        self.spanned = (self.steps - 1 + context) // self.steps + 1
        """Episodes that a window reaches into, at most."""
        if self.episodes // every < self.spanned:
            raise ValueError(
                f"histories are too short: of {self.episodes} episodes {self.episodes // every} are left "
                f"where one in {every} is kept, and a context of {context} transitions "
                f"reaches into {self.spanned} of {self.steps}; collect more episodes, keep more of them or "
                f"shorten the context"
            )

    def draw(self, batch: int, generator: np.random.Generator) -> Windows:
        """`batch` windows."""
        agents = generator.integers(len(self.history.states), size=batch)
        stride = generator.integers(1, self.every + 1, size=(batch, 1))
        first = generator.integers(stride)
        begin = generator.integers(self.episodes // stride - self.spanned + 1)
        lengths, offset = self._queries(batch, generator)
        times = offset[:, None] + np.arange(self.context + 1)
        kept = ((begin + times // self.steps) * stride + first) * self.steps + times % self.steps
        counted = (np.arange(self.context) < lengths[:, None]) & (times[:, 1:] % self.steps != 0)
        return Windows(self.history.of(agents).select(kept), lengths, counted)

    def _queries(
        self, batch: int, generator: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Lengths, and steps of the first episode that lie before the window."""
        full, at_start = generator.random((2, batch)) < 0.5
        length = generator.integers(self.context + 1, size=batch)
        length = np.where(at_start, length // self.steps * self.steps, length)
        phase = np.where(at_start, 0, generator.integers(self.steps, size=batch))
        offset = (phase - self.context) % self.steps
        return np.where(full, self.context, length), np.where(full, offset, 0)
