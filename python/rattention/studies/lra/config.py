"""What a comparison consists of: models, training, tasks; written to YAML and read from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rattention._arguments import at_least, real_number, require_seed
from rattention._extras import require
from rattention._files import read_text, write_text
from rattention.nn.parts import DISTANCES
from rattention.studies.lra.listops import ListOps
from rattention.studies.lra.reading import from_mapping
from rattention.studies.lra.tasks import TASKS
from rattention.studies.lra.text import Text

if TYPE_CHECKING:
    import os

MECHANISMS = {
    "softmax": "Softmax",
    "gravitational": "Gravitational",
    "multi_timescale": "Multi-timescale",
    "gravitational_multi_timescale": "Gravitational multi-timescale",
    "rattention": "RAttention",
}
"""Mechanisms of `rattention.MECHANISMS` in the order of tables and figures, and their labels there."""

BASELINE = "softmax"
"""The mechanism that others are compared with."""

POSITIONS = ("sinusoidal", "learned", "none")
SCHEDULES = ("constant", "linear", "cosine")


def known(what: str, name: str, names: Iterable[str]) -> str:
    """`name`, which is one of `names`; ValueError lists these otherwise."""
    if name not in (allowed := list(names)):
        raise ValueError(f"unknown {what} {name!r}: there are {', '.join(allowed)}")
    return name


@dataclass(frozen=True)
class ModelSize:
    """Sizes of the encoder, the same for every mechanism. ValueError where a number is not in its range."""

    dim: int = 128
    """Width of the tokens."""
    heads: int = 4
    """Of each timescale, where there are several."""
    depth: int = 2
    """Layers."""
    mlp_dim: int = 512
    """Width inside the MLPs."""
    dropout: float = 0.1
    """On embeddings and residuals."""
    timescales: tuple[float, ...] = (4.0, 32.0, 256.0)
    """Numbers of positions, of the mechanisms that have several timescales; where they begin."""
    window: int = 128
    """Of RAttention: a token sees itself and so many before it exactly."""
    positions: Literal["sinusoidal", "learned", "none"] = "sinusoidal"
    """How tokens know where they are."""
    distance: Literal["squared_euclidean", "euclidean", "cosine"] = "squared_euclidean"
    """Of the gravitational mechanisms."""
    learn_exponent: bool = False
    """Whether the gravitational mechanisms learn the power of their distance."""
    adaptive_timescales: bool = False
    """Whether tokens move the timescales of the mechanisms that have several."""
    match_parameters: bool = False
    """Every mechanism has as many parameters as softmax attention, within 10 %."""
    standardize: bool = False
    """Standardise the pooled mean over the batch (batch normalisation) before the classifier. Means of long
    sequences differ little from each other; this makes much of what differs, and training shorter. Batches
    should then be of mixed lengths (`Training.pool`), or evaluation is of other statistics than training."""
    head_dim: int | None = None
    """Width of a head; None is dim / heads."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("dim", "heads", "depth", "mlp_dim"):
            at_least(name, getattr(self, name), 1)
        at_least("window", self.window, 0)
        if self.head_dim is not None:
            at_least("head_dim", self.head_dim, 1)
        elif self.dim % self.heads:
            raise ValueError(f"heads must divide dim, got dim={self.dim} and heads={self.heads}")
        if not 0 <= real_number("dropout", self.dropout) < 1:
            raise ValueError(f"dropout must be >= 0 and < 1, got {self.dropout}")
        object.__setattr__(self, "timescales", tuple(self.timescales))
        if not self.timescales or not all(real_number("timescales", t) > 0 for t in self.timescales):
            raise ValueError(f"timescales must be one or more numbers > 0, got {self.timescales}")
        known("positions", self.positions, POSITIONS)
        known("distance", self.distance, DISTANCES)


@dataclass(frozen=True)
class Training:
    """How models are trained. ValueError where a number is not in its range."""

    batch: int = 32
    """Sequences in a step, those of all processes together."""
    learning_rate: float = 1e-4
    """Of AdamW."""
    weight_decay: float = 1e-5
    """Of AdamW, on weight matrices."""
    epochs: int = 20
    """At most."""
    patience: int = 10
    """Epochs without a better validation accuracy after which training stops."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    warmup_steps: int = 0
    """Steps in which the learning rate rises from 0."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate goes on after that; linear and cosine fall to 0."""
    pool: int = 50
    """Batches whose sequences are sorted by length together, so that little is padding; 1 mixes lengths."""
    measured: int = 32
    """Validation samples whose attention is measured after every epoch: so many of the longest, or all."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("batch", "epochs", "patience", "pool"):
            at_least(name, getattr(self, name), 1)
        for name in ("warmup_steps", "measured"):
            at_least(name, getattr(self, name), 0)
        for name in ("learning_rate", "clip"):
            if not 0 < real_number(name, getattr(self, name)) < math.inf:
                raise ValueError(f"{name} must be a number > 0, got {getattr(self, name)}")
        if real_number("weight_decay", self.weight_decay) < 0:
            raise ValueError(f"weight_decay must be a number >= 0, got {self.weight_decay}")
        known("schedule", self.schedule, SCHEDULES)


@dataclass(frozen=True)
class Study:
    """A comparison: every mechanism on every task with every seed. ValueError lists the known names."""

    tasks: tuple[str, ...] = ("listops", "text")
    mechanisms: tuple[str, ...] = tuple(MECHANISMS)
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of first weights, dropout and the order of batches; the data are the same for all."""
    model: ModelSize = field(default_factory=ModelSize)
    training: Training = field(default_factory=Training)
    listops: ListOps = field(default_factory=ListOps)
    text: Text = field(default_factory=Text)
    text_training: Training | None = None
    """How models for text are trained; None is as all others."""

    def __post_init__(self) -> None:
        """Check the names."""
        for name, one, names in (("tasks", "task", TASKS), ("mechanisms", "mechanism", MECHANISMS)):
            chosen = tuple(known(one, value, names) for value in getattr(self, name))
            self._set_chosen(name, chosen)
        for seed in self.seeds:
            require_seed("seeds", seed)
        self._set_chosen("seeds", tuple(self.seeds))

    def _set_chosen(self, name: str, chosen: tuple[Any, ...]) -> None:
        if not chosen:
            raise ValueError(f"{name} must have at least one")
        object.__setattr__(self, name, tuple(dict.fromkeys(chosen)))

    def runs(self) -> list[Run]:
        """Every run; all mechanisms with the first seed come before the second, so that a study that is
        stopped has something of everything."""
        return [
            Run(task, mechanism, seed, self.model, self.training_of(task), getattr(self, task))
            for seed in self.seeds
            for task in self.tasks
            for mechanism in self.mechanisms
        ]

    def training_of(self, task: str) -> Training:
        """How models for a task are trained."""
        return getattr(self, f"{task}_training", None) or self.training

    def as_data(self) -> dict[str, Any]:
        """Plain values, as YAML has them."""
        data: dict[str, Any] = _plain(asdict(self))
        return data

    def save(self, path: Path) -> None:
        """Write YAML, whole or not at all."""
        write_yaml(path, self.as_data())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Study:
        """The study in a YAML file.

        What the file does not say has its default. ValueError names the file and keys that are unknown or
        values of another type, and what is allowed.
        """
        return from_mapping(cls, read_yaml(Path(path)), str(path))

    def with_more(self, other: Study) -> Study:
        """With the tasks, mechanisms and seeds of another one as well."""
        parts: dict[str, Any] = {name: (*getattr(self, name), *getattr(other, name)) for name in SUBSETS}
        return replace(self, **parts)


SUBSETS = ("tasks", "mechanisms", "seeds")
"""Fields of a study that say which runs there are; all others say how they go."""


@dataclass(frozen=True)
class Run:
    """One training."""

    task: str
    mechanism: str
    seed: int
    model: ModelSize
    training: Training
    data: Any
    """Settings of the task."""

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.task}-{self.mechanism}-{self.seed}"

    def as_data(self) -> dict[str, Any]:
        """Plain values, as YAML has them."""
        data: dict[str, Any] = _plain({f.name: getattr(self, f.name) for f in fields(self)})
        return data


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; ValueError where there is none."""
    yaml = require("yaml")
    try:
        data = yaml.safe_load(read_text(path))
    except RecursionError:
        raise ValueError(f"{path} cannot be read as YAML: it is nested too deeply") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(data, Mapping):
        raise ValueError(f"{path} must hold settings by name, got {type(data).__name__}")
    return dict(data)


def write_yaml(path: Path, data: Mapping[str, Any]) -> None:
    """Write a mapping, whole or not at all."""
    write_text(path, require("yaml").safe_dump(dict(data), sort_keys=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if hasattr(value, "__dataclass_fields__"):
        return _plain(asdict(value))
    return str(value) if isinstance(value, Path) else value
