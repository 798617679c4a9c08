"""Which runs a study has, and how each is made; written to YAML and read from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rattention._arguments import require_seed
from rattention.studies.kit.settings import (
    from_mapping,
    read_yaml,
    require_mapping,
    require_name,
    write_yaml,
)
from rattention.studies.lra import images, listops, text
from rattention.studies.lra.settings import MECHANISMS, ModelSize, Training

if TYPE_CHECKING:
    import os

    from rattention.studies.lra.data import TaskSettings

TASKS = {"listops": listops.TASK, "text": text.TASK, "images": images.TASK}
"""In the order of tables and figures. One more is a file with a `Task` and its name here."""

SUBSETS = ("tasks", "mechanisms", "seeds")
"""Fields of a study that say which runs there are; all others say how each is made."""


def task_label(name: str) -> str:
    """A task as tables and figures call it."""
    return TASKS[name].label if name in TASKS else name


@dataclass(frozen=True)
class Study:
    """A comparison: every mechanism on every task with every seed. ValueError lists the known names."""

    tasks: tuple[str, ...] = tuple(name for name, task in TASKS.items() if task.usual)
    mechanisms: tuple[str, ...] = tuple(MECHANISMS)
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of first weights, dropout and the order of batches; the data are the same for all."""
    model: ModelSize = field(default_factory=ModelSize)
    training: Training = field(default_factory=Training)
    data: Mapping[str, Any] = field(default_factory=dict)
    """Settings of tasks by name; a task that is missing gets its defaults."""
    task_training: Mapping[str, Training] = field(default_factory=dict)
    """How models of some tasks are trained, where not as all others."""

    def __post_init__(self) -> None:
        for task in (*self.tasks, *self.data, *self.task_training):
            require_name("task", task, TASKS)
        for mechanism in self.mechanisms:
            require_name("mechanism", mechanism, MECHANISMS)
        for seed in self.seeds:
            require_seed("seeds", seed)
        for name in SUBSETS:
            chosen = tuple(dict.fromkeys(getattr(self, name)))
            if not chosen:
                raise ValueError(f"{name} must have at least one")
            object.__setattr__(self, name, chosen)
        data = {name: self.data.get(name, task.settings()) for name, task in TASKS.items()}
        object.__setattr__(self, "data", data)

    def runs(self) -> list[Run]:
        """Every run; all mechanisms with the first seed come before the second, so that a study that is
        stopped has something of everything."""
        return [
            Run(task, name, seed, self.model, self.task_training.get(task, self.training), self.data[task])
            for seed in self.seeds
            for task in self.tasks
            for name in self.mechanisms
        ]

    def with_data(self, **settings: TaskSettings) -> Study:
        """With other settings of the tasks that are named."""
        return replace(self, data={**self.data, **settings})

    def with_training(self, **changes: Any) -> Study:
        """With other settings of the training, that of single tasks included."""
        own = {name: replace(training, **changes) for name, training in self.task_training.items()}
        return replace(self, training=replace(self.training, **changes), task_training=own)

    def save(self, path: Path) -> None:
        """Write YAML, whole or not at all."""
        write_yaml(path, self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Study:
        """The study in a YAML file.

        What the file does not mention has its default. ValueError names the file and keys that are unknown or
        values of another type, and what is allowed.
        """
        where, parts = str(path), read_yaml(Path(path))
        forms = {"data": {name: task.settings for name, task in TASKS.items()}}
        forms["task_training"] = dict.fromkeys(TASKS, Training)
        for name in forms.keys() & parts.keys():
            parts[name] = _by_task(forms[name], parts[name], f"{where}: {name}")
        return from_mapping(cls, parts, where)


def _by_task(forms: Mapping[str, Any], settings: Any, where: str) -> dict[str, Any]:
    by_task = require_mapping(settings, where)
    for task in by_task:
        require_name("task", task, forms, f"{where}: ")
    return {task: from_mapping(forms[task], own, f"{where}: {task}") for task, own in by_task.items()}


@dataclass(frozen=True)
class Run:
    """One training."""

    task: str
    mechanism: str
    seed: int
    model: ModelSize
    training: Training
    data: TaskSettings

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.task}-{self.mechanism}-{self.seed}"


def _preset(name: str, **parts: Any) -> Study:
    """With each task's own settings of that preset."""
    return Study(
        data={task: row.presets[name] for task, row in TASKS.items() if name in row.presets},
        task_training={task: row.training[name] for task, row in TASKS.items() if name in row.training},
        **parts,
    )


PRESETS = {
    "smoke": _preset(
        "smoke",
        seeds=(0,),
        model=ModelSize(dim=32, heads=2, depth=2, mlp_dim=64, window=16, match_parameters=True),
        training=Training(batch=32, learning_rate=2e-3, epochs=3),
    ),
    "small": _preset(
        "small",
        model=ModelSize(
            dim=64,
            heads=2,
            depth=2,
            mlp_dim=128,
            dropout=0.0,
            window=64,
            match_parameters=True,
            standardize=True,
        ),
        training=Training(batch=32, learning_rate=1e-3, epochs=3, warmup_steps=50, schedule="cosine", pool=1),
    ),
    "paper": _preset("paper"),
}
"""smoke: ListOps and text with all mechanisms in a few minutes on 2 cores; small: up to two hours; paper: the
sizes of the benchmark and of the published models, for a large machine."""
